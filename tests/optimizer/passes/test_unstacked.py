"""Arrays that a step takes apart, ``a, b = pair``, whatever JAX has for that."""

import jax
import jax.numpy as jnp

from jscan import optimize
from support.optimizer.loops import check, operations

P = jnp.array([0.3, -0.2, 0.7], jnp.float32)
X = jnp.linspace(-1.0, 1.0, 40, dtype=jnp.float32)


def smoothed(p, x):
    def step(level, y):
        a, b, c = jax.nn.sigmoid(p)
        return a * level + b * y + c, level

    return jax.lax.scan(step, jnp.float32(0), x)[1]


def turned(p, x):
    def step(state, y):
        a, b, c = state
        return jnp.stack([b + 0.1 * y, c * 0.9, a - y]), a * b

    return jax.lax.scan(step, p, x)[1]


def test_numbers_of_a_constant_are_read_in_the_step():
    """Each by itself would be one more thing to carry, and one more operation."""
    before, inside = operations(optimize(smoothed), P, X)
    assert "logistic" in before
    assert "slice" not in before
    assert "logistic" not in inside
    assert "slice" in inside
    check(smoothed, P, X)


def test_a_state_that_is_taken_apart():
    check(turned, P, X)
    check(lambda p, x: jax.vmap(turned, (0, None))(jnp.stack([p, -p]), x), P, X)
