"""A tanh RNN and an LSTM on the sunspot record: gradients equal those of torch."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
import pytest

import jscan

torch = pytest.importorskip(
    "torch", reason="torch cannot be installed here: nothing to compare gradients with"
)
sunspots = pytest.importorskip(
    "statsmodels.datasets.sunspots", reason="data of statsmodels: extra oracles"
)
pytestmark = [pytest.mark.oracles, pytest.mark.any_jax]

HIDDEN, STEPS = 8, 60
GATES = {"RNN": 1, "LSTM": 4}


def record() -> np.ndarray:
    """Yearly sunspot numbers, scaled to about one: ``[309]``."""
    return sunspots.load_pandas().data["SUNACTIVITY"].to_numpy() / 100.0


class Model:
    """A recurrent network of torch, and its weights as shared variables."""

    def __init__(self, kind: str) -> None:
        torch.manual_seed(0)
        self.kind = kind
        self.layer = getattr(torch.nn, kind)(1, HIDDEN, dtype=torch.float64)
        self.head = torch.nn.Linear(HIDDEN, 1, dtype=torch.float64)
        self.modules = [*self.layer.parameters(), *self.head.parameters()]
        names = ["W_in", "W", "b_in", "b", "W_out", "b_out"]
        self.weights = {
            name: jscan.shared(part.detach().numpy(), name=name)
            for name, part in zip(names, self.modules, strict=True)
        }

    def torch_gradients(self, x: np.ndarray) -> tuple[float, list[np.ndarray]]:
        inputs = torch.tensor(x[:-1, None, None])
        rows, _ = self.layer(inputs)
        error = self.head(rows)[:, 0, 0] - torch.tensor(x[1:])
        cost = (error**2).mean()
        cost.backward()
        return cost.item(), [part.grad.numpy() for part in self.modules]

    def cost(self, x: np.ndarray) -> jnp.ndarray:
        """One-step-ahead squared error, by `scan`."""
        step: Callable = getattr(self, self.kind.lower())
        start = [jnp.zeros(HIDDEN)] * (2 if self.kind == "LSTM" else 1)
        outputs, _ = jscan.scan(step, x[:-1], outputs_info=start, return_list=True)
        w = self.weights
        prediction = outputs[0] @ w["W_out"][0] + w["b_out"]
        return ((prediction - x[1:]) ** 2).mean()

    def rnn(self, x, h):
        w = self.weights
        return jnp.tanh(w["W_in"][:, 0] * x + w["b_in"] + w["W"] @ h + w["b"])

    def lstm(self, x, h, c):
        w = self.weights
        gates = w["W_in"][:, 0] * x + w["b_in"] + w["W"] @ h + w["b"]
        take, forget, new, give = jnp.split(gates, 4)
        c = sigmoid(forget) * c + sigmoid(take) * jnp.tanh(new)
        return [sigmoid(give) * jnp.tanh(c), c]


def sigmoid(x):
    return 0.5 * (jnp.tanh(0.5 * x) + 1.0)


@pytest.mark.parametrize("kind", GATES)
def test_gradients_equal_those_of_torch(kind):
    x = record()[:STEPS]
    model = Model(kind)
    expected, slopes = model.torch_gradients(x)
    f = jscan.function(
        lambda x: jscan.value_and_grad(
            lambda: model.cost(x), list(model.weights.values())
        )
    )
    value, gradients = f(x)
    np.testing.assert_allclose(value, expected, 1e-10)
    for name, mine, theirs in zip(model.weights, gradients, slopes, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-5, err_msg=name)
        np.testing.assert_allclose(mine, theirs, rtol=1e-7, atol=1e-12, err_msg=name)


def test_training_follows_torch():
    """Ten steps of gradient descent, as updates of shared variables."""
    x = record()[:STEPS]
    model = Model("RNN")
    variables = list(model.weights.values())

    @jscan.function
    def train(x):
        cost, slopes = jscan.value_and_grad(lambda: model.cost(x), variables)
        return cost, {v: v - 0.05 * g for v, g in zip(variables, slopes, strict=True)}

    optimizer = torch.optim.SGD(model.modules, lr=0.05)
    for _ in range(10):
        optimizer.zero_grad()
        expected, _ = model.torch_gradients(x)
        optimizer.step()
        np.testing.assert_allclose(train(x), expected, 1e-8)
