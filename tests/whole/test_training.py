"""Training: gradients as updates, optax, an epoch as one loop, going on later."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jscan
from support.comparing import assert_close

optax = pytest.importorskip("optax", reason="trains with optax: extra oracles")

# optax mixes weak and strong types.
pytestmark = [pytest.mark.oracles, pytest.mark.usefixtures("standard_promotion")]

INPUTS = np.random.default_rng(0).normal(size=(6, 8, 3))
TARGETS = np.tanh(INPUTS @ np.array([1.0, -2.0, 0.5])) * 2.0 + 0.3


def new_parameters() -> jscan.SharedVariable:
    return jscan.shared({"W": jnp.zeros(3), "scale": 1.0, "b": 0.0}, name="params")


def predict(p, x):
    return jnp.tanh(x @ p["W"] + 0.1) * p["scale"] + p["b"]


def loss(p, x, y):
    return ((predict(p, x) - y) ** 2).mean()


def test_gradient_descent_written_as_updates():
    params = new_parameters()

    @jscan.function
    def train(x, y, rate=0.1):
        cost, slope = jscan.value_and_grad(lambda: loss(params.value, x, y), params)
        new = jax.tree.map(lambda p, g: p - rate * g, params.value, slope)
        return cost, {params: new}

    expected = new_parameters().value
    for x, y in zip(INPUTS, TARGETS, strict=True):
        cost, slope = jax.value_and_grad(loss)(expected, x, y)
        expected = jax.tree.map(lambda p, g: p - 0.1 * g, expected, slope)
        np.testing.assert_allclose(train(x, y), cost, 1e-10)
    assert_close(params.value, expected)


class Trainer:
    """One epoch as one loop over minibatches; parameters and optimizer are updated."""

    def __init__(self, params, state, rng) -> None:
        self.params, self.state, self.rng = params, state, rng
        self.optimizer = optax.adam(0.05)
        self.noise = rng.normal(size=TARGETS.shape[1:], std=0.01)
        self.epoch = jscan.function(self.run, donate=True)

    @classmethod
    def fresh(cls):
        params = new_parameters()
        state = jscan.shared(optax.adam(0.05).init(params.value), name="optimizer")
        return cls(params, state, jscan.RandomStreams(1))

    def step(self, x, y):
        cost, slope = jscan.value_and_grad(
            lambda: loss(self.params.value, x, y + self.noise), self.params
        )
        change, state = self.optimizer.update(slope, self.state.value)
        new = optax.apply_updates(self.params.value, change)
        return cost, {self.params: new, self.state: state}

    def run(self, x, y):
        return jscan.scan(self.step, sequences=[x, y])

    def epochs(self, count):
        return np.concatenate([self.epoch(INPUTS, TARGETS) for _ in range(count)])

    def variables(self):
        return self.params, self.state, self.rng


def test_an_epoch_is_one_loop_with_optax():
    """The same numbers as the usual loop over minibatches in Python."""
    costs = Trainer.fresh().epochs(3)
    optimizer = optax.adam(0.05)
    params = new_parameters().value
    state = optimizer.init(params)
    key = jax.random.key(1)
    expected = []
    for number in range(3 * len(INPUTS)):
        x, y = INPUTS[number % 6], TARGETS[number % 6]
        noise = 0.01 * jax.random.normal(jax.random.fold_in(key, number), y.shape)
        cost, slope = jax.value_and_grad(loss)(params, x, y + noise)
        change, state = optimizer.update(slope, state)
        params = optax.apply_updates(params, change)
        expected.append(cost)
    np.testing.assert_allclose(costs, expected, 1e-8)
    assert costs[-1] < costs[0] / 2


def test_going_on_after_pickling_is_as_not_stopping():
    trainer = Trainer.fresh()
    trainer.epochs(1)
    again = Trainer(*pickle.loads(pickle.dumps(trainer.variables())))
    np.testing.assert_array_equal(again.epochs(2), trainer.epochs(2))


def test_going_on_after_an_orbax_checkpoint_is_as_not_stopping(tmp_path):
    checkpoints = pytest.importorskip(
        "orbax.checkpoint", reason="checkpoints: extra oracles"
    )

    trainer = Trainer.fresh()
    trainer.epochs(1)
    params, state, rng = trainer.variables()
    values = {"params": params.value, "state": state.value, "rng": rng.state.value}
    with checkpoints.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "after-one", values)
        checkpointer.wait_until_finished()
        expected = trainer.epochs(2)

        again = Trainer.fresh()
        params, state, rng = again.variables()
        like = {"params": params.value, "state": state.value, "rng": rng.state.value}
        read = checkpointer.restore(tmp_path / "after-one", like)
    params.set_value(read["params"])
    state.set_value(read["state"])
    rng.state.set_value(read["rng"])
    np.testing.assert_array_equal(again.epochs(2), expected)
