"""Where jscan differs from Theano 0.9.0 on purpose, each with its reason.

Theano's behaviour is in the docstrings. The first group are faults of Theano that
are not copied, the second are kindnesses, the third are choices.
"""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jscan

x = jnp.arange(1.0, 5.0)


# Faults that are not copied.


@pytest.mark.parametrize("n_steps", [0, np.int64(0), np.asarray(0)])
def test_zero_steps_give_zero_rows(n_steps):
    """Theano: NotImplementedError, or an empty array if the loop was optimised away."""
    rows, state = jscan.scan(
        lambda a, h: [a * jnp.ones((2, 3)), h + a],
        sequences=x,
        outputs_info=[None, jnp.zeros(())],
        n_steps=n_steps,
    ).outputs
    assert rows.shape == (0, 2, 3)
    assert state.shape == (0,)
    assert rows.dtype == state.dtype == jnp.float64


def test_empty_sequence_gives_zero_rows_and_zero_gradients():
    """Theano: NotImplementedError."""

    def total(x, h):
        return jscan.scan(lambda a, h: h * a, x, h).outputs.sum()

    assert float(total(jnp.zeros(0), 2.0)) == 0.0
    assert jax.grad(total, argnums=(0, 1))(jnp.zeros(0), 2.0)[1] == 0.0


def test_reduce_of_nothing_is_the_initial_value():
    total, updates = jscan.reduce(lambda x, total: x + total, jnp.zeros(0), 3.0)
    assert total == 3.0
    assert not updates


def test_one_step_is_an_ordinary_loop_backwards():
    """Theano's literal 1 ignores `go_backwards`."""
    last = jscan.scan(lambda a: a, x, n_steps=1, go_backwards=True).outputs
    np.testing.assert_array_equal(last, [4.0])


def test_one_step_is_an_ordinary_loop_with_taps():
    """Theano's literal 1 reads element 0 for a future tap."""
    ahead = jscan.scan(lambda a: a, dict(input=x, taps=[2]), n_steps=1).outputs
    np.testing.assert_array_equal(ahead, [3.0])


def test_one_step_is_checked_like_any_other():
    """Theano's literal 1 checks neither the type nor the number of outputs."""
    with pytest.raises(ValueError, match="outputs_info"):
        jscan.scan(lambda h: [h, h], outputs_info=[jnp.zeros(())], n_steps=1)


def test_one_step_without_outputs_gives_none():
    """Theano's literal 1 gives an empty list."""
    assert jscan.scan(lambda a: {}, x, n_steps=1).outputs is None


def test_too_many_steps_are_refused_for_a_plain_map_too():
    """Theano's optimizer removes such a loop, and the check with it."""
    with pytest.raises(ValueError, match="n_steps"):
        jscan.map(lambda a: a + 1, [])
    with pytest.raises(ValueError, match="n_steps"):
        jscan.scan(lambda a: a + 1, x, n_steps=5)


def test_too_short_initial_is_refused():
    """Theano reads memory that was never written."""
    with pytest.raises(ValueError, match=r"outputs_info\[0\]"):
        jscan.scan(
            lambda a, b: a + b,
            outputs_info=dict(initial=jnp.zeros(1), taps=[-2, -1]),
            n_steps=3,
        )


def test_smaller_output_is_not_stretched_to_the_state():
    """Theano silently broadcasts a step output of shape (1,) into rows of 4."""
    with pytest.raises(ValueError, match=r"outputs_info\[0\]"):
        jscan.scan(lambda h: h[:1], outputs_info=jnp.zeros(4), n_steps=2)


@pytest.mark.parametrize(
    "arguments",
    [
        dict(sequences=dict(input=x, tap=[-1])),
        dict(sequences=x, outputs_info=dict(inital=0.0)),
        dict(sequences=x, outputs_info=dict(initial=0.0, inplace=True)),
    ],
    ids=["sequence", "misspelt initial", "known to Theano only"],
)
def test_unknown_keys_are_refused(arguments):
    """Theano ignores them: a misspelt `initial` turns a state into a map output."""
    with pytest.raises(jscan.ScanError, match=r"tap|inital|inplace"):
        jscan.scan(lambda *slices: slices[0], **arguments)


def test_dictionaries_of_the_user_are_left_alone():
    """Theano writes the default taps into them."""
    sequence: dict[str, Any] = dict(input=x)
    info: dict[str, Any] = dict(initial=0.0)
    sequences, infos = [sequence], [info, None]
    jscan.scan(lambda a, h: [h + a, a], sequences, infos)
    assert sequence.keys() == {"input"}
    assert info.keys() == {"initial"}
    assert sequences == [sequence]
    assert infos == [info, None]


def test_empty_entries_are_map_outputs():
    """Theano loses the output of `{'initial': None, 'taps': None}`."""
    for info in ({}, dict(initial=None), dict(initial=None, taps=None)):
        rows = jscan.scan(lambda a: a * 2, x, [info]).outputs
        np.testing.assert_array_equal(rows, 2 * x)


def test_taps_of_none_are_the_usual_ones():
    """Theano does the same for a state, with a warning in its log."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows = jscan.scan(
            lambda a, h: h + a,
            dict(input=x, taps=None),
            dict(initial=0.0, taps=None),
        ).outputs
    np.testing.assert_array_equal(rows, [1.0, 3.0, 6.0, 10.0])


def test_outer_values_only_in_the_updates_are_found():
    """Theano: MissingInputError."""
    counter = jscan.shared(jnp.zeros(()))
    step = jnp.asarray(2.5)
    _, updates = jscan.scan(lambda: {counter: counter.value + step}, n_steps=4)
    assert float(updates[counter]) == 10.0
    assert float(counter.value) == 0.0  # a scan itself changes nothing


def test_third_derivative_through_a_state():
    """Theano: TypeError."""

    def power(x):
        rows, _ = jscan.scan(lambda p: p * x, outputs_info=jnp.ones(()), n_steps=5)
        return rows[-1]

    third = jax.grad(jax.grad(jax.grad(power)))(2.0)
    np.testing.assert_allclose(third, 60 * 2.0**2, 1e-12)


def test_second_derivative_of_a_two_tap_state():
    """Theano computes another number."""

    def last(w):
        rows, _ = jscan.scan(
            lambda a, b: a * w + b * w**2,
            outputs_info=dict(initial=jnp.asarray([1.0, 1.0]), taps=[-2, -1]),
            n_steps=2,
        )
        return rows[-1]  # w + w^2 (w + w^2) = w + w^3 + w^4

    np.testing.assert_allclose(jax.hessian(last)(2.0), 6 * 2.0 + 12 * 4.0, 1e-12)


# Kindnesses.


@pytest.mark.parametrize(
    ("dtype", "initial"),
    [
        ("float32", 0.0),
        ("float64", 0),
        ("int32", 0),
        ("int64", 0),
        ("complex64", 0.0),
        ("uint8", 0),
    ],
)
def test_python_numbers_take_the_type_of_the_step(dtype, initial):
    """Theano: `0.` is float32 and `0` is int8, which clashes or overflows."""
    rows = jscan.scan(lambda a, h: h + a, jnp.ones(3, dtype), initial).outputs
    assert rows.dtype == dtype
    np.testing.assert_array_equal(rows, np.arange(1, 4))


def test_integer_count_does_not_overflow_at_127():
    """Theano counts in int8 from an initial 0."""
    rows = jscan.scan(lambda h: h + 1, outputs_info=0, n_steps=300).outputs
    assert int(rows[-1]) == 300


@pytest.mark.usefixtures("standard_promotion")
@pytest.mark.parametrize(
    ("initial", "sequence", "result"),
    [
        ("int32", "float32", "float32"),
        ("int32", "int64", "int64"),
        ("float32", "float64", "float64"),
        ("float32", "complex64", "complex64"),
        ("bool", "int32", "int32"),
    ],
)
def test_narrow_initial_is_promoted(initial, sequence, result):
    """Theano: ValueError, the types must be equal."""
    rows = jscan.scan(
        lambda a, h: h + a, jnp.ones(3, sequence), jnp.zeros((), initial)
    ).outputs
    assert rows.dtype == result
    np.testing.assert_array_equal(rows, np.arange(1, 4))


@pytest.mark.usefixtures("standard_promotion")
def test_promotion_reaches_its_fixed_point_over_two_states():
    """The first state widens the second only after it was widened itself."""
    first, second = jscan.scan(
        lambda a, p, q: [p + a, q + p],
        sequences=jnp.ones(3, "complex64"),
        outputs_info=[jnp.zeros((), "int32"), jnp.zeros((), "int32")],
    ).outputs
    assert first.dtype == second.dtype == jnp.complex64
    np.testing.assert_array_equal(second, [0, 1, 3])


def test_promotion_keeps_the_gradient_of_the_initial():
    def total(h):
        rows = jscan.scan(lambda a, h: h * a, x, h).outputs
        assert rows.dtype == jnp.float64
        return rows.sum()

    with jax.numpy_dtype_promotion("standard"):
        gradient = jax.grad(total)(jnp.asarray(1.0, "float32"))
    assert gradient.dtype == jnp.float32
    assert float(gradient) == 1 + 2 + 6 + 24


@pytest.mark.parametrize("taps", [-1, (-1,), [-1], np.asarray([-1])])
def test_one_tap_back_has_no_time_axis_however_it_is_written(taps):
    """Theano: only the list does; the tuple wants a time axis, the number fails."""
    rows = jscan.scan(lambda a, h: h + a, x, dict(initial=0.0, taps=taps)).outputs
    np.testing.assert_array_equal(rows, [1.0, 3.0, 6.0, 10.0])


def test_raw_numpy_arrays_are_fine_everywhere():
    """Theano: TypeError for two raw sequences, AssertionError for a raw initial."""
    raw = np.asarray(x)
    rows = jscan.scan(
        lambda a, b, before, last: a * b + before - last,
        sequences=[raw, dict(input=raw, taps=[0])],
        outputs_info=dict(initial=raw, taps=[-2, -1]),
        n_steps=2,
    ).outputs
    np.testing.assert_array_equal(rows, [0.0, 6.0])


def test_updates_before_outputs_are_understood():
    """Theano promises any order in its docstring, and raises a ValueError."""
    counter = jscan.shared(jnp.zeros(()))
    outputs, updates = jscan.scan(lambda a: ({counter: counter.value + a}, a * 2), x)
    np.testing.assert_array_equal(outputs, 2 * x)
    assert float(updates[counter]) == 10.0


def test_numbers_and_numpy_arrays_may_be_returned():
    """Theano: ValueError, the return value may only hold variables."""
    number, array = jscan.scan(lambda a: [1.5, np.asarray([1, 2])], x).outputs
    np.testing.assert_array_equal(number, [1.5] * 4)
    np.testing.assert_array_equal(array, [[1, 2]] * 4)


def test_strict_accepts_a_bare_non_sequence():
    """Theano: TypeError, it must be a list."""
    rows = jscan.scan(
        lambda a, w: a * w, x, non_sequences=jnp.asarray(2.0), strict=True
    ).outputs
    np.testing.assert_array_equal(rows, 2 * x)


def test_strict_refuses_captured_arrays_as_well():
    """Theano looks at shared variables only."""
    w = jnp.ones((2, 3))
    with pytest.raises(jscan.ScanError, match="strict"):
        jscan.scan(lambda a: a * w.sum(), x, strict=True)


# Choices.


def test_pytrees_are_one_sequence_one_state_one_output():
    """Theano knows arrays only."""
    rows, state = jscan.scan(
        lambda pair, s: [{"sum": pair["a"] + pair["b"]}, {"n": s["n"] + pair["a"]}],
        sequences=dict(input={"a": x, "b": 2 * x}),
        outputs_info=[None, dict(initial={"n": 0.0})],
    ).outputs
    np.testing.assert_array_equal(rows["sum"], 3 * x)
    np.testing.assert_array_equal(state["n"], [1.0, 3.0, 6.0, 10.0])


def test_unconnected_gradients_are_zero():
    """Theano: DisconnectedInputError."""

    def total(h, unused):
        return jscan.scan(
            lambda a, h, unused: h + a, x, h, non_sequences=unused
        ).outputs.sum()

    assert float(jax.grad(total, argnums=1)(1.0, 2.0)) == 0.0


def test_any_truthy_return_list_makes_a_list():
    """Theano tests for `is True`."""
    assert isinstance(jscan.scan(lambda a: a, x, return_list=True).outputs, list)


def test_unknown_mode_is_a_value_error():
    """Theano raises a plain Exception."""
    with pytest.raises(ValueError, match="mode"):
        jscan.scan(lambda a: a, x, mode="FAST")  # type: ignore


def test_bad_truncate_gradient_is_refused_by_scan():
    """Theano checks it only when a gradient is taken."""
    with pytest.raises(jscan.ScanError, match="truncate_gradient"):
        jscan.scan(lambda a: a, x, truncate_gradient=0)
