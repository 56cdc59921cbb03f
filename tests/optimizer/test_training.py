"""Training steps of flax and haiku, unchanged but for `jscan.optimize`."""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jscan

optax = pytest.importorskip("optax", reason="trains with optax: extra oracles")
pytestmark = pytest.mark.oracles

STEPS, BATCH, UNITS = 40, 4, 16


@pytest.fixture(autouse=True)
def the_libraries_rules():
    """The libraries mix dtypes, which this project's tests forbid."""
    with jax.numpy_dtype_promotion("standard"), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def data():
    random = np.random.default_rng(0)
    xs = random.normal(size=(BATCH, STEPS, 6)).astype("float32")
    return jnp.asarray(xs), jnp.asarray(xs.sum((1, 2)))


def last_row(hidden):
    """The last output of a batch-major network."""
    return jnp.asarray(hidden)[:, -1]


def linen():
    """flax.linen: an RNN over an optimized LSTM cell, the last output read."""
    linen: Any = pytest.importorskip("flax.linen", reason="extra oracles")

    class Model(linen.Module):
        @linen.compact
        def __call__(self, xs):
            hidden = linen.RNN(linen.OptimizedLSTMCell(UNITS))(xs)
            return linen.Dense(1)(last_row(hidden))[:, 0]

    model = Model()
    xs, _ = data()
    return model.init(jax.random.key(1), xs), model.apply


def nnx():
    """flax.nnx: the same, as a function of its split state."""
    nnx: Any = pytest.importorskip("flax.nnx", reason="extra oracles")

    class Model(nnx.Module):
        def __init__(self, rngs):
            self.rnn = nnx.RNN(nnx.LSTMCell(6, UNITS, rngs=rngs))
            self.head = nnx.Linear(UNITS, 1, rngs=rngs)

        def __call__(self, xs):
            start = jnp.zeros((BATCH, UNITS)), jnp.zeros((BATCH, UNITS))
            return self.head(last_row(self.rnn(xs, initial_carry=start)))[:, 0]

    graph, parameters, rest = nnx.split(Model(nnx.Rngs(0)), nnx.Param, ...)
    return (
        parameters,
        lambda parameters, xs: nnx.merge(graph, parameters, rest)(xs),
    )


def haiku():
    """dm-haiku: a dynamic unroll of its LSTM."""
    hk: Any = pytest.importorskip("haiku", reason="extra oracles")

    def model(xs):
        core = hk.LSTM(UNITS)
        hidden, _ = hk.dynamic_unroll(core, xs, core.initial_state(BATCH), False)
        return hk.Linear(1)(last_row(hidden))[:, 0]

    pure = hk.without_apply_rng(hk.transform(model))
    xs, _ = data()
    return pure.init(jax.random.key(2), xs), pure.apply


@pytest.mark.parametrize(
    ("library", "around"),
    [(linen, "gradient"), (nnx, "gradient"), (haiku, "gradient"), (linen, "loss")],
)
def test_a_training_step_computes_the_same(library, around):
    parameters, apply = library()
    xs, ys = data()
    descent = optax.sgd(1e-2)

    def loss(parameters, xs, ys):
        return ((apply(parameters, xs) - ys) ** 2).mean()

    def trained(gradient, steps=3):
        @jax.jit
        def step(parameters, state, xs, ys):
            value, slope = gradient(parameters, xs, ys)
            updates, state = descent.update(slope, state, parameters)
            return optax.apply_updates(parameters, updates), state, value

        now, state, values = parameters, descent.init(parameters), []
        for _ in range(steps):
            now, state, value = step(now, state, xs, ys)
            values.append(float(value))
        return now, values

    if around == "gradient":
        fast = jscan.optimize(jax.value_and_grad(loss))
    else:
        fast = jax.value_and_grad(jscan.optimize(loss))
    expected, losses = trained(jax.value_and_grad(loss))
    got, fast_losses = trained(fast)
    np.testing.assert_allclose(fast_losses, losses, rtol=1e-4)
    assert losses[-1] < losses[0]
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("library", [linen, nnx, haiku])
def test_the_report_of_its_gradient_has_both_loops(library):
    parameters, apply = library()
    xs, ys = data()

    def loss(parameters):
        return ((apply(parameters, xs) - ys) ** 2).mean()

    report = jscan.explain(jax.grad(loss))(parameters)
    forward, backward = report.loops
    assert forward.steps == backward.steps == STEPS
    assert "hoist" in forward.fired
    assert forward.after.batched > forward.before.batched == 0
    assert backward.fired  # for so few units the sums may stay in the loop
