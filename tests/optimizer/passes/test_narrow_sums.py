"""Sums of types of 16 bits, which cannot hold what a part or the steps add up to."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from jscan import optimize
from support.comparing import assert_close
from support.optimizer.loops import carried_shapes, lowered, reasons


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_parts_of_a_sum_may_be_larger_than_the_sum(dtype):
    """``a - b`` is zero at each step; the sum of all ``a`` is 512,000."""

    def total(x):
        step = lambda c, v: (c + (jnp.outer(v, v) - jnp.outer(2 * v, v / 2)), None)
        return lax.scan(step, jnp.zeros((64, 64), dtype), x)[0]

    x = jnp.full((2000, 64), 16, dtype)
    assert carried_shapes(optimize(total), x) == []
    assert_close(optimize(total)(x), jnp.zeros((64, 64), dtype))


def test_there_may_be_more_steps_than_the_type_can_tell():
    """70,000 is infinite in float16, and infinity times zero is not a number."""

    def totals(x, k):
        step = lambda c, v: ((c[0] + v * v, c[1] + k), None)
        return lax.scan(step, (jnp.zeros_like(k), k), x)[0]

    x, zero = jnp.full(70_000, 1e-4, jnp.float16), jnp.zeros((), jnp.float16)
    assert carried_shapes(optimize(totals), x, zero) == []
    assert_close(optimize(totals)(x, zero)[1], zero)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_rows_are_stored_for_their_sum(dtype):
    """A carry of 16 bits would be rounded at each step: 4,000 ones became 256."""

    def total(x):
        rows = lax.scan(lambda c, v: (c * v, c * v), jnp.ones(4, dtype), x)[1]
        return lax.reduce_sum(rows, (0,))

    x = jnp.ones((4000, 4), dtype)
    assert "a sum of 4000 rows" in reasons(total, x, name="save_memory")
    assert_close(optimize(total)(x), jnp.full(4, 4000, dtype))


def test_the_largest_of_narrow_rows_is_carried():
    """Nothing is rounded there."""

    def largest(x):
        rows = lax.scan(lambda c, v: (c * v, c * v), jnp.ones(4, x.dtype), x)[1]
        return rows.max(0)

    x = jax.random.uniform(jax.random.key(0), (40, 4), jnp.bfloat16)
    assert reasons(largest, x, name="save_memory") == ""
    (found,) = lowered(largest, x)(x)
    assert_close(found, largest(x))
