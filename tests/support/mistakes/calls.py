"""Wrong arguments of `scan` and its views."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jscan
from support.mistakes import Mistake, Table

scan: Any = jscan.scan
fold: Any = jscan.reduce
each: Any = jscan.map
x, xs, h0 = jnp.arange(4.0), jnp.ones((4, 3)), jnp.zeros(3)
rows = [np.ones(3), np.ones(3), np.ones(3)]


def add(a, h):
    return a + h


def lstm(a, state):
    h, c = state
    return [(h + a, c * 0.5)]


def pair(a, h):
    return [h + a, a * 2]


class Table2D:
    """Numbers that only ``__array__`` tells of, as those of pandas and polars."""

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.values, dtype)

    def __repr__(self):
        return "   rain  sun\n" * 9


CALLS: Table = {
    # From lax.scan.
    "lax.scan's keywords": Mistake(
        lambda: scan(add, init=h0, xs=xs),
        (
            "jscan.scan",
            "got init=, xs=",
            "Fix: write outputs_info= for init=.*sequences",
        ),
        lambda: scan(add, sequences=xs, outputs_info=h0),
    ),
    "length=": Mistake(
        lambda: scan(lambda h: h, outputs_info=h0, length=3),
        ("jscan.scan", "got length=", "write n_steps= for length="),
        lambda: scan(lambda h: h, outputs_info=h0, n_steps=3),
    ),
    "reverse=": Mistake(
        lambda: scan(add, xs, h0, reverse=True),
        ("jscan.scan", "got reverse=", "write go_backwards=True"),
        lambda: scan(add, xs, h0, go_backwards=True),
    ),
    "lax.scan's order, scalar initial": Mistake(
        lambda: scan(add, 0.0, x),
        (r"sequences\[0\]", "leading time axis", "a scalar", "scan.step, sequences, "),
        lambda: scan(add, x, 0.0),
    ),
    "lax.scan's order, vector initial": Mistake(
        lambda: scan(lambda h, a: (h + a, h), h0, xs),
        ("outputs_info", "1 entry", "2 entries", "sequences come before initials"),
        lambda: scan(lambda a, h: h + a, xs, h0),
    ),
    "lax.scan's return value": Mistake(
        lambda: scan(lambda a, h: (h + a, None), xs, h0),
        ("output 1", "None", r"return h, where .* lax.scan returns \(h, None\)"),
        lambda: scan(lambda a, h: h + a, xs, h0),
    ),
    "lax.scan's carry and row": Mistake(
        lambda: scan(lambda a, h: (h + a, h * 2), xs, h0),
        ("outputs_info", "needed 2 entries", "got 1 entry", "write None"),
        lambda: scan(lambda a, h: (h + a, h * 2), xs, [h0, None]),
    ),
    "fori_loop's arguments": Mistake(
        lambda: scan(0, 10, lambda i, h: h, h0),
        ("scan: fn", "callable", "got 0|int", "scan.step"),
        lambda: scan(lambda h: h, outputs_info=h0, n_steps=10),
    ),
    "in_axes of vmap": Mistake(
        lambda: each(add, [xs, xs], in_axes=0),
        ("jscan.map", "in_axes=", "leave it out: .*axis 0"),
        lambda: each(add, [xs, xs]),
    ),
    "n_steps of map": Mistake(
        lambda: each(lambda a: a, xs, n_steps=2),
        ("jscan.map", "n_steps=", "Fix: use jscan.scan"),
        lambda: scan(lambda a: a, xs, n_steps=2),
    ),
    # From Theano and PyTensor.
    "return_updates=": Mistake(
        lambda: scan(add, xs, h0, return_updates=False),
        ("jscan.scan", "return_updates=", "leave it out: outputs, updates ="),
        lambda: scan(add, xs, h0),
    ),
    "updates=": Mistake(
        lambda: scan(add, xs, h0, updates={}),
        ("jscan.scan", "updates=", "return updates from the step"),
        lambda: scan(add, xs, h0),
    ),
    "return_steps": Mistake(
        lambda: scan(add, xs, dict(initial=h0, return_steps=1)),
        (r"outputs_info\[0\]", "'return_steps'", "slice the result"),
        lambda: scan(add, xs, dict(initial=h0)).outputs[-1:],
    ),
    "DebugMode": Mistake(
        lambda: scan(add, xs, h0, mode="DebugMode"),
        ("scan: mode", "None or one of", "got 'DebugMode'", 'write mode="DEBUG"'),
        lambda: scan(add, xs, h0, mode="DEBUG"),
    ),
    "a mode in small letters": Mistake(
        lambda: scan(add, xs, h0, mode="fast_run"),
        ("scan: mode", "got 'fast_run'", "write mode='FAST_RUN'"),
        lambda: scan(add, xs, h0, mode="FAST_RUN"),
    ),
    "an unknown mode": Mistake(
        lambda: scan(add, xs, h0, mode="NUMBA"),
        ("scan: mode", "got 'NUMBA'", "leave mode out"),
        lambda: scan(add, xs, h0),
    ),
    "truncate_gradient=0": Mistake(
        lambda: scan(add, xs, h0, truncate_gradient=0),
        ("truncate_gradient", "at least 1", "got 0", "Fix: "),
        lambda: scan(add, xs, h0, truncate_gradient=1),
    ),
    "names that are nearly right": Mistake(
        lambda: scan(add, sequence=xs, output_info=h0, non_sequence=[]),
        ("sequence=, output_info=", "sequences= for sequence=", "outputs_info= for"),
        lambda: scan(add, sequences=xs, outputs_info=h0, non_sequences=[]),
    ),
    "a misspelt n_steps": Mistake(
        lambda: scan(lambda h: h, outputs_info=h0, nsteps=3),
        ("jscan.scan", "nsteps=", "write n_steps= for nsteps="),
        lambda: scan(lambda h: h, outputs_info=h0, n_steps=3),
    ),
    "taps as an argument": Mistake(
        lambda: scan(lambda a, b: a, sequences=x, taps=[-1, 0]),
        ("jscan.scan", "taps=", r"dict\(input=x, taps="),
        lambda: scan(lambda a, b: a, sequences=dict(input=x, taps=[-1, 0])),
    ),
    "until as an argument": Mistake(
        lambda: scan(add, xs, h0, until=lambda h: h > 3),
        ("jscan.scan", "until=", r"return jscan.until\(condition\) last"),
        lambda: scan(lambda a, h: (a + h, jscan.until((h > 3).any())), xs, h0),
    ),
    "no step": Mistake(
        lambda: scan(sequences=xs),
        (
            "jscan.scan",
            r"needed scan\(fn, sequences",
            "missing.*'fn'",
            "Fix: the order",
        ),
        lambda: scan(lambda a: a, sequences=xs),
    ),
    "more positional arguments than there are": Mistake(
        lambda: scan(
            add, xs, h0, [], 4, -1, False, None, None, False, None, False, 1, 2
        ),
        ("jscan.scan", r"needed scan\(fn", "positional arguments", "Fix: the order"),
        lambda: scan(add, xs, h0, [], 4),
    ),
    "an argument twice": Mistake(
        lambda: scan(add, xs, h0, sequences=xs),
        ("jscan.scan", "multiple values for argument 'sequences'", "Fix: the order"),
        lambda: scan(add, xs, h0),
    ),
    "the result of the step for the step": Mistake(
        lambda: scan(add(x[0], h0), xs, h0),
        ("scan: fn", "a callable step function", "Fix: pass the function itself"),
        lambda: scan(add, xs, h0),
    ),
    "fold without an initial": Mistake(
        lambda: fold(add, x),
        ("jscan.reduce", "missing.*'outputs_info'", "Fix: "),
        lambda: fold(add, x, 0.0),
    ),
    "functools.reduce's order": Mistake(
        lambda: fold(lambda total, a: total + a, 0.0, x),
        (r"sequences\[0\]", "a scalar", "Fix: "),
        lambda: fold(lambda a, total: total + a, x, 0.0),
    ),
    # Arity.
    "a list of rows": Mistake(
        lambda: scan(lambda row: row * 2, rows),
        ("fn", r"3 positional arguments", r"step\(row\)", "jnp.stack.rows"),
        lambda: scan(lambda row: row * 2, jnp.stack(rows)),
    ),
    "an LSTM's pair of states": Mistake(
        lambda: scan(lstm, xs, (h0, h0)),
        ("fn", "3 positional arguments", r"lstm\(a, state\)", r"\[\(h, c\)\]"),
        lambda: scan(lstm, xs, [(h0, h0)]),
    ),
    "an LSTM's pair, returned bare": Mistake(
        lambda: scan(lambda a, s: (s[0] + a, s[1]), xs, [(h0, h0)]),
        ("outputs_info", "2 entries", "1 entry", r"inside a list: \[\(h, c\)\]"),
        lambda: scan(lambda a, s: [(s[0] + a, s[1])], xs, [(h0, h0)]),
    ),
    "parameters in a list": Mistake(
        lambda: scan(lambda a, p: a * p[0] + p[1], x, None, [2.0, 1.0]),
        ("fn", "3 positional arguments", r"non_sequences=\[\[W, b\]\]"),
        lambda: scan(lambda a, p: a * p[0] + p[1], x, None, [[2.0, 1.0]]),
    ),
    "too few parameters": Mistake(
        lambda: scan(lambda a: a, xs, h0),
        ("fn", r"2 positional arguments, step\(xs\[t\], h0\[t-1\]\)", "Fix: take"),
        lambda: scan(lambda a, h: h + a, xs, h0),
    ),
    "too many parameters": Mistake(
        lambda: scan(lambda a, h, w: h, xs, h0),
        ("fn", "2 positional arguments", r"got step\(a, h, w\)", "Fix: take"),
        lambda: scan(lambda a, h, w: h, xs, h0, 1.0),
    ),
    "an index as in a for loop": Mistake(
        lambda: scan(lambda i, a, h: h + a, xs, h0),
        ("fn", "2 positional arguments", r"got step\(i, a, h\)", "Fix: take"),
        lambda: scan(lambda i, a, h: h + a, [jnp.arange(4), xs], h0),
    ),
    "a keyword-only parameter": Mistake(
        lambda: scan(lambda a, *, w: a * w, x, None, 2.0),
        ("fn", "2 positional arguments", r"\*, w", "Fix: take"),
        lambda: scan(lambda a, w: a * w, x, None, 2.0),
    ),
    "a class for a step": Mistake(
        lambda: scan(Table2D, [x, x]),
        ("fn", "2 positional arguments", r"Table2D\(values\)", "Fix: "),
        lambda: scan(add, [x, x]),
    ),
    # Sequences.
    "a scalar sequence": Mistake(
        lambda: scan(lambda a: a, 3.0),
        (r"sequences\[0\]", "leading time axis", "a scalar", "Fix: "),
        lambda: scan(lambda a: a, jnp.array([3.0])),
    ),
    "a number of steps for a sequence": Mistake(
        lambda: scan(lambda i: i, 10),
        (r"sequences\[0\]", "a scalar", "Fix: .*at least one dimension"),
        lambda: scan(lambda i: i, jnp.arange(10)),
    ),
    "a generator": Mistake(
        lambda: scan(lambda a: a, (k for k in range(3))),
        (r"sequences\[0\]", "generator", r"jnp.asarray\(list\(items\)\)"),
        lambda: scan(lambda a: a, jnp.asarray(list(range(3)))),
    ),
    "zip": Mistake(
        lambda: scan(lambda p: p, zip(x, x, strict=True)),
        (r"sequences\[0\]", "zip", r"list\(items\)"),
        lambda: scan(lambda p: p, jnp.asarray([*zip(x, x, strict=True)])),
    ),
    "a dict's items": Mistake(
        lambda: scan(lambda p: p, {"a": 1.0}.items()),
        (r"sequences\[0\]", "dict_items", "Fix: "),
        lambda: scan(lambda p: p, jnp.asarray([1.0])),
    ),
    "text": Mistake(
        lambda: scan(lambda a: a, "hello"),
        (r"sequences\[0\]", "'hello' of type str", "code it as integers"),
        lambda: scan(lambda a: a, np.frombuffer(b"hello", np.uint8)),
    ),
    "a list of text": Mistake(
        lambda: scan(lambda a: a, ["a", "b"]),
        (r"sequences\[0\]", "'a' of type str", "code it as integers"),
        lambda: scan(lambda a: a, np.array([0, 1])),
    ),
    "an array of text": Mistake(
        lambda: scan(lambda a: a, np.array(["b", "a"])),
        (r"sequences\[0\]", "ndarray", "code it as integers"),
        lambda: scan(lambda a: a, np.unique(["b", "a"], return_inverse=True)[1]),
    ),
    "dates": Mistake(
        lambda: scan(lambda a: a, np.array(["2020-01-01"], "datetime64[D]")),
        (r"sequences\[0\]", "datetime64", "timedelta64"),
        lambda: scan(lambda a: a, np.zeros(1)),
    ),
    "a table with missing values": Mistake(
        lambda: scan(lambda a: a, Table2D(np.array([1, None], object))),
        (r"sequences\[0\]: .*Table2D\.", r"values.astype\(float\)"),
        lambda: scan(lambda a: a, Table2D(np.array([1, None], object).astype(float))),
    ),
    "rows of different lengths": Mistake(
        lambda: scan(lambda a: a, [[[1.0, 2.0], [3.0]]]),
        (
            r"sequences\[0\]",
            "rows of equal length",
            "different lengths",
            "pad the rows",
        ),
        lambda: scan(lambda a: a, [[[1.0, 2.0], [3.0, 0.0]]]),
    ),
    "an empty list": Mistake(
        lambda: scan(lambda a: a, [[]]),
        (r"sequences\[0\]", r"\[\]", "jnp.zeros.0"),
        lambda: scan(lambda a: a, [jnp.zeros(0)]),
    ),
    "a dict of sequences": Mistake(
        lambda: scan(lambda s: s["a"], {"a": x, "b": x}),
        (r"sequences\[0\]", "the keys 'input'", "got the key 'a', 'b'", "dict.input="),
        lambda: scan(lambda s: s["a"], dict(input={"a": x, "b": x})),
    ),
    "lengths that differ in a tree": Mistake(
        lambda: scan(lambda s: s["a"], dict(input={"a": x, "b": x[:3]})),
        (r"sequences\[0\]", "one leading length", r"float64\[4\]", "cut the arrays"),
        lambda: scan(lambda s: s["a"], dict(input={"a": x[:3], "b": x[:3]})),
    ),
    "a shared variable that is a scalar": Mistake(
        lambda: scan(lambda a: a, jscan.shared(2.0)),
        (r"sequences\[0\]", "a scalar", "Fix: "),
        lambda: scan(lambda a: a, jscan.shared(jnp.ones(2))),
    ),
    "None among sequences": Mistake(
        lambda: scan(add, [x, None]),
        (r"sequences\[1\]", "None", "Fix: leave it out"),
        lambda: scan(lambda a: a, [x]),
    ),
    "a function for a sequence": Mistake(
        lambda: scan(lambda a: a, jnp.sin),
        (r"sequences\[0\]", "use it from where it is"),
        lambda: scan(lambda a: jnp.sin(a), x),
    ),
    "a Table of numbers is taken": Mistake(
        lambda: scan(add, Table2D(np.ones((4, 3))), Table2D(["a"])),
        (r"outputs_info\[0\]", r"Table2D\.", "code it as integers"),
        lambda: scan(add, Table2D(np.ones((4, 3))), Table2D(np.zeros(3))),
    ),
    # Taps.
    "fractional taps": Mistake(
        lambda: scan(lambda a: a, dict(input=x, taps=[0.5])),
        (r"sequences\[0\]: taps", "an integer", "0.5", "whole numbers"),
        lambda: scan(lambda a: a, dict(input=x, taps=[0])),
    ),
    "a set of taps": Mistake(
        lambda: scan(lambda a, b: a, dict(input=x, taps={-1, 0})),
        (r"sequences\[0\]: taps", "in an order", "in a list, as in"),
        lambda: scan(lambda a, b: a, dict(input=x, taps=[-1, 0])),
    ),
    "positive taps of a state": Mistake(
        lambda: scan(lambda h: h, outputs_info=dict(initial=x, taps=[1]), n_steps=2),
        (r"outputs_info\[0\]: taps", "smaller than 0", r"\[1\]", "negative taps"),
        lambda: scan(lambda h: h, outputs_info=dict(initial=x, taps=[-1]), n_steps=2),
    ),
    "the tap 0 of a state": Mistake(
        lambda: scan(add, outputs_info=dict(initial=x, taps=[-1, 0]), n_steps=2),
        (r"outputs_info\[0\]: taps", "smaller than 0", "negative taps"),
        lambda: scan(add, outputs_info=dict(initial=x, taps=[-2, -1]), n_steps=2),
    ),
    "taps without enough rows": Mistake(
        lambda: scan(add, None, dict(initial=x[:1], taps=[-2, -1]), n_steps=2),
        (r"outputs_info\[0\]: initial", "2 rows", "1 row", "oldest first"),
        lambda: scan(add, None, dict(initial=x[:2], taps=[-2, -1]), n_steps=2),
    ),
    "lengths that differ in a tree of states": Mistake(
        lambda: scan(
            lambda p, q: q, None, dict(initial=[x, x[:3]], taps=[-2, -1]), n_steps=2
        ),
        (r"outputs_info\[0\]", "one leading length", "as outputs_info of their own"),
        lambda: scan(
            lambda p, q, r, s: (q, s),
            outputs_info=[dict(initial=a, taps=[-2, -1]) for a in (x, x[:3])],
            n_steps=2,
        ),
    ),
    "taps and a scalar": Mistake(
        lambda: scan(add, None, dict(initial=0.0, taps=[-2, -1]), n_steps=2),
        (r"outputs_info\[0\]", "2 rows", "a scalar", "stack the 2 values"),
        lambda: scan(add, None, dict(initial=[0.0, 0.0], taps=[-2, -1]), n_steps=2),
    ),
    "misspelt keys": Mistake(
        lambda: scan(add, dict(inputs=x, tap=[0]), 0.0),
        (r"sequences\[0\]", "'inputs', 'tap'", "spell it 'input' or 'taps'"),
        lambda: scan(add, dict(input=x, taps=[0]), 0.0),
    ),
    "initial of a sequence": Mistake(
        lambda: scan(lambda a: a, dict(initial=x, taps=[0])),
        (r"sequences\[0\]", "'initial'", "spell it 'input'"),
        lambda: scan(lambda a: a, dict(input=x, taps=[0])),
    ),
    "taps without an initial": Mistake(
        lambda: scan(lambda h: h, outputs_info=dict(taps=[-1]), n_steps=2),
        (r"outputs_info\[0\]", "an initial", "add initial=array"),
        lambda: scan(lambda h: h, outputs_info=dict(initial=0.0, taps=[-1]), n_steps=2),
    ),
    # States.
    "a state given as a dict": Mistake(
        lambda: scan(lambda s: s, outputs_info={"h": h0, "c": h0}, n_steps=2),
        (r"outputs_info\[0\]", "got the key 'h', 'c'", r"dict\(initial="),
        lambda: scan(
            lambda s: s, outputs_info=dict(initial={"h": h0, "c": h0}), n_steps=2
        ),
    ),
    "text for a state": Mistake(
        lambda: scan(add, xs, "zeros"),
        (r"outputs_info\[0\]", "'zeros' of type str", "Fix: "),
        lambda: scan(add, xs, jnp.zeros(3)),
    ),
    "jnp.zeros itself": Mistake(
        lambda: scan(add, xs, jnp.zeros),
        (r"outputs_info\[0\]", "function", "Fix: call it"),
        lambda: scan(add, xs, jnp.zeros(3)),
    ),
    "a shape for a state": Mistake(
        lambda: scan(add, xs, (3,)),
        (
            r"outputs_info\[0\]",
            r"int64\[\]|int",
            r"float64\[3\]",
            r"jnp.zeros\(\(3,\)\)",
        ),
        lambda: scan(add, xs, jnp.zeros((3,))),
    ),
    # Lengths.
    "no length": Mistake(
        lambda: scan(lambda h: h, outputs_info=h0),
        ("scan: n_steps", "from sequences or from n_steps", "neither", "n_steps=..."),
        lambda: scan(lambda h: h, outputs_info=h0, n_steps=2),
    ),
    "map over nothing": Mistake(
        lambda: jscan.map(lambda a: a, []),
        ("scan: n_steps", "neither", "pass a sequence"),
        lambda: jscan.map(lambda a: a, [x]),
    ),
    "too many steps": Mistake(
        lambda: scan(add, xs, h0, n_steps=9),
        (r"sequences\[0\]", "at least 9 steps", "4 steps", "n_steps <= 4"),
        lambda: scan(add, xs, h0, n_steps=4),
    ),
    "n_steps of float": Mistake(
        lambda: scan(add, xs, h0, n_steps=4 / 2),
        ("n_steps", "an integer scalar", "2.0 of type float", r"int\(\.\.\.\)"),
        lambda: scan(add, xs, h0, n_steps=int(4 / 2)),
    ),
    "n_steps of text": Mistake(
        lambda: scan(add, xs, h0, n_steps="4"),
        ("n_steps", "an integer", "'4' of type str", r"int\(\.\.\.\)"),
        lambda: scan(add, xs, h0, n_steps=int("4")),
    ),
    "a negative n_steps": Mistake(
        lambda: scan(add, xs, h0, n_steps=-4),
        ("n_steps", "at least 0", "-4", "go_backwards=True"),
        lambda: scan(add, xs, h0, go_backwards=True),
    ),
    "a traced n_steps without a bound": Mistake(
        lambda: jax.jit(
            lambda n: scan(lambda h: h + 1, outputs_info=0.0, n_steps=n).outputs
        )(3),
        ("n_steps", "a bound", r"traced int64\[\]", "max_steps="),
        lambda: jax.jit(
            lambda n: scan(lambda h: h + 1, None, 0.0, None, n, max_steps=5).outputs
        )(3),
    ),
    "a traced max_steps": Mistake(
        lambda: jax.jit(
            lambda n: scan(lambda h: h, outputs_info=0.0, n_steps=2, max_steps=n)
        )(3),
        ("max_steps", "known while tracing", "traced", "as n_steps and a constant"),
        lambda: scan(lambda h: h, outputs_info=0.0, n_steps=2, max_steps=3),
    ),
    "the whole length for taps": Mistake(
        lambda: scan(add, dict(input=x, taps=[-1, 0]), n_steps=4),
        (r"sequences\[0\]", "at least 4 steps", "3 steps .4 rows", "n_steps <= 3"),
        lambda: scan(add, dict(input=x, taps=[-1, 0]), n_steps=3),
    ),
    # Options.
    "checkpoint of text": Mistake(
        lambda: scan(add, xs, h0, checkpoint="log"),
        ("checkpoint", "'sqrt' or 'recursive'", "got 'log'", "Fix: "),
        lambda: scan(add, xs, h0, checkpoint="recursive"),
    ),
    "checkpoint=True": Mistake(
        lambda: scan(add, xs, h0, checkpoint=True),
        ("checkpoint", "a number of steps", "True of type bool", "checkpoint=100"),
        lambda: scan(add, xs, h0, checkpoint="sqrt"),
    ),
    "a memory that is not there": Mistake(
        lambda: scan(add, xs, h0, checkpoint=dict(every=2, memory_kind="far")),
        ("checkpoint: memory_kind", "None or a memory", "'far'", "memory_kind=None"),
        lambda: scan(add, xs, h0, checkpoint=dict(every=2, memory_kind=None)),
    ),
    "unroll=0": Mistake(
        lambda: scan(add, xs, h0, unroll=0),
        ("unroll", "at least 1", "got 0", "leave unroll out"),
        lambda: scan(add, xs, h0, unroll=1),
    ),
    "a bar with an unknown option": Mistake(
        lambda: scan(add, xs, h0, progress={"color": "red"}),
        ("progress", "options of a bar", "'color'", "as tqdm does"),
        lambda: scan(add, xs, h0, progress={"colour": "red", "disable": True}),
    ),
    "a number for a bar": Mistake(
        lambda: scan(add, xs, h0, progress=10),
        ("progress", "True, a label", "10 of type int", "Fix: write progress=True"),
        lambda: scan(add, xs, h0, progress={"miniters": 10, "disable": True}),
    ),
    "a bar given a total": Mistake(
        lambda: scan(add, xs, h0, progress={"total": 4}),
        ("progress", "'total'", "the loop itself sets the total"),
        lambda: scan(add, xs, h0, progress={"disable": True}),
    ),
    "a number for profile": Mistake(
        lambda: scan(add, xs, h0, profile=1),
        ("profile", "True, False or a label", "1 of type int", "write profile=True"),
        lambda: scan(add, xs, h0, profile=True),
    ),
    "a name that is no text": Mistake(
        lambda: scan(add, xs, h0, name=3),
        ("name", "a string", "3 of type int", "write name='...'"),
        lambda: scan(add, xs, h0, name="three"),
    ),
    "save_every_N of text": Mistake(
        lambda: jscan.scan_checkpoints(add, xs, h0, save_every_N="sqrt"),  # type: ignore
        ("save_every_N", "at least 1", "'sqrt'", "Fix: "),
        lambda: jscan.scan_checkpoints(add, xs, h0, save_every_N=2),
    ),
    "taps with scan_checkpoints": Mistake(
        lambda: jscan.scan_checkpoints(
            add, None, dict(initial=x, taps=[-2, -1]), n_steps=2
        ),
        ("scan_checkpoints", "without taps", r"taps=\[-2, -1\]", "checkpoint=N"),
        lambda: scan(
            add, None, dict(initial=x, taps=[-2, -1]), n_steps=2, checkpoint=1
        ),
        NotImplementedError,
    ),
}
