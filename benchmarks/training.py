"""How much faster is a training step of flax and haiku, unchanged but for `optimize`?

One step of gradient descent on an LSTM whose last output is read, batch-major as the
libraries have it: ``optimize(jax.value_and_grad(loss))`` beside the same without.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import _timing
from jscan import optimize

HEADER = ("library", "steps, rows, units", "plain", "plain / optimized", "MiB")
SHAPES = ((512, 1, 256), (256, 8, 128), (512, 8, 256), (128, 32, 128))
QUICK_SHAPES = ((12, 2, 8),)

Model = tuple[Any, Callable[[Any, jax.Array], jax.Array]]


def linen(shape: tuple[int, int, int]) -> Model:
    """`flax.linen.RNN` over its optimized LSTM cell."""
    from flax import linen

    class Network(linen.Module):
        @linen.compact
        def __call__(self, xs: jax.Array) -> jax.Array:
            hidden = linen.RNN(linen.OptimizedLSTMCell(shape[2]))(xs)
            return linen.Dense(1)(hidden[:, -1])[:, 0]

    network = Network()
    return network.init(jax.random.key(0), data(shape)[0]), network.apply  # type: ignore[return-value]


def haiku(shape: tuple[int, int, int]) -> Model:
    """Haiku's LSTM, unrolled by `dynamic_unroll`."""
    import haiku as hk

    def network(xs: jax.Array) -> jax.Array:
        core = hk.LSTM(shape[2])
        start = core.initial_state(shape[1])
        hidden, _ = hk.dynamic_unroll(core, xs, start, time_major=False)
        return hk.Linear(1)(hidden[:, -1])[:, 0]

    pure = hk.without_apply_rng(hk.transform(network))
    return pure.init(jax.random.key(0), data(shape)[0]), pure.apply


LIBRARIES = {"flax": linen, "haiku": haiku}


def data(shape: tuple[int, int, int]) -> tuple[jax.Array, jax.Array]:
    """Inputs ``[rows, steps, units]`` and what to predict."""
    steps, rows, units = shape
    xs = np.random.default_rng(0).normal(size=(rows, steps, units))
    return jnp.asarray(xs, "float32"), jnp.ones(rows)


def training_step(model: Model, wrap: Callable[[Any], Any]) -> Callable[..., Any]:
    """One step of gradient descent, its gradient wrapped."""
    _, apply = model

    def loss(parameters: Any, xs: jax.Array, ys: jax.Array) -> jax.Array:
        return ((apply(parameters, xs) - ys) ** 2).mean()

    gradient = wrap(jax.value_and_grad(loss))

    def step(parameters: Any, xs: jax.Array, ys: jax.Array) -> Any:
        value, slope = gradient(parameters, xs, ys)
        return value, jax.tree.map(lambda p, g: p - 0.01 * g, parameters, slope)

    return step


def rows(how: _timing.Settings) -> Iterator[list[str]]:
    """Measures every library at every shape."""
    for library, make in LIBRARIES.items():
        if importlib.util.find_spec(library) is None:
            continue
        for shape in QUICK_SHAPES if how.quick else SHAPES:
            name = ", ".join(map(str, shape))
            if not how.wants(f"{library} {name}"):
                continue
            model = make(shape)
            arguments = (model[0], *data(shape))
            plain, optimized = (
                _timing.build(training_step(model, wrap), arguments)
                for wrap in (lambda f: f, optimize)
            )
            timing = _timing.measure_pair(plain, optimized, how)
            temp = [_timing.mebibytes(p.temp_bytes) for p in (plain, optimized)]
            before = _timing.duration(timing.seconds * timing.ratio)
            yield [library, name, before, str(timing), " → ".join(temp)]
            jax.clear_caches()


if __name__ == "__main__":
    _timing.run_script(__doc__, HEADER, rows)
