"""`mode="DEBUG"`: the same loop in Python, on real values that are checked."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jscan
from support import reference
from support.comparing import assert_close
from support.programs import numbers


def test_debug_mode_runs_the_step_on_real_values():
    """`print` and plain Python tests on values work, once for each step."""
    seen = []

    def step(a, total):
        if a > 1:  # a tracer could not decide this
            total = total + 10.0
        seen.append((float(a), float(total)))
        return total + a

    outputs = jscan.scan(step, jnp.arange(3.0), 0.0, mode="DEBUG").outputs
    np.testing.assert_array_equal(outputs, [0.0, 1.0, 13.0])
    assert seen[-3:] == [(0.0, 0.0), (1.0, 0.0), (2.0, 11.0)]


def test_value_that_is_not_finite_is_reported_with_all_one_needs():
    """The step's number, the output, and what went in."""
    x = jnp.asarray([4.0, 1.0, 0.0, 2.0])
    with pytest.raises(FloatingPointError) as caught:
        jscan.scan(
            lambda x, h: [h + 1, h / x],
            sequences=x,
            outputs_info=[jnp.asarray(1.0), None],
            mode="DEBUG",
            name="storm",
        )
    error = caught.value
    assert isinstance(error, jscan.NonFiniteError)
    assert isinstance(error, jscan.ScanError)
    assert error.step == 2
    assert "1" in error.output
    assert "storm" in str(error)
    assert sorted(float(value) for value in error.inputs.values()) == [0.0, 3.0]


def test_step_of_a_backward_loop_is_counted_in_the_order_of_iteration():
    x = jnp.asarray([1.0, 1.0, 0.0, 2.0])
    with pytest.raises(jscan.NonFiniteError) as caught:
        jscan.scan(lambda x: 1 / x, x, go_backwards=True, mode="DEBUG")
    assert caught.value.step == 1


def test_other_modes_do_not_check():
    rows = jscan.scan(lambda x: 1 / x, jnp.asarray([1.0, 0.0])).outputs
    np.testing.assert_array_equal(rows, [1.0, np.inf])


def test_integers_and_booleans_are_always_finite():
    rows = jscan.scan(lambda n: [n, n > 1], jnp.arange(3), mode="DEBUG").outputs
    np.testing.assert_array_equal(rows[1], [False, False, True])


def test_disabled_jit_implies_it():
    seen = []

    def step(x):
        seen.append(float(x))
        return x

    with jax.disable_jit():
        jscan.scan(step, jnp.asarray([1.0, 2.0]))
    assert seen[-2:] == [1.0, 2.0]


@pytest.mark.parametrize("n_steps", [0, 1, 4])
def test_taps_trees_and_direction(n_steps):
    x, z = numbers(6), {"h": numbers(3, 2, seed=1)}

    def step(before, after, third, last):
        return [{"h": third["h"] * before + last["h"]}, before * after]

    def run(loops, **options):
        return loops.scan(
            step,
            sequences=dict(input=x, taps=[-1, 1]),
            outputs_info=[dict(initial=z, taps=[-3, -1]), None],
            n_steps=n_steps,
            go_backwards=True,
            **options,
        ).outputs

    assert_close(run(jscan, mode="DEBUG"), run(reference), 1e-12)


def test_narrow_initial_is_promoted():
    rows = jscan.scan(
        lambda a, h: h + a, jnp.ones(2, "float32"), 0, mode="DEBUG"
    ).outputs
    assert rows.dtype == jnp.float32
    np.testing.assert_array_equal(rows, [1.0, 2.0])


def test_gradient_through_it():
    def total(x):
        return jscan.scan(lambda x, h: h * x, x, 1.0, mode="DEBUG").outputs[-1]

    x = jnp.asarray([2.0, 3.0, 4.0])
    np.testing.assert_allclose(jax.grad(total)(x), [12.0, 8.0, 6.0], 1e-12)


def test_error_of_the_step_carries_the_number_of_the_step():
    def step(x):
        if x > 1:
            raise RuntimeError("mine")
        return x

    with pytest.raises(RuntimeError, match="mine") as caught:
        jscan.scan(step, jnp.arange(4.0), mode="DEBUG", name="storm")
    notes = " ".join(caught.value.__notes__)
    assert "storm" in notes
    assert "2" in notes
