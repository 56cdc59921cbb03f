"""Newton's method to a tolerance: its gradient is that of the implicit function."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import brentq

import jscan

WEIGHTS = np.array([0.2, 0.9, 1.7, 3.0])


def root(w):
    """The x with x = cos(w x), and the steps it took."""

    def step(x, w):
        slope = 1.0 + w * jnp.sin(w * x)
        new = x - (x - jnp.cos(w * x)) / slope
        return new, jscan.until(abs(new - x) < 1e-10)

    result = jscan.scan(step, None, jnp.full((), 0.5), w, max_steps=50)
    return result.outputs[-1], result.n_steps


def test_root_and_steps():
    for w in WEIGHTS:
        x, steps = root(w)
        expected = float(np.asarray(brentq(lambda x, w=w: x - np.cos(w * x), 0, 1)))
        np.testing.assert_allclose(x, expected)
        assert 2 <= steps <= 10  # quadratic convergence, not fifty steps


def test_gradient_through_the_iteration():
    slope = jax.jit(jax.vmap(jax.value_and_grad(lambda w: root(w)[0])))
    x, by_w = slope(jnp.asarray(WEIGHTS))
    # d/dw of x - cos(w x) = 0.
    implicit = -x * jnp.sin(WEIGHTS * x) / (1.0 + WEIGHTS * jnp.sin(WEIGHTS * x))
    np.testing.assert_allclose(by_w, implicit, 1e-9)
    forward = jax.vmap(lambda w: jax.jvp(lambda w: root(w)[0], (w,), (1.0,))[1])
    np.testing.assert_allclose(forward(jnp.asarray(WEIGHTS)), implicit, 1e-9)
