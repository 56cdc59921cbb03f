"""A restricted Boltzmann machine learns scikit-learn's digits.

Persistent contrastive divergence, after Theano's deep-learning tutorial: the state of
the Gibbs chains is a shared variable, the Gibbs steps are a scan with random draws.
"""

import jax.numpy as jnp
import numpy as np
import pytest

import jscan

datasets = pytest.importorskip(
    "sklearn.datasets", reason="the digits of scikit-learn: extra oracles"
)
pytestmark = [pytest.mark.oracles, pytest.mark.any_jax]

VISIBLE, HIDDEN, BATCH, GIBBS = 64, 32, 20, 3


def sigmoid(x):
    return 0.5 * (jnp.tanh(0.5 * x) + 1.0)


class Machine:
    def __init__(self) -> None:
        start = np.random.default_rng(0).normal(size=(VISIBLE, HIDDEN)) * 0.05
        self.W = jscan.shared(start, name="W")
        self.b = jscan.shared(jnp.zeros(VISIBLE), name="b")
        self.c = jscan.shared(jnp.zeros(HIDDEN), name="c")
        self.chain = jscan.shared(jnp.zeros((BATCH, VISIBLE)), name="chain")
        self.rng = jscan.RandomStreams(1)
        self.weights = [self.W, self.b, self.c]

    def hidden(self, v):
        return sigmoid(v @ self.W + self.c.value[None])

    def visible(self, h):
        return sigmoid(h @ self.W.T + self.b.value[None])

    def free_energy(self, v):
        drive = v @ self.W + self.c.value[None]
        return -(v @ self.b) - jnp.logaddexp(drive, 0.0).sum(-1)

    def gibbs(self):
        """One sweep of the persistent chains."""
        h = self.rng.bernoulli(p=self.hidden(self.chain.value), dtype=float)
        v = self.rng.bernoulli(p=self.visible(h.value), dtype=float)
        return {self.chain: v.value}

    def train_batch(self, batch, rate):
        _, sweep = jscan.scan(self.gibbs, n_steps=GIBBS)
        samples = sweep[self.chain]

        def cost():
            return self.free_energy(batch).mean() - self.free_energy(samples).mean()

        slopes = jscan.grad(cost, self.weights)
        steps = [(v, v - rate * g) for v, g in zip(self.weights, slopes, strict=True)]
        return self.reconstruction_error(batch), sweep + dict(steps)

    def reconstruction_error(self, batch):
        return ((batch - self.visible(self.hidden(batch))) ** 2).mean()


def binary_digits() -> np.ndarray:
    images = datasets.load_digits().data
    return (images > 7).astype(float)[: 50 * BATCH].reshape(50, BATCH, VISIBLE)


def test_reconstruction_error_falls():
    """An epoch is one loop over batches, with the Gibbs loop inside."""
    machine, batches = Machine(), binary_digits()
    epoch = jscan.function(
        lambda x, rate: jscan.scan(machine.train_batch, x, non_sequences=rate)
    )
    errors = [float(epoch(batches, 0.1).mean()) for _ in range(8)]
    assert errors[-1] < 0.6 * errors[0]
    assert errors[-1] < 0.1
    # Far better than the best guess that knows the mean image only.
    spread = ((batches - batches.mean((0, 1))) ** 2).mean()
    assert errors[-1] < 0.7 * spread
    assert set(np.unique(machine.chain.get_value())) == {0.0, 1.0}
    # Two draws a sweep, three sweeps a batch.
    assert machine.rng.state.value.counter == 8 * 50 * GIBBS * 2
