"""A number of steps that only the running program knows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jscan
from support import reference
from support.checking import check_derivatives, tolerance_of
from support.comparing import assert_close
from support.stops import executed_sum, settled


def power(a, k, **options):
    """The tutorial's A**k, with k an argument."""
    return jscan.scan(
        lambda power, a: power * a,
        outputs_info=jnp.ones_like(a),
        non_sequences=a,
        n_steps=k,
        max_steps=10,
        **options,
    )


def test_one_compilation_serves_all_counts():
    traces = []

    @jax.jit
    def run(a, k):
        traces.append(k)
        rows = power(a, k).outputs
        return rows[-1], jax.grad(lambda a: power(a, k).outputs[-1].sum())(a)

    a = jnp.array([0.5, 2.0, 3.0])
    for k in (1, 2, 5, 10):
        value, slope = run(a, k)
        np.testing.assert_allclose(value, a**k)
        np.testing.assert_allclose(slope, k * a ** (k - 1.0))
    assert len(traces) == 1


def test_zero_steps_give_zero_rows_and_numbers_out_of_range_are_clamped():
    run = jax.jit(lambda k: power(jnp.array([2.0]), k))
    none = run(0)
    assert int(none.n_steps) == 0
    assert not none.mask.any()
    assert none.outputs.tolist() == [[0.0]] * 10
    assert int(run(-3).n_steps) == 0
    assert int(run(99).n_steps) == 10
    assert float(run(99).outputs[-1, 0]) == 2.0**10


@pytest.mark.parametrize("backwards", [False, True])
def test_sequences_bound_it_and_every_derivative_is_right(backwards):
    def program(loops, xp, k):
        def run(x, h, w):
            def step(a, h, w):
                return xp.tanh(h * w + a), a * h

            result = loops.scan(
                step, x, [h, None], w, n_steps=k, go_backwards=backwards
            )
            return settled(result, len(x))

        return run

    args = np.linspace(0.1, 0.9, 6), np.array(0.3), np.array(0.8)
    expected = program(reference, np, 4)(*args)
    compiled = jax.jit(lambda k, *args: program(jscan, jnp, k)(*args))
    assert_close(compiled(4, *args), expected, 1e-12)
    four = jax.jit(lambda k: k)(4)
    check_derivatives(
        lambda *args: compiled(four, *args),
        program(reference, np, 4),
        args,
        tolerance_of(args),
    )


def test_every_lane_has_its_own_number():
    a = jnp.array([2.0])
    counts = jnp.arange(5)
    lanes = jax.vmap(jax.value_and_grad(lambda a, k: power(a, k).outputs[-1].sum()))
    values, slopes = lanes(jnp.tile(a, (5, 1)), counts)
    assert values.tolist() == [0.0, 2.0, 4.0, 8.0, 16.0]  # no step: no row
    assert slopes.ravel().tolist() == [0.0, 1.0, 4.0, 12.0, 32.0]


def test_with_until_the_first_of_both_ends_the_loop():
    @jax.jit
    def run(x, k):
        return jscan.scan(lambda a: (a, jscan.until(a >= 3)), x, n_steps=k).n_steps

    x = jnp.arange(1.0, 7.0)
    assert [int(run(x, k)) for k in (1, 2, 3, 5)] == [1, 2, 3, 3]


def test_with_truncated_gradient():
    def cost(x, h, w, k):
        result = jscan.scan(
            lambda a, h, w: h * w + a, x, h, w, n_steps=k, truncate_gradient=2
        )
        return executed_sum(result)

    x = jnp.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    slopes = jax.jit(jax.grad(cost, (0, 1, 2)))(x, 2.0, 0.5, 4)
    assert slopes[0].tolist() == [0, 0, 1.5, 1, 0, 0]
    assert [float(slope) for slope in slopes[1:]] == [0, 9]


@pytest.mark.parametrize(
    ("n_steps", "max_steps", "text"),
    [
        (5, 3, r"n_steps.*at most max_steps=3.*got 5"),
        (2, -1, r"max_steps.*at least 0.*got -1"),
        (2, 2.5, r"max_steps.*integer.*float"),
    ],
)
def test_what_is_known_and_wrong_is_an_error(n_steps, max_steps, text):
    with pytest.raises((ValueError, TypeError), match=text):
        jscan.scan(
            lambda h: h + 1, outputs_info=0.0, n_steps=n_steps, max_steps=max_steps
        )


def test_traced_numbers_that_are_no_count():
    with pytest.raises(TypeError, match=r"n_steps.*integer scalar.*float"):
        jax.jit(lambda k: power(jnp.ones(1), k))(2.5)
    with pytest.raises(TypeError, match=r"max_steps.*known while tracing"):
        jax.jit(
            lambda k: jscan.scan(lambda h: h, outputs_info=0.0, n_steps=k, max_steps=k)
        )(2)


def test_max_steps_is_the_bound_of_an_until_loop():
    rows, _ = jscan.scan(
        lambda h: (h * 2, jscan.until(h > 50)), outputs_info=1, max_steps=100
    )
    assert rows.tolist() == [2, 4, 8, 16, 32, 64, 128]


def test_debug_mode_says_what_it_needs():
    with pytest.raises(NotImplementedError, match=r"DEBUG.*known number of steps"):
        jax.jit(lambda k: power(jnp.ones(1), k, mode="DEBUG"))(2)
