"""associate: linear recurrences as an associative scan, if asked for."""

import jax
import jax.numpy as jnp
import pytest

from jscan import explain, optimize
from support.comparing import assert_close
from support.optimizer.loops import check, loop_lengths, reasons

A = jax.nn.sigmoid(jax.random.normal(jax.random.key(8), (33, 4)))
B = jax.random.normal(jax.random.key(9), (33, 4))
ASKED = ["merge", "save_memory", "hoist", "vectorise", "sink", "associate"]


@pytest.mark.parametrize("reverse", [False, True])
def test_linear_recurrence(reverse):
    """No loop is left; values, derivatives and batches agree."""

    def smooth(a, b):
        def step(h, row):
            h = (row[0] * h - row[1]) / 1.5 + h * 0.1
            return h, jnp.tanh(h)

        return jax.lax.scan(step, jnp.ones(4), (a, b), reverse=reverse)

    assert loop_lengths(optimize(smooth, passes=ASKED), A, B) == []
    check(smooth, A, B, tolerance=1e-4, passes=ASKED)


def test_constant_coefficients_and_chained_recurrences():
    """One recurrence feeds the next: both go, one after the other."""

    def chain(a, b):
        def step(state, x):
            first = a[0] * state[0] + x
            second = 0.5 * state[1] + first * x
            return (first, second), second

        return jax.lax.scan(step, (jnp.zeros(4), jnp.ones(4)), b)

    assert loop_lengths(optimize(chain, passes=ASKED), A, B) == []
    assert_close(optimize(chain, passes=ASKED)(A, B), chain(A, B), 1e-4)


def test_a_recurrence_behind_another_one():
    """The derivative of a chain carries them in the other order: it goes as well."""

    def chain(a, b):
        def step(state, x):
            first = a[0] * state[0] + x
            second = 0.5 * state[1] + jnp.tanh(first)
            return (first, second), second

        return jax.lax.scan(step, (jnp.zeros(4), jnp.ones(4)), b)[1].sum()

    fun = jax.grad(chain, (0, 1))
    assert loop_lengths(optimize(fun, passes=ASKED), A, B) == []
    assert_close(optimize(fun, passes=ASKED)(A, B), fun(A, B), 1e-4)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("largest", [jnp.maximum, jnp.minimum])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.int32])
def test_running_extremes(dtype, largest, reverse):
    """The largest or smallest of all that came, to the digit, whole numbers too."""

    def loop(b):
        b = (10 * b).astype(dtype)
        step = lambda c, x: (largest(x + 1, c), c)
        return jax.lax.scan(step, b[0], b, reverse=reverse)

    assert loop_lengths(optimize(loop, passes=ASKED), B) == []
    found, expected = optimize(loop, passes=ASKED)(B), loop(B)
    for one, other in zip(found, expected, strict=True):
        assert (one == other).all()
        assert one.dtype == other.dtype
    if dtype == jnp.float32:
        check(loop, B, tolerance=1e-4, passes=ASKED)


def test_the_larger_one_of_a_state_and_a_number_stays():
    """The number has another shape."""
    loop = lambda b: jax.lax.scan(lambda c, x: (jnp.maximum(c, 0.0), c + x), B[0], b)
    assert_close(optimize(loop, passes=ASKED)(B), loop(B))


def test_only_if_asked_for():
    """It is not among the default passes."""
    total = lambda b: jax.lax.scan(lambda c, x: ((c := 0.5 * c + x), c), B[0], b)[1]
    assert loop_lengths(optimize(total), B) == [33]
    assert "associate" not in explain(total)(B).loops[0].fired


@pytest.mark.parametrize(
    ("step", "why"),
    [
        (lambda c, x: jnp.tanh(c) + x, "tanh is not linear"),
        (lambda c, x: c * c + x, "mul is not linear"),
        (lambda c, x: x / (c + 2.0), "div is not linear"),
        (lambda c, x: c[::-1] + x, "rev is not linear"),
        (lambda c, x: c.sum() + x, "reduce_sum is not linear"),
    ],
    ids=["tanh", "square", "quotient", "reversed", "sum"],
)
def test_what_is_not_linear_stays(step, why):
    """The reason names the operation."""
    loop = lambda b: jax.lax.scan(lambda c, x: ((c := step(c, x)), c), B[0], b)[1]
    assert why in reasons(loop, B, name="associate", passes=ASKED)
    assert_close(optimize(loop, passes=ASKED)(B), loop(B))


def test_integers_and_tied_states_stay():
    """Integer sums keep their order of wrapping; states in pairs are not split."""
    count = lambda x: jax.lax.scan(lambda c, v: (c * 2 + v, c), jnp.int32(1), x)[1]
    x = jnp.arange(40, dtype=jnp.int32)
    assert "not a floating point" in reasons(count, x, name="associate", passes=ASKED)
    pair = lambda b: jax.lax.scan(
        lambda c, v: ((c[1] + v, c[0] * 0.5), c[0]), (B[0], B[1]), b
    )[1]
    assert "other state" in reasons(pair, B, name="associate", passes=ASKED)
    assert "memory budget" in reasons(
        lambda b: jax.lax.scan(lambda c, v: (0.5 * c + v, c), B[0], b)[1],
        B,
        name="associate",
        passes=ASKED,
        memory_budget=100,
    )
