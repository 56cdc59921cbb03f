"""Bad calls of `scan`: every one is refused before anything runs, in useful words.

Each text names the loop and the place, says what came, and each exception derives
from `jscan.ScanError` and from the built-in type a caller would catch.
"""

import functools
import inspect
import re
import sys
import types
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jscan
from jscan._frontend.signature import _obviously_takes

pytestmark = pytest.mark.any_jax

# Not typed: these calls are wrong on purpose.
scan: Any = partial(jscan.scan, name="storm")
x = np.arange(6.0)
pair = np.zeros((2, 3))
start = np.float64(0.0)
Builtin = type[Exception] | tuple[type[Exception], ...]


class Bad(NamedTuple):
    """A call, the built-in type of its error, and patterns its text must hold."""

    call: Callable[[], Any]
    builtin: Builtin
    patterns: tuple[str, ...]


BAD: dict[str, Bad] = {}


def bad(
    name: str, builtin: Builtin, *patterns: str
) -> Callable[[Callable[[], Any]], None]:
    def register(call: Callable[[], Any]) -> None:
        assert name not in BAD
        BAD[name] = Bad(call, builtin, patterns)

    return register


@pytest.mark.parametrize("name", BAD)
def test_bad_call_is_refused_in_useful_words(name):
    call, builtin, patterns = BAD[name]
    with pytest.raises(builtin) as caught:
        call()
    assert isinstance(caught.value, jscan.ScanError)
    text = str(caught.value)
    for pattern in (*patterns, "storm"):
        assert re.search(pattern, text), f"{pattern!r} is missing in: {text}"


@pytest.mark.parametrize("name", BAD)
def test_bad_call_is_refused_before_anything_runs(name):
    """The same error where no value is ever computed."""
    with pytest.raises(BAD[name].builtin) as caught:
        jax.eval_shape(BAD[name].call)
    assert isinstance(caught.value, jscan.ScanError)


# The number of steps.

bad("no length", ValueError, "n_steps", "sequences")(
    lambda: scan(lambda h: h + 1, outputs_info=start)
)
bad("no length, map of nothing", ValueError, "n_steps|sequences")(
    lambda: jscan.map(lambda: 1.0, [], name="storm")
)
bad("n_steps beyond the sequence", ValueError, "n_steps", "9", r"sequences\[0\]", "6")(
    lambda: scan(lambda a: a, x, n_steps=9)
)
bad("n_steps beyond the second sequence", ValueError, "5", r"sequences\[1\]", "4")(
    lambda: scan(lambda a, b: a, [x, x[:4]], n_steps=5)
)
bad("n_steps beyond the taps", ValueError, "n_steps", "5", r"sequences\[0\]", "4")(
    lambda: scan(lambda a, b: a, dict(input=x, taps=[-1, 1]), n_steps=5)
)
for value in (-1, -3):
    bad(f"n_steps {value}", ValueError, "n_steps", str(value))(
        lambda value=value: scan(lambda a: a, x, n_steps=value)
    )
for name, value in {
    "float": 3.0,
    "numpy float": np.float64(3.0),
    "text": "abc",
    "bool": True,
    "vector": np.arange(2),
    "one-element array": np.asarray([3]),
    "nan": float("nan"),
    "infinity": float("inf"),
}.items():
    bad(f"n_steps {name}", (TypeError, ValueError), "n_steps", "integer")(
        lambda value=value: scan(lambda h: h, outputs_info=start, n_steps=value)
    )


# Sequences.

bad("scalar sequence", ValueError, r"sequences\[0\]", "axis|dimension", "scalar|shape")(
    lambda: scan(lambda a: a, 3.0)
)
bad("sequence None", (TypeError, ValueError), r"sequences\[1\]", "None")(
    lambda: scan(lambda a, b: a, [x, None])
)
bad("sequence text", TypeError, r"sequences\[0\]", "str|abc")(
    lambda: scan(lambda a: a, "abc")
)
bad("sequence object", TypeError, r"sequences\[0\]", "object")(
    lambda: scan(lambda a: a, [object()])
)
bad("sequence without input", Exception, r"sequences\[0\]", "input", "taps")(
    lambda: scan(lambda a: a, dict(taps=[0]))
)
bad("unknown key of a sequence", Exception, r"sequences\[0\]", "tap", "taps")(
    lambda: scan(lambda a: a, dict(input=x, tap=[0]))
)
bad("empty sequence taps", ValueError, r"sequences\[0\]", "taps")(
    lambda: scan(lambda: 1.0, dict(input=x, taps=[]))
)
for value in (0.5, "a", None):
    bad(f"sequence tap {value!r}", TypeError, r"sequences\[1\]", "taps", "integer")(
        lambda value=value: scan(lambda *a: a[0], [x, dict(input=x, taps=[value])])
    )
bad("lengths within one tree", ValueError, r"sequences\[0\]", "length|rows", "6", "4")(
    lambda: scan(lambda rows: rows["a"], dict(input={"a": x, "b": x[:4]}))
)


# Initial states.

bad("initial text", TypeError, r"outputs_info\[0\]", "str|abc")(
    lambda: scan(lambda h: h, outputs_info="abc", n_steps=2)
)
bad("initial object", TypeError, r"outputs_info\[1\]", "object")(
    lambda: scan(lambda a, h: [a, h], x, [None, object()])
)
for value in (0, 1):
    bad(f"state tap {value}", ValueError, r"outputs_info\[0\]", "taps", str(value))(
        lambda value=value: scan(
            lambda a, b: a + b,
            outputs_info=dict(initial=x, taps=[value, -1]),
            n_steps=2,
        )
    )
bad("repeated state tap", ValueError, r"outputs_info\[1\]", "taps", "-2")(
    lambda: scan(
        lambda a, b: [a, b],
        outputs_info=[None, dict(initial=x, taps=[-2, -2])],
        n_steps=2,
    )
)
bad("no state tap", ValueError, r"outputs_info\[0\]", "taps")(
    lambda: scan(lambda: 1.0, outputs_info=dict(initial=x, taps=[]), n_steps=2)
)
bad("fractional state tap", TypeError, r"outputs_info\[0\]", "taps", "integer")(
    lambda: scan(lambda a: a, outputs_info=dict(initial=x, taps=[-1.5]), n_steps=2)
)
bad("taps without initial", ValueError, r"outputs_info\[0\]", "initial")(
    lambda: scan(lambda a: a, outputs_info=dict(taps=[-2]), n_steps=2)
)
bad("several taps of a scalar", ValueError, r"outputs_info\[0\]", "2", "rows|axis")(
    lambda: scan(lambda a: a, outputs_info=dict(initial=start, taps=[-2]), n_steps=2)
)
bad("too few initial rows", ValueError, r"outputs_info\[1\]", "5", "4", "rows")(
    lambda: scan(
        lambda a, b: [a, a + b],
        outputs_info=[None, dict(initial=x[:4], taps=[-5, -3])],
        n_steps=2,
    )
)
bad("misspelt initial", Exception, r"outputs_info\[0\]", "inital", "initial")(
    lambda: scan(lambda a: a, x, dict(inital=start))
)
bad("return_steps", Exception, r"outputs_info\[0\]", "return_steps")(
    lambda: scan(lambda a, h: h, x, dict(initial=start, return_steps=2))
)


# What the step returns, beside its states.

bad("fewer outputs than announced", ValueError, "outputs_info", "2", "1")(
    lambda: scan(lambda a, h: h + a, x, [start, None])
)
bad("more outputs than announced", ValueError, "outputs_info", "1", "3", "None")(
    lambda: scan(lambda a, h: [h, a, a], x, [start])
)
bad("narrower type", (TypeError, ValueError), r"outputs_info\[1\]", "float64", "int32")(
    lambda: scan(lambda a, h: [a, jnp.int32(1)], x, [None, start])
)
bad("single precision", (TypeError, ValueError), r"outputs_info\[0\]", "float32")(
    lambda: scan(lambda a, h: h.astype("float32"), x, start)
)
SHAPE = r"(\(3,\)|\[3\])"
bad("lost dimension", ValueError, r"outputs_info\[0\]", SHAPE, r"(\(\)|\[\])")(
    lambda: scan(lambda h: h.sum(), outputs_info=pair[0], n_steps=2)
)
bad("new dimension", ValueError, r"outputs_info\[0\]", SHAPE, r"(\(1, 3\)|\[1,3\])")(
    lambda: scan(lambda h: h[None], outputs_info=pair[0], n_steps=2)
)
bad("size one is not stretched", ValueError, r"outputs_info\[0\]", SHAPE, "1")(
    lambda: scan(lambda h: h[:1], outputs_info=pair[0], n_steps=2)
)
bad("another tree", (TypeError, ValueError), r"outputs_info\[0\]", "'h'", "'g'")(
    lambda: scan(
        lambda s: {"g": s["h"]},
        outputs_info=dict(initial={"h": start}),
        n_steps=2,
    )
)
bad("an array for a tree", (TypeError, ValueError), r"outputs_info\[0\]", "'h'")(
    lambda: scan(lambda s: s["h"], outputs_info=dict(initial={"h": start}), n_steps=2)
)
for name, value in {
    "nothing": None,
    "text": "abc",
    "set": {1.0},
    "generator": (i for i in range(2)),
    "object": object(),
}.items():
    bad(
        f"step returns {name}", (TypeError, ValueError), "return", type(value).__name__
    )(lambda value=value: scan(lambda a: value, x))
bad("until first", (TypeError, ValueError), "until", "last")(
    lambda: scan(lambda a: (jscan.until(a > 1), a), x)
)
bad("until alone", (TypeError, ValueError), "until")(
    lambda: scan(lambda a: jscan.until(a > 1), x)
)
bad("vector condition", (TypeError, ValueError), "until", "scalar|shape")(
    lambda: scan(lambda a: (a, jscan.until(pair[0] > 1)), x)
)
bad("some keys are no shared variables", TypeError, "shared", "'k'")(
    lambda: scan(lambda a: (a, {jscan.shared(1.0): a, "k": a}), x)
)


# The step itself.


def too_few(u, h):
    return h


def too_many(u, a, b, W, extra):
    return a


TAPS = r"\[t\].*\[t-1\].*\[t-3\]"
for name, step in {"too few": too_few, "too many": too_many}.items():
    bad(f"{name} parameters", TypeError, step.__name__, TAPS)(
        lambda step=step: scan(
            step, x, dict(initial=x, taps=[-1, -3]), non_sequences=[start]
        )
    )
bad("step not callable", TypeError, "fn", "callable")(lambda: scan(3.0, x))


# Everything else.

bad("non_sequence None", TypeError, r"non_sequences\[1\]", "None")(
    lambda: scan(lambda a, b, c: a, x, non_sequences=[start, None])
)
bad("non_sequence text", TypeError, r"non_sequences\[0\]", "str|abc")(
    lambda: scan(lambda a, b: a, x, non_sequences=["abc"])
)
for options, word in (
    ({"colr": 1}, "colr"),
    ({"total": 3}, "total"),
    ({"miniters": -1}, "miniters"),
    ({"miniters": 1.5}, "miniters"),
    ({"postfix": {1: 2}}, "unhashable"),
):
    bad(f"progress {options}", (TypeError, ValueError), "progress", word)(
        lambda options=options: scan(lambda a: a, x, progress=options)
    )
bad("bar of a traced loop", ValueError, "progress", "colr", "colour")(
    lambda: jax.jit(lambda x: scan(lambda a: a, x, progress={"colr": 1})[0])(x)
)
bad("unknown mode", ValueError, "mode", "FAST_RUN", "FAST_COMPILE", "DEBUG", "SLOW")(
    lambda: scan(lambda a: a, x, mode="SLOW")
)
for value in (2.0, None, True, "a"):
    bad(f"truncate_gradient {value!r}", TypeError, "truncate_gradient", "integer")(
        lambda value=value: scan(lambda a: a, x, truncate_gradient=value)
    )
for value in (0, -2):
    bad(f"truncate_gradient {value}", ValueError, "truncate_gradient", str(value))(
        lambda value=value: scan(lambda a: a, x, truncate_gradient=value)
    )
bad("unroll 0", ValueError, "unroll", "0")(lambda: scan(lambda a: a, x, unroll=0))


def strict_with_captured_array():
    weights = jnp.ones((2, 3))
    return scan(lambda a: a * weights.sum(), x, strict=True)


def strict_with_captured_tracer():
    return jax.eval_shape(
        lambda w: scan(lambda a: a * w.sum(), x, strict=True).outputs, pair
    )


def strict_with_captured_variable():
    weights = jscan.shared(pair, name="weights")
    return scan(lambda a: a * weights.value.sum(), x, strict=True)


MATRIX = r"(\(2, 3\)|\[2,3\])"
bad("strict and an array", (TypeError, ValueError), "strict", MATRIX, "float64")(
    strict_with_captured_array
)
bad("strict and a tracer", (TypeError, ValueError), "strict", MATRIX, "float64")(
    strict_with_captured_tracer
)
bad("strict and a variable", (TypeError, ValueError), "strict", "weights")(
    strict_with_captured_variable
)


def test_name_that_is_no_text():
    with pytest.raises(TypeError, match="name") as caught:
        scan(lambda a: a, x, name=5)
    assert isinstance(caught.value, jscan.ScanError)


def test_unknown_keyword_is_an_ordinary_type_error():
    with pytest.raises(TypeError, match="n_step"):
        scan(lambda a: a, x, n_step=3)


def test_loop_without_a_name_is_still_called_a_scan():
    with pytest.raises(ValueError, match="scan"):
        jscan.scan(lambda a: a, x, n_steps=9)


def test_failure_inside_the_step_keeps_its_type_and_names_the_loop():
    class Mine(Exception):
        pass

    def step(a):
        raise Mine("my own words")

    with pytest.raises(Mine, match="my own words") as caught:
        scan(step, x)
    assert "storm" in " ".join(caught.value.__notes__)
    assert any(entry.name == "step" for entry in caught.traceback)


def test_python_if_on_a_traced_value_is_jax_own_error_and_names_the_loop():
    with pytest.raises(jax.errors.TracerBoolConversionError) as caught:
        scan(lambda a: a if a > 1 else 0.0, x)
    assert "storm" in " ".join(caught.value.__notes__)


def test_nested_failure_names_both_loops():
    def step(a):
        raise RuntimeError("deep")

    def outer(row):
        return jscan.scan(step, row, name="inner").outputs

    with pytest.raises(RuntimeError, match="deep") as caught:
        jscan.scan(outer, pair, name="outer")
    notes = " ".join(caught.value.__notes__)
    assert "inner" in notes
    assert "outer" in notes


def test_type_error_from_inside_the_step_is_not_taken_for_a_wrong_signature():
    def step(a):
        return len(3)  # pyright: ignore[reportArgumentType]

    with pytest.raises(TypeError, match="len") as caught:
        scan(step, x)
    assert not isinstance(caught.value, jscan.ScanError)


def test_empty_loop_checks_its_step_all_the_same():
    with pytest.raises(ValueError, match=r"outputs_info\[0\]") as caught:
        scan(lambda a, h: h[None], x[:0], start)
    assert isinstance(caught.value, jscan.ScanError)


def test_every_error_class_derives_from_a_built_in_type():
    values = [getattr(jscan, name) for name in jscan.__all__]
    classes = [v for v in values if isinstance(v, type) and issubclass(v, Exception)]
    assert len(classes) > 1
    for error in classes:
        bases = {base.__name__ for base in error.__mro__}
        assert "ScanError" in bases
        if error is not jscan.ScanError:
            assert bases & {
                "ValueError",
                "TypeError",
                "NotImplementedError",
                "KeyError",
                "FloatingPointError",
                "ImportError",
                "RuntimeError",
            }


def _signed(a):
    return a


_signed.__signature__ = inspect.Signature([])  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "fn",
    [
        lambda: 0,
        lambda a: a,
        lambda a, b=1: a,
        lambda a, *rest: a,
        lambda a, /, b: a,
        lambda a, *, key: a,
        lambda a, *, key=1: a,
        functools.wraps(lambda: 0)(lambda a, b: a),
        functools.partial(lambda a, b: a, 1),
        [].append,
        _signed,
    ],
    ids=[
        *("none", "one", "default", "rest", "by position", "by name", "named default"),
        *("wrapped", "partial", "method", "signed"),
    ],
)
def test_what_a_step_takes_is_what_its_signature_says(fn):
    """A shortcut for plain functions accepts nothing that `inspect` would refuse."""
    for count in range(4):
        try:
            inspect.signature(fn).bind(*range(count))
            fits = True
        except TypeError:
            fits = False
        assert not _obviously_takes(fn, count) or fits
    assert _obviously_takes(lambda a, b=1: a, 2)


def test_a_bar_that_tqdm_cannot_make_is_our_error():
    with pytest.raises(
        ValueError, match=r"(?s)progress, the bar 'storm'.*ncols.*Fix"
    ) as got:
        scan(lambda a: a, x, progress={"ncols": "wide"})
    assert isinstance(got.value, jscan.ScanError)


FIXED = {
    "text": (np.array(["b", "a"]), lambda v: np.unique(v, return_inverse=True)[1]),
    "dates": (
        np.array(["2020-01-01", "2020-01-03"], "datetime64[D]"),
        lambda dates: (dates - dates[0]) / np.timedelta64(1, "D"),
    ),
    "objects": (np.array([1, None], object), lambda values: values.astype(float)),
    "generator": ((k for k in range(2)), lambda items: jnp.asarray(list(items))),
    "zip": (zip((1, 2), (3, 4), strict=True), lambda items: jnp.asarray(list(items))),
    "nothing": ([], lambda _: jnp.zeros(0)),
}
WORDS = {
    "text": "code it as integers",
    "dates": re.escape("(dates - dates[0]) / np.timedelta64(1, 'D')"),
    "objects": re.escape("values.astype(float)"),
    "generator": re.escape("jnp.asarray(list(items))"),
    "zip": re.escape("jnp.asarray(list(items))"),
    "nothing": re.escape("jnp.zeros(0)"),
}


@pytest.mark.parametrize("kind", FIXED)
def test_the_fix_for_what_is_no_array_works(kind):
    value, fix = FIXED[kind]
    with pytest.raises(TypeError, match=r"(?s)sequences\[0\].*Fix: .*" + WORDS[kind]):
        scan(lambda a: a, [value])
    with pytest.raises(TypeError, match=WORDS[kind]):
        scan(lambda a, b: a, x, non_sequences=[value])
    rows = scan(lambda a: a, [fix(value)]).outputs
    assert len(rows) == (0 if kind == "nothing" else 2)


@pytest.mark.parametrize(
    "value",
    ["relu", b"relu", jnp.tanh, object(), {1, 2}, None, np.datetime64("2020-01-01")],
    ids=lambda value: type(value).__name__,
)
def test_no_fix_names_a_conversion_that_fails(value):
    with pytest.raises(TypeError) as caught:
        scan(lambda a, b: a, x, non_sequences=[value])
    assert "jnp.asarray" not in str(caught.value)
    with pytest.raises(TypeError) as caught:
        jscan.shared(value)
    assert "jnp.asarray" not in str(caught.value)


def test_fixes_of_wrong_shapes_speak_of_shapes():
    w = jscan.shared(jnp.zeros(3), name="w")
    with pytest.raises(
        TypeError, match=r"(?s)float64\[3\]; got float64\[4,4\].*many axes"
    ):
        w.set_value(np.zeros((4, 4)))
    with pytest.raises(TypeError, match=r"Fix: convert it with \.astype\('float64'\)"):
        w.set_value(np.zeros(3, int))
    w.set_value(np.zeros(3, int).astype("float64"))
    with pytest.raises(
        TypeError, match=r"(?s)float64\[3\]; got float64\[4\].*same shape"
    ):
        scan(lambda: {w: jnp.zeros(4)}, n_steps=2)
    with pytest.raises(ValueError, match="stack the 2 values before the first step"):
        scan(lambda a, b: a + b, None, dict(initial=1.0, taps=[-2, -1]), n_steps=5)


@pytest.mark.parametrize("arguments", [(), (1, 2, 3)], ids=["few", "many"])
def test_arguments_that_a_function_does_not_take(arguments):
    run = jscan.function(lambda x, y=1: x + y, name="adder")
    with pytest.raises(
        TypeError, match=r"function 'adder': a call: needed the arguments.*\(x, y=1\)"
    ):
        run(*arguments)
    with pytest.raises(jscan.ScanError, match="Fix"):
        run(*arguments)


@pytest.mark.parametrize("ask", [jscan.optimize, jscan.explain])
def test_passes_and_budgets(ask):
    for error, options, text in (
        (
            ValueError,
            {"passes": ["x"]},
            r"(?s)passes: .*small_dots.* unknown passes x.*Fix",
        ),
        (ValueError, {"passes": "default+nope"}, "(?s)passes: .* nope.*Fix"),
        (TypeError, {"passes": 3}, "(?s)passes: needed names .*default.associate"),
        (ValueError, {"memory_budget": -1}, "memory_budget: needed 0 or more"),
        (TypeError, {"memory_budget": "big"}, "memory_budget: .*'big'"),
    ):
        with pytest.raises(error, match=text) as caught:
            ask(jnp.sin, **options)
        assert isinstance(caught.value, jscan.ScanError)


def test_a_plot_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(
        ImportError, match=r"(?s)Report: plot: .*jscan\[plot\]"
    ) as caught:
        jscan.explain(jnp.sin)(1.0).plot()
    assert isinstance(caught.value, jscan.ScanImportError)


def test_a_module_whose_name_begins_like_ours_is_the_callers():
    """Its variables are named in errors, its lines in warnings."""
    module = types.ModuleType("jscanlab")
    code = "def run(scan, rainfall):\n    return scan(lambda: 0.0, rainfall)\n"
    exec(code, module.__dict__)
    with pytest.raises(TypeError, match=r"rainfall\[t\]"):
        module.run(scan, x)
