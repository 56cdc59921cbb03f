"""Mistakes in the step, and in what is done with the result."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jscan
from support.mistakes import Mistake, Table

scan: Any = jscan.scan
x, xs, h0 = jnp.arange(4.0), jnp.ones((4, 3)), jnp.zeros(3)
errors = jax.errors
W, V = jnp.ones((4, 3)), jnp.ones((3, 3))


def named(a, h):
    """A step whose name and arguments the error has to tell."""
    return jnp.dot(V, h) + a


def clip(a, h):
    return h if a > 1 else h + a


def wait(a, h):
    while h < a:
        h = h + 1
    return h


def either(a, h):
    return h + a * (a > 0 and h > 0)


def repeat(n, h):
    for _ in range(n):
        h = h + 1
    return h


def switch(n, h):
    return h + [1.0, 2.0, 3.0][n]


def with_numpy(a, h):
    return h + np.asarray(np.sin(a))


def with_float(a, h):
    return h + float(a)


def with_math(a, h):
    return h + math.sin(a)


def with_item(a, h):
    return h + a.item()


def with_mask(a, h):
    return h + a[a > 0].sum()


def with_size(n, h):
    return h + jnp.zeros(n).sum()


def assigns(a, h):
    h[0] = a
    return h


def forgets(a, h):
    h = h + a


total = 3.0


def counts_on(a):
    total += a  # noqa: F823  # type: ignore
    return total


def asserts(a, h):
    assert a >= 0, "negative"
    return h + a


def called(name: str, *arguments: str) -> str:
    return rf"called as {name}\({', '.join(arguments)}\)"


def scalar(name: str, a: str = "a", dtype: str = "float64") -> str:
    return called(name, rf"{a}: {dtype}\[\]", r"h: float64\[\]")


IF = r"Fix: in place of if, while, .*jnp.where.*jax.lax.cond.*mode=\"DEBUG\""
counts = jnp.arange(3)
BOOL, INT = errors.TracerBoolConversionError, errors.TracerIntegerConversionError
CONCRETE = errors.ConcretizationTypeError

STEPS: Table = {
    "if": Mistake(
        lambda: scan(clip, x, 0.0, name="s"),
        ("boolean", "of scan 's'", scalar("clip"), IF, "function clip", "argument a"),
        lambda: scan(lambda a, h: jnp.where(a > 1, h, h + a), x, 0.0),
        BOOL,
    ),
    "if, run in Python": Mistake(
        lambda: scan(clip, x, 0.0),
        ("mode=.DEBUG.",),
        lambda: scan(clip, x, 0.0, mode="DEBUG"),
        BOOL,
    ),
    "while": Mistake(
        lambda: scan(wait, x, 0.0),
        ("boolean", scalar("wait"), IF),
        lambda: scan(
            lambda a, h: jax.lax.while_loop(lambda h: h < a, lambda h: h + 1, h), x, 0.0
        ),
        BOOL,
    ),
    "and": Mistake(
        lambda: scan(either, x, 0.0),
        ("boolean", scalar("either"), r"& \| ~"),
        lambda: scan(lambda a, h: h + a * ((a > 0) & (h > 0)).astype(float), x, 0.0),
        BOOL,
    ),
    "assert": Mistake(
        lambda: scan(asserts, x, 0.0),
        ("boolean", scalar("asserts"), "DEBUG"),
        lambda: scan(asserts, x, 0.0, mode="DEBUG"),
        BOOL,
    ),
    "range": Mistake(
        lambda: scan(repeat, counts, 0.0),
        ("__index__", scalar("repeat", "n", "int64"), "jax.lax.fori_loop"),
        lambda: scan(
            lambda n, h: jax.lax.fori_loop(0, n, lambda _, h: h + 1, h), counts, 0.0
        ),
        INT,
    ),
    "a list indexed": Mistake(
        lambda: scan(switch, counts, 0.0),
        ("__index__", scalar("switch", "n", "int64"), r"jnp.asarray\(items\)\[i\]"),
        lambda: scan(
            lambda n, h: h + jnp.asarray([1.0, 2.0, 3.0])[n], jnp.arange(3), 0.0
        ),
        INT,
    ),
    "numpy": Mistake(
        lambda: scan(with_numpy, x, 0.0),
        ("__array__", scalar("with_numpy"), "jnp.sin for np.sin"),
        lambda: scan(lambda a, h: h + jnp.sin(a), x, 0.0),
        errors.TracerArrayConversionError,
    ),
    "float": Mistake(
        lambda: scan(with_float, x, 0.0),
        ("concrete", scalar("with_float"), "keep it an array: no float"),
        lambda: scan(lambda a, h: h + a.astype(float), x, 0.0),
        CONCRETE,
    ),
    "math": Mistake(
        lambda: scan(with_math, x, 0.0),
        ("concrete", scalar("with_math"), r"jnp.sin\(x\)"),
        lambda: scan(lambda a, h: h + jnp.sin(a), x, 0.0),
        CONCRETE,
    ),
    "item": Mistake(
        lambda: scan(with_item, x, 0.0),
        ("concrete", scalar("with_item"), r"no float.*\.item\(\)"),
        lambda: scan(lambda a, h: h + a, x, 0.0),
        CONCRETE,
    ),
    "a mask": Mistake(
        lambda: scan(with_mask, xs, 0.0),
        ("boolean", called("with_mask", r"a: float64\[3\]", ".*"), r"jnp.where\(mask"),
        lambda: scan(lambda a, h: h + jnp.where(a > 0, a, 0).sum(), xs, 0.0),
        errors.NonConcreteBooleanIndexError,
    ),
    "a size": Mistake(
        lambda: scan(with_size, counts, 0.0),
        ("concrete", scalar("with_size", "n", "int64"), "Fix: a size must be"),
        lambda: scan(lambda n, h: h + jnp.zeros(3).sum(), counts, 0.0),
    ),
    "an assignment": Mistake(
        lambda: scan(assigns, x, h0),
        ("immutable", r"at\[idx\].set", called("assigns", r"a: float64\[\]", ".*")),
        lambda: scan(lambda a, h: h.at[0].set(a), x, h0),
    ),
    "a wrong product": Mistake(
        lambda: scan(named, x, jnp.zeros(4), name="rnn"),
        (
            r"\(3,\) and \(4,\)",
            "scan 'rnn'",
            called("named", ".*", r"h: float64\[4\]"),
            "compare the types above",
        ),
        lambda: scan(named, x, jnp.zeros(3), name="rnn"),
    ),
    "a name that is not there": Mistake(
        lambda: scan(lambda a: missing + a, x, name="s"),  # noqa: F821  # type: ignore
        (
            "'missing'",
            "in the step of scan 's'",
            called("step", r"a: float64\[\]"),
            "give the name a value before the call",
        ),
        lambda: scan(lambda a: 1 + a, x),
        NameError,
    ),
    "a name that an assignment makes local": Mistake(
        lambda: scan(counts_on, x, name="s"),
        (
            "'total'",
            called("counts_on", r"a: float64\[\]"),
            "give what is assigned another name",
        ),
        lambda: scan(lambda a: total + a, x),
        NameError,
    ),
    "an attribute of NumPy's": Mistake(
        lambda: scan(lambda a, h: h + a.numpy(), x, 0.0),
        ("no attribute numpy", scalar("step"), "JAX's arrays"),
        lambda: scan(lambda a, h: h + a, x, 0.0),
        AttributeError,
    ),
    "many parameters in few words": Mistake(
        lambda: scan(
            lambda a, p: a @ p["w0"], xs, None, {f"w{i}": h0[:2] for i in range(30)}
        ),
        (called("step", r"a: float64\[3\]", "p: dict of 30 arrays"),),
        lambda: scan(
            lambda a, p: a @ p["w0"], xs, None, {f"w{i}": h0 for i in range(30)}
        ),
    ),
    "all arguments in one": Mistake(
        lambda: scan(lambda *a: a[0] @ a[1], xs, h0[:2]),
        (called("step", r"a\[0\]: float64\[3\]", r"a\[1\]: float64\[2\]"),),
        lambda: scan(lambda *a: a[1] + a[0], xs, h0),
    ),
    "a loop in a loop": Mistake(
        lambda: scan(
            lambda row, h: h + scan(clip, row, 0.0, name="in").outputs[-1],
            xs,
            0.0,
            name="out",
        ),
        ("of scan 'in', called as clip", IF, "of scan 'out', called as step.row: "),
        lambda: scan(
            lambda row, h: h + scan(lambda a, h: h + a, row, 0.0).outputs[-1], xs, 0.0
        ),
        BOOL,
    ),
    # What the step returns.
    "no return": Mistake(
        lambda: scan(forgets, xs, h0),
        ("the step's return value, output 0", "None", "forget its return"),
        lambda: scan(lambda a, h: h + a, xs, h0),
    ),
    "text as an output": Mistake(
        lambda: scan(lambda a, h: [h + a, "ok"], xs, [h0, None]),
        ("the step's return value, output 1", "'ok' of type str", "return arrays"),
        lambda: scan(lambda a, h: [h + a, 1], xs, [h0, None]),
    ),
    "a generator as an output": Mistake(
        lambda: scan(lambda a: (v for v in a), xs),
        ("output 0", "generator", "return a list of its items"),
        lambda: scan(lambda a: [*a], xs),
    ),
    "until alone": Mistake(
        lambda: scan(lambda a: jscan.until(a > 2), x),
        ("the step's return value", "until alone", r"\(outputs, until\(condition\)\)"),
        lambda: scan(lambda a: (a, jscan.until(a > 2)), x),
    ),
    "until first": Mistake(
        lambda: scan(lambda a: (jscan.until(a > 2), a), x),
        ("return value", r"until\(condition\) last", "position 0 of 2", "Fix: "),
        lambda: scan(lambda a: (a, jscan.until(a > 2)), x),
    ),
    "until of a vector": Mistake(
        lambda: scan(lambda a, h: (h + a, jscan.until(h > 2)), xs, h0),
        ("until", "a scalar condition", r"bool\[3\]", r"\.any\(\) or \.all\(\)"),
        lambda: scan(lambda a, h: (h + a, jscan.until((h > 2).any())), xs, h0),
    ),
    "until in an if": Mistake(
        lambda: scan(lambda a: a if bool(jscan.until(a > 2)) else -a, x),
        ("until", "one in an if", "return it last"),
        lambda: scan(lambda a: (a, jscan.until(a > 2)), x),
    ),
    "until of text": Mistake(
        lambda: scan(lambda a: (a, jscan.until("a > 2")), x),
        ("until", "a scalar condition", "'a > 2' of type str", "Fix: pass a number"),
        lambda: scan(lambda a: (a, jscan.until(a > 2)), x),
    ),
    "until of None": Mistake(
        lambda: scan(lambda a: (a, jscan.until(None)), x),
        ("until", "a scalar condition", "None", "leave until out"),
        lambda: scan(lambda a: a, x),
    ),
    "until of scan_checkpoints": Mistake(
        lambda: jscan.scan_checkpoints(lambda a: (a, jscan.until(a > 2)), x),
        ("until", "runs to its end", r"scan\(..., checkpoint=N\)"),
        lambda: scan(lambda a: (a, jscan.until(a > 2)), x, checkpoint=2),
        NotImplementedError,
    ),
    "a state that grows": Mistake(
        lambda: scan(lambda a, h: jnp.append(h, a), x, h0),
        (
            r"outputs_info\[0\]",
            r"got float64\[4\]",
            r"return the shape \(3,\) at every",
        ),
        lambda: scan(lambda a, h: jnp.append(h[1:], a), x, h0),
    ),
    "a scalar state that becomes a vector": Mistake(
        lambda: scan(lambda a, h: h + a, xs, 0.0),
        (r"outputs_info\[0\] \(output 0\)", r"\[\]", r"\[3\]", r"jnp.zeros\(\(3,\)\)"),
        lambda: scan(lambda a, h: h + a, xs, jnp.zeros((3,))),
    ),
    "a state that loses precision": Mistake(
        lambda: scan(lambda a, h: h.astype("float32"), x, jnp.zeros(())),
        (
            r"outputs_info\[0\]",
            r"float64\[\]",
            r"got float32",
            r"\.astype\('float64'\)",
        ),
        lambda: scan(lambda a, h: h.astype("float32").astype("float64"), x, 0.0),
    ),
    "a fraction for a state of whole numbers": Mistake(
        lambda: scan(lambda a, h: (h + a).astype(int), counts, 0.5),
        (r"outputs_info\[0\]", "int64", "got 0.5", "start from a whole number"),
        lambda: scan(lambda a, h: (h + a).astype(int), counts, 0),
    ),
    "a state of another tree": Mistake(
        lambda: scan(lambda a, s: {"H": s["h"]}, xs, dict(initial={"h": h0})),
        (r"outputs_info\[0\]", "'h': float64", "'H': float64", "the same structure"),
        lambda: scan(lambda a, s: {"h": s["h"]}, xs, dict(initial={"h": h0})),
    ),
    "outputs that are fewer than announced": Mistake(
        lambda: scan(lambda a, h: h + a, xs, [h0, None]),
        ("outputs_info", "1 entry", "2 entries", "an output for each entry"),
        lambda: scan(lambda a, h: [h + a, a], xs, [h0, None]),
    ),
    "two states in the wrong order": Mistake(
        lambda: scan(lambda a, h, n: [n + 1, h + a], xs, [h0, 0]),
        (
            r"outputs_info\[0\] .output 0",
            r"float64\[3\]",
            r"int64\[\]",
            "in the order of",
        ),
        lambda: scan(lambda a, h, n: [h + a, n + 1], xs, [h0, 0]),
    ),
    # strict.
    "strict and a weight": Mistake(
        lambda: scan(lambda h: W[0] + h, outputs_info=h0, n_steps=2, strict=True),
        ("strict=True", r"captures W \(float64\[4,3\]\)", "pass it in non_sequences"),
        lambda: scan(lambda h, W: W[0] + h, None, h0, W, n_steps=2, strict=True),
    ),
    # The result.
    "the result as an array": Mistake(
        lambda: scan(lambda a: a, x) * 2,
        ("ScanResult", "needed an array", r"\(outputs, updates\)", "result.outputs"),
        lambda: scan(lambda a: a, x).outputs * 2,
    ),
    "the result in numpy": Mistake(
        lambda: np.mean(scan(lambda a: a, x)),
        ("ScanResult", "needed an array", r"\(outputs, updates\)", "result.outputs"),
        lambda: np.mean(scan(lambda a: a, x).outputs),
    ),
    "the result's shape": Mistake(
        lambda: scan(lambda a: a, x).shape,
        ("ScanResult: the attribute 'shape'", "needed outputs", "result.outputs.shape"),
        lambda: scan(lambda a: a, x).outputs.shape,
        AttributeError,
    ),
    "the last row of the result": Mistake(
        lambda: scan(lambda a: a, x)[-1].sum(),
        ("Updates", "'sum'", "Fix: "),
        lambda: scan(lambda a: a, x).outputs[-1].sum(),
        AttributeError,
    ),
    "NaN": Mistake(
        lambda: scan(jnp.log, x - 1, mode="DEBUG", name="s"),
        ("scan 's': output 0 at step 0", "finite", "got nan", "inputs"),
        lambda: scan(jnp.log, x + 1, mode="DEBUG"),
        FloatingPointError,
    ),
    "NaN in a matrix": Mistake(
        lambda: scan(jnp.log, jnp.ones((3, 9, 9)) - 1, mode="DEBUG", name="s"),
        ("scan 's': output 0 at step 0", "finite", "-inf", "inputs"),
        lambda: scan(jnp.log, jnp.ones((3, 9, 9)), mode="DEBUG"),
        FloatingPointError,
    ),
    "filled with text": Mistake(
        lambda: jax.jit(lambda n: scan(lambda a: a, counts, n_steps=n))(2).filled("-"),
        ("ScanResult: filled", "int64", "got '-'", "pass one of dtype int64"),
        lambda: jax.jit(lambda n: scan(lambda a: a, counts, n_steps=n))(2).filled(0),
    ),
    "filled with a fraction": Mistake(
        lambda: jax.jit(lambda n: scan(lambda a: a, counts, n_steps=n).filled(0.5))(2),
        ("ScanResult: filled", "int64", "got 0.5", "pass one of dtype int64"),
        lambda: jax.jit(lambda n: scan(lambda a: a, counts, n_steps=n).filled(0))(2),
    ),
}
