"""Hamiltonian Monte Carlo of a Gaussian, run until enough proposals were accepted."""

import jax
import jax.numpy as jnp
import numpy as np

import jscan

MEAN = jnp.array([1.0, -2.0])
COVARIANCE = jnp.array([[1.0, 0.6], [0.6, 0.8]])
PRECISION = jnp.linalg.inv(COVARIANCE)
WANTED = 4000


def energy(x):
    return 0.5 * (x - MEAN) @ PRECISION @ (x - MEAN)


def leapfrog(x, momentum):
    """Eight steps along the energy surface: an inner loop."""
    push = jax.grad(energy)

    def step(x, p):
        p = p - 0.15 * push(x)
        x = x + 0.3 * p
        return [x, p - 0.15 * push(x)]

    (xs, ps), _ = jscan.scan(step, outputs_info=[x, momentum], n_steps=8)
    return xs[-1], ps[-1]


def chain(seed):
    rng = jscan.RandomStreams(seed)

    def step(x, accepted):
        momentum = 1.0 * rng.normal(size=(2,), dtype="float64")
        proposal, final = leapfrog(x, momentum)
        change = energy(x) - energy(proposal)
        change = change + 0.5 * (momentum @ momentum - final @ final)
        accept = jnp.log(1.0 * rng.uniform(size=(), dtype="float64")) < change
        accepted = accepted + accept.astype(accepted.dtype)
        new = jnp.where(accept, proposal, x)
        return [new, accepted], jscan.until(accepted >= WANTED)

    return jscan.scan(step, None, [jnp.zeros(2), jnp.array(0)], max_steps=3 * WANTED)


def test_mean_and_covariance():
    result = chain(1)
    samples, accepted = result.outputs
    assert int(accepted[-1]) == WANTED
    assert WANTED <= result.n_steps == len(samples) < 1.3 * WANTED
    kept = np.asarray(samples[200:])
    np.testing.assert_allclose(kept.mean(0), MEAN, atol=0.1)
    np.testing.assert_allclose(np.cov(kept.T), COVARIANCE, atol=0.12)


def test_the_same_seed_gives_the_same_chain():
    first, second, other = chain(1), chain(1), chain(2)
    np.testing.assert_array_equal(first.outputs[0], second.outputs[0])
    assert not np.array_equal(first.outputs[0][:50], other.outputs[0][:50])
