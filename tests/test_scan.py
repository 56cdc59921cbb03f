"""The rules of `scan`, each as one call against the NumPy reference.

`check_scan` looks at values, `jit`, `vmap`, gradient, forward mode and Hessian.
"""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jscan
import reference
from helpers import assert_trees_close, check_scan
from programs import numbers

CALLS: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {}


def call(*args: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register `program(loops, xp, *args)`, which runs on jscan and the reference."""

    def register(program: Callable[..., Any]) -> Callable[..., Any]:
        CALLS[program.__name__] = (program, args)
        return program

    return register


@pytest.mark.parametrize("name", CALLS)
def test_call_agrees_with_the_reference_in_every_transform(name):
    program, args = CALLS[name]
    check_scan(
        lambda *args: program(jscan, jnp, *args),
        lambda *args: program(reference, np, *args),
        *args,
    )


@call(numbers(6))
def window_in_written_order(loops, xp, x):
    return loops.scan(
        lambda a, b, c: [a * b, c**3], dict(input=x, taps=[1, -1, 0])
    ).outputs


@call(numbers(6))
def one_tap_as_a_number(loops, xp, x):
    return loops.scan(lambda a: a**2, dict(input=x, taps=-2)).outputs


@call(numbers(6))
def repeated_sequence_tap(loops, xp, x):
    return loops.scan(lambda a, b: a * b, dict(input=x, taps=[0, 0])).outputs


@call(numbers(6), numbers(4, seed=1), numbers(5, 2, seed=2))
def three_lengths_backwards(loops, xp, x, y, z):
    return loops.scan(
        lambda x, before, y, z: [x * y, before * z],
        sequences=[dict(input=x, taps=[0, -1]), y, z],
        go_backwards=True,
    ).outputs


@call(numbers(3, 2), numbers(2, seed=1))
def state_after_map_output(loops, xp, x, h):
    return loops.scan(lambda x, h: [x * h, xp.tanh(x + h)], x, [None, h]).outputs


@call(numbers(5, seed=3), numbers(6, seed=1), numbers(2, seed=2))
def written_order_of_state_taps(loops, xp, x, y, z):
    """A longer initial than needed: the first rows are the ones used."""
    return loops.scan(
        lambda x, last, fifth, before: [last * fifth + x, before**2 - x],
        sequences=x,
        outputs_info=[dict(initial=y, taps=[-1, -5]), dict(initial=z, taps=[-2])],
    ).outputs


@call(numbers(3, 2, 2), numbers(2, 2, seed=1))
def three_states_feed_each_other(loops, xp, z, W):
    return loops.scan(
        lambda a3, a1, b, c, W: [xp.sin(a3 @ W) + c, a1 * b, xp.tanh(b - c)],
        outputs_info=[dict(initial=z, taps=[-3, -1]), W, z[0]],
        non_sequences=[W],
        n_steps=4,
    ).outputs


@call({"a": numbers(4), "b": numbers(4, 2, seed=1)}, {"h": numbers(2, 2, seed=2)})
def trees_with_taps(loops, xp, rows, initial):
    def step(now, after, before, last):
        total = xp.tanh(now["a"] * last["h"] + after["b"] * before["h"])
        return [{"h": total}, now["a"] * after["a"]]

    return loops.scan(
        step,
        sequences=dict(input=rows, taps=[0, 1]),
        outputs_info=[dict(initial=initial, taps=[-2, -1]), None],
    ).outputs


class Pair(NamedTuple):
    left: Any
    right: Any


@call(numbers(3), numbers(3, seed=1), numbers(seed=2))
def named_tuples_are_one_sequence_and_one_output(loops, xp, x, y, h):
    def step(rows, state):
        new = xp.sin(state.left + rows.left) * rows.right
        return Pair(new, state.right + new)

    return loops.scan(step, Pair(x, y), Pair(h, 2 * h)).outputs


@call(numbers(3))
def nested_list_is_one_output(loops, xp, x):
    return loops.scan(lambda x: (x, [x**2, (x**3, x)]), x).outputs


@call(numbers(4), numbers(seed=1))
def step_returns_its_arguments(loops, xp, x, h):
    """The old state as an output: the initial, then the rows shifted by one."""
    return loops.scan(lambda x, h: [h, xp.sin(h) + x, x], x, [None, h, None]).outputs


@call(numbers(4), numbers(seed=1))
def same_value_as_state_and_as_output(loops, xp, x, h):
    def step(x, h):
        new = xp.sin(h) * x
        return [new, new]

    return loops.scan(step, x, [h, None]).outputs


@call(numbers(seed=1), numbers(3, seed=2))
def gradient_only_through_a_captured_weight(loops, xp, h, w):
    return loops.scan(lambda h: w.sum() + 0 * h, outputs_info=h, n_steps=3).outputs


@call(numbers(3), numbers(seed=1))
def no_argument_but_the_captured_ones(loops, xp, w, c):
    return loops.scan(lambda: w * xp.sin(c), n_steps=3).outputs


@call(numbers(4, 3), numbers(3, seed=1))
def inner_loop_with_taps_over_the_row(loops, xp, rows, z):
    def outer(row, z):
        inner, _ = loops.scan(
            lambda a, before, last: xp.tanh(before + last * a),
            sequences=row,
            outputs_info=dict(initial=z, taps=[-3, -1]),
        )
        return inner

    return loops.scan(outer, sequences=rows, outputs_info=[z]).outputs


@call(numbers(5), numbers(3, seed=1))
def gather_with_an_integer_sequence(loops, xp, x, w):
    index = xp.asarray([2, 0, 1, 2, 2])
    return loops.scan(lambda i, x: w[i] * x**2, [index, x]).outputs


@call(numbers())
def sixteenth_power_by_four_squarings(loops, xp, x):
    return loops.scan(lambda p: p**2, outputs_info=x + 1, n_steps=4).outputs


@call(numbers(4), numbers(6, seed=1))
def all_views(loops, xp, x, y):
    step = lambda a, b, total: a * b + xp.sin(total)
    start = xp.asarray(0.5)
    return [
        loops.map(lambda a, b: [a + b, a * b], [x, y], go_backwards=True).outputs,
        loops.reduce(step, [x, y], start).outputs,
        loops.reduce(step, [x, y], start, go_backwards=True).outputs,
        loops.foldl(step, [x, y], start).outputs,
        loops.foldr(step, [x, y], start).outputs,
        loops.reduce(lambda a: a**2, x, None).outputs,
    ]


STEPS = {"zero": 0, "one": 1, "two": 2}


@pytest.mark.parametrize("n_steps", STEPS.values(), ids=STEPS)
@pytest.mark.parametrize("go_backwards", [False, True], ids=["forwards", "backwards"])
def test_few_steps_with_taps_ahead(n_steps, go_backwards):
    """The literal one is an ordinary loop; zero steps give zero rows of full width."""
    x, z = numbers(5, 2), numbers(3, 2, seed=1)

    def program(loops, x, z):
        return loops.scan(
            lambda after, third, last: [after * last, third + after],
            sequences=dict(input=x, taps=[2]),
            outputs_info=[None, dict(initial=z, taps=[-3, -1])],
            n_steps=n_steps,
            go_backwards=go_backwards,
        ).outputs

    check_scan(
        lambda x, z: program(jscan, x, z), lambda x, z: program(reference, x, z), x, z
    )


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8", "bool", "complex64"])
def test_state_keeps_its_type(dtype):
    """Every type may be a state; the rows come back in it."""
    x = np.asarray([3, 0, 1, 5]).astype(dtype)

    def program(loops):
        return loops.scan(
            lambda a, b, h: [h | a if dtype == "bool" else h * b + a, a],
            sequences=dict(input=x, taps=[0, 1]),
            outputs_info=[x[0], None],
        ).outputs

    assert_trees_close(program(jscan), program(reference), 1e-6)


def test_long_float32_loop_of_a_long_lag():
    """A loop longer than the lag really reads its own early outputs."""
    z = numbers(128).astype("float32")
    outputs = jscan.scan(
        lambda last, old: 0.5 * last + 0.25 * old,
        outputs_info=dict(initial=z, taps=[-1, -128]),
        n_steps=400,
    ).outputs
    expected = list(z.astype("float64"))
    for _ in range(400):
        expected.append(0.5 * expected[-1] + 0.25 * expected[-128])
    assert outputs.dtype == jnp.float32
    np.testing.assert_allclose(outputs, expected[128:], 1e-4, 1e-6)


def test_result_is_a_pair_with_names():
    result = jscan.scan(lambda a: a * 2, jnp.arange(3.0))
    outputs, updates = result
    assert outputs is result.outputs is result[0]
    assert updates is result.updates is result[1]
    assert len(updates) == 0
    assert result.n_steps == 3
    assert result.mask.tolist() == [True, True, True]
    assert result.mask.dtype == bool


def test_result_is_a_tree_that_jit_can_return():
    result = jax.jit(lambda x: jscan.scan(lambda a: a * 2, x))(jnp.arange(3.0))
    np.testing.assert_array_equal(result.outputs, [0.0, 2.0, 4.0])
    assert int(result.n_steps) == 3


def test_form_of_the_outputs():
    x = jnp.arange(3.0)
    assert jscan.scan(lambda a: (), x).outputs is None
    assert jscan.scan(lambda a: {}, x).outputs is None
    assert jscan.scan(lambda a: (a,), x).outputs.shape == (3,)
    several = jscan.scan(lambda a: (a, a), x).outputs
    assert isinstance(several, list)
    assert len(several) == 2
    alone = jscan.scan(lambda a: a, x, return_list=True).outputs
    assert isinstance(alone, list)
    assert len(alone) == 1


def test_defaults_of_the_step_are_kept_and_keywords_are_left_alone():
    def step(a, scale=10.0, **others):
        assert not others
        return a * scale

    np.testing.assert_array_equal(
        jscan.scan(step, jnp.arange(3.0)).outputs, [0.0, 10.0, 20.0]
    )


@pytest.mark.parametrize("mode", [None, "FAST_RUN", "FAST_COMPILE", "DEBUG"])
def test_every_mode_gives_the_same_numbers(mode):
    x, z = numbers(4), numbers(3, seed=1)
    infos = [dict(initial=z, taps=[-3, -1]), None]
    step = lambda x, third, last: (third * x + last, last)
    actual = jscan.scan(step, x, infos, n_steps=3, mode=mode).outputs
    expected = reference.scan(step, x, infos, n_steps=3).outputs
    assert_trees_close(actual, expected, 1e-12)


@pytest.mark.parametrize("unroll", [None, 1, 2, 5, True])
def test_unrolled_loops_give_the_same_numbers(unroll):
    x = jnp.asarray(numbers(7))
    outputs = jscan.scan(lambda x, h: jnp.sin(h) + x, x, 0.0, unroll=unroll).outputs
    plain = jscan.scan(lambda x, h: jnp.sin(h) + x, x, 0.0).outputs
    np.testing.assert_allclose(outputs, plain, 1e-12)


def test_strict_step_with_all_its_arguments_passes():
    x, w = jnp.arange(3.0), jnp.asarray(2.0)
    outputs = jscan.scan(lambda x, w: x * w, x, non_sequences=[w], strict=True).outputs
    np.testing.assert_array_equal(outputs, [0.0, 2.0, 4.0])


def test_random_key_as_a_state():
    """A typed key is a state like any other: one new key each step."""

    def step(key):
        key, use = jax.random.split(key)
        return [key, jax.random.uniform(use)]

    key = jax.random.key(0)
    keys, draws = jscan.scan(step, outputs_info=[key, None], n_steps=3).outputs
    expected = []
    for _ in range(3):
        key, use = jax.random.split(key)
        expected.append(float(jax.random.uniform(use)))
    np.testing.assert_allclose(draws, expected, 1e-7)
    assert keys.shape == (3,)
    assert (jax.random.key_data(keys[-1]) == jax.random.key_data(key)).all()


@pytest.mark.parametrize(
    "sequences",
    [
        np.asarray([1.0, 2.0, 3.0]),
        [np.asarray([1.0, 2.0, 3.0])],
        [[1.0, 2.0, 3.0]],
        dict(input=[1.0, 2.0, 3.0]),
        [dict(input=np.asarray([1.0, 2.0, 3.0]), taps=[0])],
    ],
    ids=["array", "array in list", "list in list", "list in dict", "array in dict"],
)
def test_numbers_that_are_no_jax_arrays_are_a_sequence(sequences):
    outputs = jscan.scan(lambda a, w: a * w, sequences, non_sequences=2.0).outputs
    np.testing.assert_array_equal(outputs, [2.0, 4.0, 6.0])


def test_flat_list_of_numbers_is_one_sequence():
    """Unambiguous: numbers have no time axis, so they cannot be three sequences."""
    outputs = jscan.scan(lambda a: a * 2, [1.0, 2.0, 3.0]).outputs
    np.testing.assert_array_equal(outputs, [2.0, 4.0, 6.0])


def test_lists_of_numbers_as_initial_and_as_non_sequence():
    outputs = jscan.scan(
        lambda before, last, w: before + last * w[1],
        outputs_info=dict(initial=[1.0, 2.0], taps=[-2, -1]),
        non_sequences=[[3.0, 4.0]],
        n_steps=2,
    ).outputs
    np.testing.assert_array_equal(outputs, [9.0, 38.0])


def test_two_numpy_sequences_with_fewer_steps():
    raw = np.asarray([1.0, 2.0, 3.0])
    outputs = jscan.scan(lambda a, b: a + b, [raw, raw], n_steps=2).outputs
    np.testing.assert_array_equal(outputs, [2.0, 4.0])


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_sequence_too_short_for_its_taps_gives_no_rows(rows):
    """Two rows lie between taps -1 and 1: up to two rows there is no step."""
    x = jnp.ones((rows, 3))
    outputs = jscan.scan(lambda a, b: a * b, dict(input=x, taps=[-1, 1])).outputs
    assert outputs.shape == (0, 3)


def test_inner_result_may_be_returned_as_it_is():
    """A step may return what an inner `scan` returned: a pair (outputs, updates)."""
    rows = jnp.asarray(numbers(3, 4))
    outputs, updates = jscan.scan(
        lambda row: jscan.scan(lambda a, h: h + a, row, 0.0), rows
    )
    np.testing.assert_allclose(outputs, np.cumsum(rows, axis=1), 1e-12)
    assert len(updates) == 0


def test_variable_updated_by_a_loop_and_its_view():
    """Every step reads the value before its own update; the last value is returned."""
    counter = jscan.shared(jnp.asarray(0))
    step = lambda a, *total: (counter.value, {counter: counter.value + 2})
    outputs, updates = jscan.scan(step, jnp.arange(3.0))
    np.testing.assert_array_equal(outputs, [0, 2, 4])
    assert int(updates[counter]) == 6
    assert int(counter.value) == 0
    last, updates = jscan.reduce(step, jnp.arange(4.0), None)
    assert int(last) == 6
    assert int(updates[counter]) == 8


def test_name_reaches_the_profiler():
    def run(x):
        return jscan.scan(lambda a, h: h + a, x, 0.0, name="storm").outputs

    lowered = jax.jit(run).lower(jnp.arange(3.0))
    assert "storm" in lowered.as_text(debug_info=True)


THEANO_SIGNATURES = {
    "scan": "fn sequences outputs_info non_sequences n_steps truncate_gradient "
    "go_backwards mode name profile allow_gc strict return_list",
    "map": "fn sequences non_sequences truncate_gradient go_backwards mode name",
    "reduce": "fn sequences outputs_info non_sequences go_backwards mode name",
    "foldl": "fn sequences outputs_info non_sequences mode name",
    "foldr": "fn sequences outputs_info non_sequences mode name",
}


@pytest.mark.parametrize("name", THEANO_SIGNATURES)
def test_positional_parameters_are_those_of_theano(name):
    parameters = inspect.signature(getattr(jscan, name)).parameters.values()
    positional = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert " ".join(positional) == THEANO_SIGNATURES[name]
    assert all(
        p.default is not p.empty for p in parameters if p.name not in positional[:3]
    )
