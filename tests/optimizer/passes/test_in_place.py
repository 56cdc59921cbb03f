"""accumulate in the loop: an array filled step by step has a linear gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jscan import explain, optimize
from support.comparing import assert_close
from support.optimizer.loops import operations

JAX_ORDERS_READS = tuple(map(int, jax.__version__.split(".")[:2])) >= (0, 12)
X = jnp.sin(jnp.arange(2000.0))


def filled(x):
    """The program of JAX issue 10197: written by `at[i].set`, read at `i - 1`."""

    def step(s, i):
        return s.at[i].set(jnp.tanh(s[i - 1] * 0.9 + x[i])), None

    return jax.lax.scan(step, jnp.zeros_like(x), jnp.arange(1, x.shape[0]))[0].sum()


def test_rows_are_added_in_place():
    """No backward step adds whole arrays."""
    _, plain = operations(jax.grad(filled), X)
    _, inside = operations(optimize(jax.grad(filled)), X)
    assert plain.count("add_any") > inside.count("add_any")
    step = explain(jax.grad(filled))(X).loops[-1]
    assert step.after.flops < step.before.flops / 100
    assert_close(jax.jit(optimize(jax.grad(filled)))(X), jax.jit(jax.grad(filled))(X))


def test_reads_come_before_the_write_where_that_helps():
    """On JAX 0.10 the report says why the gradient stays quadratic."""
    text = str(explain(jax.grad(filled))(X).loops[-1])
    if JAX_ORDERS_READS:
        assert "read before the array they belong to" in text
    else:
        assert "copies the array at each step" in text


def test_several_rows_repeated_and_out_of_bounds():
    """Scattered rows add up, and rows outside are dropped, as they were."""
    table = jnp.arange(12.0).reshape(6, 2)
    rows = jnp.asarray([[0, 0, 5], [1, 9, -1], [2, 2, 2]])

    def total(table):
        def step(s, i):
            picked = s[i].sum() * jnp.cos(s[i[0], 0])
            return s * 0.9 + picked, picked

        return jax.lax.scan(step, table, rows)[1].sum()

    got = jax.jit(optimize(jax.grad(total)))(table)
    assert_close(got, jax.grad(total)(table))
    assert np.isfinite(np.asarray(got)).all()


@pytest.mark.any_jax  # it compiles for long on every version
def test_very_many_rows_stay_sums():
    """XLA would compile them for minutes."""

    def slope(count):
        def step(h, i):
            rows = [jnp.sin(h[(i * k) % 7]) for k in range(count)]
            return h * 0.5 + sum(rows), None

        return jax.grad(lambda h: jax.lax.scan(step, h, jnp.arange(3))[0].sum())

    def slope_in_numpy(h, count):  # XLA takes long for the plain loop, too
        states, gradient = [np.asarray(h)], np.ones(7)
        picked = [(np.arange(count) * i) % 7 for i in range(3)]
        for rows in picked:
            states.append(states[-1] * 0.5 + np.sin(states[-1][rows]).sum())
        for rows, state in zip(reversed(picked), reversed(states[:-1]), strict=True):
            below = gradient * 0.5
            np.add.at(below, rows, np.cos(state[rows]) * gradient.sum())
            gradient = below
        return gradient

    h, alone = jnp.arange(7.0), ["accumulate.in_place"]
    assert "96 rows a step added in place" in str(explain(slope(97), passes=alone)(h))
    assert "97 rows a step stay sums" in str(explain(slope(98), passes=alone)(h))
    for count in (97, 98):  # one of them is what the others are added to
        faster = jax.jit(optimize(slope(count), passes=alone))
        assert_close(faster(h), slope_in_numpy(h, count))
