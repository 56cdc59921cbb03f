"""save_memory: rows that nobody reads are not stored."""

import jax
import jax.numpy as jnp
import pytest

from jscan import explain, optimize
from support.comparing import assert_close
from support.optimizer.loops import check, lowered, operations, reasons, stacked_shapes

X = jax.random.normal(jax.random.key(0), (12, 5))


def powers(a, x):
    def step(r, x_t):
        r = r * a + x_t
        return r, jnp.sin(r) * r

    return jax.lax.scan(step, jnp.ones_like(a), x)[1]


A = jnp.linspace(0.5, 0.9, 5)


@pytest.mark.parametrize("reverse", [False, True])
def test_last_row_is_carried(reverse):
    """`ys[-1]` (of a reversed loop `ys[0]`) leaves no stack."""

    def last(a, x):
        ys = jax.lax.scan(
            lambda r, x_t: (r * a + x_t, jnp.sin(r)), jnp.ones(5), x, reverse=reverse
        )[1]
        return ys[0 if reverse else -1]

    assert (12, 5) in stacked_shapes(last, A, X)
    assert (12, 5) not in stacked_shapes(optimize(last), A, X)
    check(last, A, X)


def test_temporary_memory_does_not_grow_with_the_steps():
    """At 2000 steps of 500 floats the stack would be 4 MB (8 in 64 bits)."""

    def last(a):
        step = lambda r, _: (r * a, r * a)
        return jax.lax.scan(step, jnp.ones_like(a), length=2000)[1][-1]

    temporary_bytes = explain(last)(jnp.full(500, 0.999)).temporary_bytes
    assert temporary_bytes is not None
    before, after = temporary_bytes
    assert before > 2000 * 500 * 4
    assert after < before // 100


@pytest.mark.parametrize("name", ["sum", "mean"])
def test_sums_over_time_are_carried(name):
    """A sum of rows of the state is kept in the carry, other axes included."""

    def reduced(a, x):
        step = lambda r, x_t: ((r := r * a + x_t), r)
        return getattr(jnp, name)(jax.lax.scan(step, jnp.ones(5), x)[1], axis=(0, 1))

    assert (12, 5) not in stacked_shapes(optimize(reduced), A, X)
    check(reduced, A, X)


@pytest.mark.parametrize("name", ["max", "min"])
def test_extremes_are_carried_once_no_derivative_follows(name):
    """Before that, rows that tie would share the derivative differently."""

    def reduced(x):
        step = lambda r, x_t: ((r := r * 0.5 + x_t), r)
        return getattr(jnp, name)(jax.lax.scan(step, jnp.ones(5), x)[1], axis=0)

    run = lowered(reduced, X)
    assert (12, 5) not in stacked_shapes(run, X)
    assert_close(run(X), [reduced(X)])
    nan = X.at[3, 2].set(jnp.nan)
    assert_close(run(nan), [reduced(nan)])

    check(reduced, jnp.ones((12, 5)))


def test_integer_and_boolean_reductions():
    """They start from the smallest number of their type."""

    def reduced(x):
        step = lambda c, v: ((c := c - v), (c, c > 0))
        values, signs = jax.lax.scan(step, jnp.int8(0), x)[1]
        return values.max(), values.min(), values.sum(), signs.any(), signs.all()

    x = jnp.asarray([5, 100, 100, 7], jnp.int8)
    assert_close(tuple(lowered(reduced, x)(x)), reduced(x))


def test_the_last_of_many_keys_is_carried():
    """Keys have a zero to start from, which nothing reads."""

    def last(key):
        step = lambda k, _: ((pair := jax.random.split(k))[0], pair[1])
        return jax.random.key_data(jax.lax.scan(step, key, length=12)[1][-1])

    key = jax.random.key(0)
    assert reasons(last, key, name="save_memory") == ""
    assert_close(optimize(last)(key), last(key))


def test_an_output_read_in_full_stays():
    """One reader of all rows keeps them."""

    def both(a, x):
        ys = powers(a, x)
        return ys[-1], ys

    assert_close(optimize(both)(A, X), both(A, X))
    assert (12, 5) in stacked_shapes(optimize(both, passes=["save_memory"]), A, X)


def test_unread_outputs_go():
    """An output and a carry nobody reads disappear."""

    def first(a, x):
        step = lambda c, v: ((c[0] * a + v, jnp.exp(c[1])), jnp.cos(c[0]))
        return jax.lax.scan(step, (jnp.ones(5), jnp.ones(5)), x)[0][0]

    _, inside = operations(optimize(first), A, X)
    assert "exp" not in inside
    assert "cos" not in inside
    check(first, A, X)
