"""Truncated backpropagation through time on the sunspots: the gradients of torch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jscan
from jscan.data import sunspots

torch = pytest.importorskip(
    "torch", reason="torch cannot be installed here: nothing to compare gradients with"
)
pytestmark = [pytest.mark.oracles, pytest.mark.any_jax]

HIDDEN, KEPT = 6, 12
SERIES = sunspots().numbers[:80] / 100.0


def weights():
    draw = np.random.default_rng(0).normal
    shapes = dict(inputs=(HIDDEN,), hidden=(HIDDEN, HIDDEN), bias=(HIDDEN,))
    return {
        name: 0.4 * draw(size=shape)
        for name, shape in {**shapes, "readout": (HIDDEN,)}.items()
    }


def cost(w, kept=KEPT):
    """The squared error of predicting each year from those before."""

    def step(x, h):
        return jnp.tanh(w["inputs"] * x + w["hidden"] @ h + w["bias"])

    rows, _ = jscan.scan(step, SERIES[:-1], jnp.zeros(HIDDEN), truncate_gradient=kept)
    return ((rows @ w["readout"] - SERIES[1:]) ** 2).mean()


def torch_gradient():
    """The head of the series without a graph, the last steps with one."""
    w = {name: torch.tensor(v, requires_grad=True) for name, v in weights().items()}
    h, rows, steps = torch.zeros(HIDDEN, dtype=torch.float64), [], len(SERIES) - 1
    for step, x in enumerate(SERIES[:-1]):
        with torch.set_grad_enabled(step >= steps - KEPT):
            h = torch.tanh(w["inputs"] * x + w["hidden"] @ h + w["bias"])
        rows.append(h)
    error = torch.stack(rows) @ w["readout"] - torch.tensor(SERIES[1:])
    (error**2).mean().backward()
    return {name: value.grad.numpy() for name, value in w.items()}


def test_gradient_is_that_of_detached_states():
    gradient = jax.jit(jax.grad(cost))(jax.tree.map(jnp.asarray, weights()))
    for name, expected in torch_gradient().items():
        np.testing.assert_allclose(gradient[name], expected, 1e-9, 1e-12, err_msg=name)


def test_training_lowers_the_error():
    w = jax.tree.map(jnp.asarray, weights())
    slope = jax.jit(jax.value_and_grad(cost))
    costs = []
    for _ in range(150):
        value, gradient = slope(w)
        costs.append(float(value))
        w = jax.tree.map(lambda a, g: a - 0.1 * g, w, gradient)
    assert costs[-1] < 0.6 * costs[0]
