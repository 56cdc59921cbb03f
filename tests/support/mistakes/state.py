"""Mistakes with shared variables, updates, functions, gradients and random streams."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jscan
from support.mistakes import Mistake, Table

scan: Any = jscan.scan
function: Any = jscan.function
shared: Any = jscan.shared
x, xs, h0 = jnp.arange(4.0), jnp.ones((4, 3)), jnp.zeros(3)
w = jscan.shared(jnp.ones(3), name="w")
k = jscan.shared(0, name="k")
rng: Any = jscan.RandomStreams(1)
grad: Any = jscan.grad


def branch(a, b):
    """A function whose name and arguments the error has to tell."""
    return a if b > 0 else -a


def set_in_step(a):
    w.set_value(np.ones(3))
    return a


def profiled(name="rnn"):
    with jscan.profile() as found:
        scan(lambda a: a, x, name="rnn")
    return found.loops[name]


def last(x):
    return scan(lambda a, h: a + h, x, 0.0, name="rnn").outputs[-1]


STATE: Table = {
    # Shared variables.
    "a variable in a jnp function": Mistake(
        lambda: jnp.tanh(w),  # type: ignore
        ("<SharedVariable w: ", "takes arrays only", r"jnp.tanh\(w.value\)"),
        lambda: jnp.tanh(w.value),
    ),
    "a variable in a jnp function of a step": Mistake(
        lambda: scan(lambda a: a * jnp.sum(w), x, name="s"),  # type: ignore
        ("<SharedVariable w: ", r"Fix: pass w.value", "in the step of scan 's'"),
        lambda: scan(lambda a: a * jnp.sum(w.value), x),
    ),
    "a variable in jax.jit": Mistake(
        lambda: jax.jit(lambda a: w.value * a)(2.0),
        ("<SharedVariable w: ", "inside jax.jit", "jscan.function in place of jax.jit"),
        lambda: function(lambda a: w.value * a)(2.0),
    ),
    "an assignment to value": Mistake(
        lambda: setattr(w, "value", np.zeros(3)),
        (r"w.value = \.\.\.", "only read", r"w.set_value\(\.\.\.\)"),
        lambda: w.set_value(np.ones(3)),
        AttributeError,
    ),
    "an attribute it does not have": Mistake(
        lambda: w.eval(),
        ("SharedVariable", "'eval'", r"w.get_value\(\)"),
        lambda: w.get_value(),
        AttributeError,
    ),
    "set_value in a step": Mistake(
        lambda: scan(set_in_step, x),
        ("'w': set_value", "outside of steps", r"return \{w: new_value\}"),
        lambda: scan(lambda a: (a, {w: w * 1.0}), x),
    ),
    "get_value in a step": Mistake(
        lambda: scan(lambda a: a * w.get_value()[0], x),
        ("'w': get_value", "outside of steps", "read w.value there"),
        lambda: scan(lambda a: a * w.value[0], x),
    ),
    "set_value of another rank": Mistake(
        lambda: w.set_value(np.ones((3, 1))),
        ("'w': set_value", r"float64\[3\]", r"float64\[3,1\]", "as many axes"),
        lambda: w.set_value(np.ones(3)),
    ),
    "set_value of another dtype": Mistake(
        lambda: w.set_value(np.ones(3, complex)),
        ("'w': set_value", r"float64\[3\]", "complex", r"\.astype\('float64'\)"),
        lambda: w.set_value(np.abs(np.ones(3, complex)).astype("float64")),
    ),
    "set_value of a fraction": Mistake(
        lambda: k.set_value(2.5),
        ("'k': set_value", r"int64\[\]", "float", r"jnp\.asarray\(value, 'int64'\)"),
        lambda: jscan.shared(0).set_value(jnp.asarray(2.5, "int64")),
    ),
    "set_value of text": Mistake(
        lambda: w.set_value("zeros"),
        ("'w': set_value", r"float64\[3\]", "got str|'zeros'", "Fix: "),
        lambda: w.set_value(np.ones(3)),
    ),
    "set_value of another tree": Mistake(
        lambda: shared({"h": h0}).set_value({"H": h0}),
        ("shared: set_value", r"tree, {'h': float64\[3\]}", "got {'H'", "whole tree"),
        lambda: shared({"h": h0}).set_value({"h": h0}),
    ),
    "shared of text": Mistake(
        lambda: shared("W"),
        ("shared: value", "an array, a number", "'W' of type str", "Fix: "),
        lambda: shared(0.0, "W"),
    ),
    "shared of None": Mistake(
        lambda: shared(None, name="W"),
        ("shared variable 'W': value", "an array", "None", "Fix: leave it out"),
        lambda: shared(0.0, name="W"),
    ),
    "shared of nothing": Mistake(
        lambda: shared(name="W"),
        ("jscan.shared: a call", "missing.*'value'", r"jscan.shared\(value"),
        lambda: shared(0.0, name="W"),
    ),
    "shared with a dtype": Mistake(
        lambda: shared(np.zeros(3), dtype="float32"),
        ("jscan.shared: a call", "dtype=", "give the value this dtype"),
        lambda: shared(np.zeros(3, "float32")),
    ),
    "shared of a variable": Mistake(
        lambda: shared([w]),
        ("shared: value", "<SharedVariable w: ", "take w.value"),
        lambda: shared([w.value]),
    ),
    "shared of a draw": Mistake(
        lambda: shared(rng.normal(size=2)),
        ("shared: value", "Draw", r"\.value"),
        lambda: shared(rng.normal(size=2).value),
    ),
    # Updates.
    "an update of a name": Mistake(
        lambda: jscan.Updates({"w": 1.0}),  # type: ignore
        ("Updates: the target", "a SharedVariable", "'w' of type str", "jscan.shared"),
        lambda: jscan.Updates({w: np.ones(3)}),
    ),
    "an update of a value": Mistake(
        lambda: scan(lambda a: (a, {w.value: a}), x),
        (
            "unhashable",
            "in the step of scan",
            "called as step",
            "the key of an update is the variable: {w",
        ),
        lambda: scan(lambda a: (a, {w: w * a}), x),
    ),
    "an update of an array in pairs": Mistake(
        lambda: scan(lambda a: (a, [(w, w * a), ("k", a)]), x),
        ("return value", "every target is a SharedVariable", "'k'", "jscan.shared"),
        lambda: scan(lambda a: (a, [(w, w * a), (k, k + 1)]), x),
    ),
    "names among the targets": Mistake(
        lambda: scan(lambda a: (a, {w: w * a, "k": a}), x),
        ("return value", "every target is a SharedVariable", "'k'", "jscan.shared"),
        lambda: scan(lambda a: (a, {w: w * a, k: k + 1}), x),
    ),
    "an update of another shape": Mistake(
        lambda: scan(lambda a: (a, {w: jnp.ones(4)}), x),
        ("the update of <SharedVariable w: ", r"float64\[3\]", r"got float64\[4\]"),
        lambda: scan(lambda a: (a, {w: jnp.ones(3)}), x),
    ),
    "an update of another dtype": Mistake(
        lambda: scan(lambda a: (a, {k: k + a}), x),
        (
            "the update of <SharedVariable k: ",
            r"int64\[\]",
            r"float64",
            "astype.'int64'",
        ),
        lambda: scan(lambda a: (a, {k: (k + a).astype("int64")}), x),
    ),
    "an update with None": Mistake(
        lambda: scan(lambda a: (a, {w: None}), x),
        ("the update of <SharedVariable w: ", "a new value", "None", "leave the var"),
        lambda: scan(lambda a: (a, {}), x),
    ),
    "two updates of one variable": Mistake(
        lambda: scan(lambda a: (a, [(k, k + 1), (k, k + 2)]), x),
        ("Collision", "<SharedVariable k: ", "two different ones", "leave one out"),
        lambda: scan(lambda a: (a, [(k, k + 1)]), x),
        KeyError,
    ),
    "updates among outputs": Mistake(
        lambda: scan(lambda a: (a, a, {k: k + 1}), x),
        ("return value", "beside the list of outputs", r"\(\[first, second\], upd"),
        lambda: scan(lambda a: ([a, a], {k: k + 1}), x),
    ),
    "a variable made in the step": Mistake(
        lambda: scan(lambda a: (a, {shared(0.0, "n"): a}), x),
        ("the update of <SharedVariable n: ", "exists before", "outside of the step"),
        lambda: scan(lambda a: (a, {k: k + 1}), x),
    ),
    "apply of another shape": Mistake(
        lambda: jscan.Updates({w: np.ones((3, 3))}).apply(),
        ("Updates: <SharedVariable w: ", r"float64\[3\]", r"float64\[3,3\]", "Fix: "),
        lambda: jscan.Updates({w: np.ones(3)}).apply(),
    ),
    "the rows of a loop taken for its updates": Mistake(
        lambda: scan(lambda a: a, x).updates + x,
        (
            "Updates: updates",
            "needed a dict, or pairs",
            "Array",
            "outputs, updates = sc",
        ),
        lambda: scan(lambda a: a, x).outputs + x,
    ),
    # Functions.
    "theano.function's arguments": Mistake(
        lambda: function([x], x * 2, updates={w: w}),
        ("jscan.function: a call", "updates=", r"lambda x: \(y, u\)"),
        lambda: function(lambda x: (x * 2, {w: w * 1.0}))(x),
    ),
    "theano.function's inputs and outputs": Mistake(
        lambda: function([x], x * 2),
        ("jscan.function: a call", "positional argument", r"lambda x: \(y, u\)"),
        lambda: function(lambda x: x * 2)(x),
    ),
    "givens": Mistake(
        lambda: function(lambda: 1.0, givens={w: x}),
        ("jscan.function: a call", "givens=", "givens are set_value before"),
        lambda: (w.set_value(np.ones(3)), function(lambda: 1.0)()),
    ),
    "a list for a function": Mistake(
        lambda: function([x]),
        ("function 'function': f", "a Python function", "Fix: "),
        lambda: function(lambda: [x])(),
    ),
    "static_argnums of a function": Mistake(
        lambda: function(branch, static_argnums=1),
        ("jscan.function: a call", "static_argnums=", "static_argnames= for static_a"),
        lambda: function(branch, static_argnames="b")(1.0, 2.0),
    ),
    "a static argument that there is not": Mistake(
        lambda: function(branch, static_argnames="flag"),
        ("function 'branch': static_argnames", "names of the arg", "'flag'", "Fix: "),
        lambda: function(branch, static_argnames="b")(1.0, 2.0),
    ),
    "a static argument by its number": Mistake(
        lambda: function(branch, static_argnames=1),  # type: ignore
        ("function 'branch': static_argnames", "names of the arg", "got 1", "Fix: "),
        lambda: function(branch, static_argnames="b")(1.0, 2.0),
    ),
    "a misspelt option": Mistake(
        lambda: function(branch, donates=True),
        ("jscan.function: a call", "donates=", "write donate= for donates="),
        lambda: function(branch, donate=True, static_argnames="b")(1.0, 2.0),
    ),
    "if in a function": Mistake(
        lambda: function(branch)(1.0, 2.0),
        ("function branch", "argument b", "function 'branch'", "Fix: ", "static_argn"),
        lambda: function(branch, static_argnames="b")(1.0, 2.0),
        jax.errors.TracerBoolConversionError,
    ),
    "numpy in a function": Mistake(
        lambda: function(lambda a: np.asarray(np.sin(a)), name="f")(x),
        (
            "__array__",
            "function 'f'",
            r"called as step|f\(a: float64\[4\]\)",
            "jnp.sin",
        ),
        lambda: function(lambda a: jnp.sin(a))(x),
        jax.errors.TracerArrayConversionError,
    ),
    "a wrong product in a function": Mistake(
        lambda: function(lambda a, b: jnp.dot(a, b), name="f")(x, h0),
        (r"\(4,\) and \(3,\)", r"function 'f'", r"a: float64\[4\], b: float64\[3\]"),
        lambda: function(lambda a, b: jnp.dot(a, b))(x, x),
    ),
    "too few arguments of a function": Mistake(
        lambda: function(lambda a, b: a + b, name="f")(1.0),
        ("function 'f': a call", r"needed.*\(a, b\)", "missing.*'b'", "Fix: "),
        lambda: function(lambda a, b: a + b)(1.0, 2.0),
    ),
    "a variable as an argument": Mistake(
        lambda: function(lambda a: a, name="f")(w),
        ("function 'f': an argument", "<SharedVariable w: ", r"pass w.value"),
        lambda: function(lambda a: a)(w.value),
    ),
    "a set as an argument": Mistake(
        lambda: function(lambda a: 1.0, name="f")({1, 2}),
        ("function 'f': an argument", r"\{1, 2\} of type set", "Fix: "),
        lambda: function(lambda a: 1.0)((1, 2)),
    ),
    "text as a result of a function": Mistake(
        lambda: function(lambda: "done", name="f")(),
        (
            "function 'f': the function's return value, output 0",
            "'done' of type str",
            "Fix: ",
        ),
        lambda: function(lambda: 1.0)(),
    ),
    "until of a function": Mistake(
        lambda: function(lambda a: (a, jscan.until(a > 2)), name="f")(1.0),
        ("function 'f': the return value", "only a step", "into jscan.scan"),
        lambda: function(lambda a: scan(lambda a: (a, jscan.until(a > 2)), a))(x),
    ),
    "an update that does not fit": Mistake(
        lambda: function(lambda: {w: jnp.ones((3, 1))}, name="f")(),
        ("function 'f': the update of <Sh", r"float64\[3\]", r"\[3,1\]", "Fix: "),
        lambda: function(lambda: {w: jnp.ones(3)})(),
    ),
    "a function with updates in jax.grad": Mistake(
        lambda: (
            jax.grad(function(lambda a: (a * 2, {k: k + 1}), name="f"))(1.0)
            and function(lambda a: (a, {w: w * a}), name="f")
            and jax.grad(lambda a: function(lambda a: (a, {w: w * a}), name="f")(a))(
                1.0
            )
        ),
        ("function 'f': the update of", "a call on values", "jax.grad", "Fix: "),
        lambda: function(lambda a: (jax.grad(lambda a: a * 2)(a), {k: k + 1}))(1.0),
    ),
    "a mode of Theano's": Mistake(
        lambda: function(lambda: 1.0, mode="NanGuardMode", name="f"),
        ("function 'f': mode", "None or one of", 'write mode="DEBUG"'),
        lambda: function(lambda: 1.0, mode="DEBUG")(),
    ),
    # Gradients.
    "jax.grad's form": Mistake(
        lambda: grad(lambda a: a * a)(2.0),
        ("jscan.grad: a call", "missing.*'wrt'", "use jax.grad"),
        lambda: jax.grad(lambda a: a * a)(2.0),
    ),
    "argnums": Mistake(
        lambda: grad(lambda: w.sum(), argnums=0),
        ("jscan.grad: a call", "argnums=", r"jscan.grad\(lambda: cost, \[W, b\]\)"),
        lambda: grad(lambda: w.sum(), [w]),
    ),
    "a value without a variable": Mistake(
        lambda: jscan.value_and_grad(lambda: w.sum()),  # type: ignore
        ("jscan.value_and_grad: a call", "missing.*'wrt'", "use jax.value_and_grad"),
        lambda: jscan.value_and_grad(lambda: w.sum(), [w]),
    ),
    "a gradient in an array": Mistake(
        lambda: grad(lambda: x.sum(), x),
        ("jscan.grad: wrt", "shared variables", "Fix: use jax.grad"),
        lambda: jax.grad(jnp.sum)(x),
    ),
    "a cost that is a number": Mistake(
        lambda: grad(w.sum(), w),
        ("jscan.grad: cost", "a function without arguments", "lambda: "),
        lambda: grad(lambda: w.sum(), w),
    ),
    "a cost with arguments": Mistake(
        lambda: grad(lambda a: (w * a).sum(), w),
        ("jscan.grad: cost", "without arguments", "lambda: cost"),
        lambda: grad(lambda: (w * 2.0).sum(), w),
    ),
    "a cost that is a vector": Mistake(
        lambda: grad(lambda: w * 2.0, w),
        ("jscan.grad: cost", "a scalar", r"float64\[3\]", r"\.sum\(\) or \.mean"),
        lambda: grad(lambda: (w * 2.0).sum(), w),
    ),
    "a cost that is a result": Mistake(
        lambda: grad(lambda: scan(lambda a: a * w.sum(), x), w),
        ("jscan.grad: cost", "a scalar", "ScanResult", r"result.outputs.sum\(\)"),
        lambda: grad(lambda: scan(lambda a: a * w.sum(), x).outputs.sum(), w),
    ),
    "a gradient of whole numbers": Mistake(
        lambda: grad(lambda: k * 2.0, k),
        ("jscan.grad: wrt, <SharedVariable k: ", "floating", "int64", "from floats"),
        lambda: grad(lambda: w.sum() * 2.0, w),
    ),
    "a gradient in one variable twice": Mistake(
        lambda: grad(lambda: w.sum(), [w, w]),
        ("jscan.grad: wrt", "each once", "<SharedVariable w: .*> twice", "once"),
        lambda: grad(lambda: w.sum(), [w]),
    ),
    "has_aux without aux": Mistake(
        lambda: grad(lambda: w.sum(), w, has_aux=True),
        ("jscan.grad: has_aux=True", r"\(scalar, aux\)", "return two values"),
        lambda: grad(lambda: (w.sum(), 1), w, has_aux=True),
    ),
    # Random streams.
    "a seed of text": Mistake(
        lambda: jscan.RandomStreams("1"),
        ("RandomStreams: seed", "an integer", "'1' of type str", "RandomStreams.1234"),
        lambda: jscan.RandomStreams(1),
    ),
    "a batch of keys": Mistake(
        lambda: jscan.RandomStreams(jax.random.split(jax.random.key(0), 2)),
        ("RandomStreams: seed", "one JAX random key", "jax.vmap"),
        lambda: jscan.RandomStreams(1),
    ),
    "a stream made in the step": Mistake(
        lambda: scan(lambda a: a + jscan.RandomStreams(1).normal(), x),
        ("RandomStreams: a stream made in a step", "before the loop", "outside of"),
        lambda: scan(lambda a: a + rng.normal(), x),
    ),
    "NumPy's names of parameters": Mistake(
        lambda: rng.normal(loc=0.0, scale=1.0),
        (
            "RandomStreams.normal: a call",
            "loc=, scale=",
            "write avg= for loc=; write std=",
        ),
        lambda: rng.normal(avg=0.0, std=1.0),
    ),
    "shape=": Mistake(
        lambda: rng.uniform(shape=(2,)),
        ("RandomStreams.uniform: a call", "shape=", "write size= for shape="),
        lambda: rng.uniform(size=(2,)),
    ),
    "a distribution that is not there": Mistake(
        lambda: rng.gamma(1.0),
        ("RandomStreams: .*'gamma'", "uniform, normal", "Fix: ", "jax.random"),
        lambda: rng.normal(1),
        AttributeError,
    ),
    "a fractional size": Mistake(
        lambda: rng.normal(size=2.5),
        ("RandomStreams: size", "an integer or a tuple", "2.5", "a Python int"),
        lambda: rng.normal(size=2),
    ),
    "an array for a size": Mistake(
        lambda: rng.normal(size=jnp.ones((2, 2))),
        ("RandomStreams: size", "an integer or a tuple", "Array", "a Python int"),
        lambda: rng.normal(size=jnp.ones((2, 2)).shape),
    ),
    "a traced size": Mistake(
        lambda: scan(lambda n: rng.normal(size=n), jnp.arange(3)),
        ("RandomStreams: size", "a traced value", "pass a Python int"),
        lambda: scan(lambda n: rng.normal(size=3), jnp.arange(3)),
    ),
    "an ndim that does not fit": Mistake(
        lambda: rng.normal(size=(2, 3), ndim=1),
        ("RandomStreams: ndim", "the rank of the sample, 2", "got 1", "leave ndim out"),
        lambda: rng.normal(size=(2, 3), ndim=2),
    ),
    "an ndim that counts the categories": Mistake(
        lambda: rng.multinomial(size=(3,), ndim=2),
        ("RandomStreams: ndim", "the rank of the sample but for its last axis, 1"),
        lambda: rng.multinomial(size=(3,), ndim=1),
    ),
    "a draw in a jnp function": Mistake(
        lambda: jnp.exp(rng.normal()),
        ("<Draw normal", "takes arrays only", "draw.value"),
        lambda: jnp.exp(rng.normal().value),
    ),
    "a draw called": Mistake(
        lambda: rng.normal(size=2)(),
        ("called", "<Draw normal", r"draw\.value", "leave the parentheses out"),
        lambda: rng.normal(size=2).value,
    ),
    # The optimizer, and the profile.
    "optimize with the arguments": Mistake(
        lambda: jscan.optimize(jnp.sin, x),  # type: ignore
        ("jscan.optimize: a call", "positional", r"jscan.optimize\(f\)\(x\)"),
        lambda: jscan.optimize(jnp.sin)(x),
    ),
    "optimize of a result": Mistake(
        lambda: jscan.optimize(jnp.sin(1.0)),  # type: ignore
        ("jscan.optimize: fun", "a function", r"jscan.optimize\(f\)\(x\)"),
        lambda: jscan.optimize(jnp.sin)(1.0),
    ),
    "explain with the arguments": Mistake(
        lambda: jscan.explain(jnp.sin, x),  # type: ignore
        ("jscan.explain: a call", "positional", r"jscan.explain\(f\)\(x\)"),
        lambda: jscan.explain(jnp.sin)(x),
    ),
    "static_argnums of optimize": Mistake(
        lambda: jscan.optimize(branch, static_argnums=1),  # type: ignore
        ("jscan.optimize: a call", "static_argnums=", "give that to jax.jit"),
        lambda: jax.jit(jscan.optimize(branch), static_argnums=1)(1.0, 2.0),
    ),
    "an unknown pass": Mistake(
        lambda: jscan.optimize(jnp.sin, passes=["hoisting"]),
        ("jscan.optimize|passes", "unknown passes? hoisting", "small_dots", "Fix: "),
        lambda: jscan.optimize(jnp.sin, passes=["hoist"])(1.0),
    ),
    "if in an optimized function": Mistake(
        lambda: jscan.optimize(branch)(1.0, jnp.ones(())),
        ("function branch", "argument b", "called as branch", "pass a Python number"),
        lambda: jscan.optimize(branch)(1.0, 2.0),
        jax.errors.TracerBoolConversionError,
    ),
    "draws in an optimized function": Mistake(
        lambda: jscan.optimize(lambda a: a + rng.normal())(1.0),
        ("jscan.optimize", "draws no random numbers", "make it a jscan.function"),
        lambda: jscan.optimize(function(lambda a: a + rng.normal()))(1.0),
        NotImplementedError,
    ),
    "a loop that was not profiled": Mistake(
        lambda: jscan.profile().loops["rnn"],
        ("profile: the loop 'rnn'", "has no loops", "name='rnn'"),
        profiled,
        KeyError,
    ),
    "a loop that was profiled by another name": Mistake(
        lambda: profiled("rn"),
        ("profile: the loop 'rn'", "one of 'rnn'", "none of these", "write 'rnn'"),
        profiled,
        KeyError,
    ),
    "a loop that a report does not list": Mistake(
        lambda: jscan.explain(last)(x)["rn"],
        ("Report: the loop 'rn'", "one of 'rnn'", "none of these", "write 'rnn'"),
        lambda: jscan.explain(last)(x)["rnn"],
        KeyError,
    ),
    "profile of a function": Mistake(
        lambda: jscan.profile(jnp.sin),  # type: ignore
        ("profile", "got 1 positional argument", "with jscan.profile"),
        lambda: jscan.profile(),
    ),
}
