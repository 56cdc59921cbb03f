"""What `scan` accepts and what it returns: forms, modes, names, signatures."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jscan
from support import reference
from support.comparing import assert_close
from support.programs import numbers


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
    assert_close(actual, expected, 1e-12)


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


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_strict_lets_a_step_make_arrays(wrap):
    """Tables in the step, JAX's own too, are no arguments; what it captures is told."""
    table = jnp.array([3.0, 4.0])

    def step(x):
        made = (
            jnp.array([1.0, 2.0]) + np.array([0.5, 0.5]) + jnp.asarray(np.arange(2.0))
        )
        return x * made + jax.random.binomial(jax.random.key(0), 9.0, 0.4, (2,))

    x = jnp.ones((3, 2))
    run = lambda step: wrap(lambda x: jscan.scan(step, x, strict=True).outputs)(x)
    np.testing.assert_array_equal(run(step), jax.vmap(step)(x))
    for captured in (table, np.asarray(table)):
        captures = lambda x, captured=captured: step(x) * captured
        with pytest.raises(
            TypeError, match=r"captures \w+( array)? \(float64\[2\]\)\."
        ):
            run(lambda x: captures(x))


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
    with pytest.warns(UserWarning, match=rf"{rows} rows?, fewer than the 3"):
        outputs = jscan.scan(lambda a, b: a * b, dict(input=x, taps=[-1, 1])).outputs
    assert outputs.shape == (0, 3)


@pytest.mark.parametrize(
    "make",
    [
        lambda: range(-3, 0, 2),
        lambda: (-3, -1),
        lambda: np.array([-3, -1]),
        lambda: jnp.array([-3, -1]),
        lambda: [np.int64(-3), np.int8(-1)],
        lambda: (tap for tap in (-3, -1)),
        lambda: iter([-3, -1]),
        lambda: {-3: "third", -1: "last"},
    ],
    ids=["range", "tuple", "NumPy", "JAX", "list", "generator", "iterator", "dict"],
)
def test_taps_are_any_integers_in_an_order(make):
    step = lambda old, new, third, last: old + 2.0 * new + third - last
    x, h = jnp.arange(6.0), jnp.array([1.0, 2.0, 4.0])
    infos = lambda taps: dict(initial=h, taps=taps)
    expected = jscan.scan(step, dict(input=x, taps=[-3, -1]), infos([-3, -1])).outputs
    rows = jscan.scan(step, dict(input=x, taps=make()), infos(make())).outputs
    assert rows.shape == (3,)
    np.testing.assert_array_equal(rows, expected)


@pytest.mark.parametrize("tap", [-2, np.int32(-2), np.array(-2), jnp.array(-2)])
def test_one_tap_without_a_list(tap):
    rows, _ = jscan.scan(
        lambda h: 2 * h,
        outputs_info=dict(initial=jnp.array([1, 5]), taps=tap),
        n_steps=3,
    )
    assert rows.tolist() == [2, 10, 4]


@pytest.mark.parametrize(
    "taps",
    [{-1, -2}, frozenset([-1]), "ab", 1.5, [1.5], [True], [None], [[-1]]],
    ids=str,
)
def test_other_taps_are_refused(taps):
    with pytest.raises(
        TypeError, match=r"(?s)outputs_info\[0\]: taps: needed .*taps=\[-1\]"
    ):
        jscan.scan(
            lambda a, b: a, outputs_info=dict(initial=jnp.ones(2), taps=taps), n_steps=1
        )


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
