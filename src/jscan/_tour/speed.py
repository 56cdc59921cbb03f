"""An LSTM over the sunspot record in plain `lax.scan`, before and after `optimize`."""

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import jscan
from jscan.data import sunspots

UNITS = 128


class Weights(NamedTuple):
    """What the network learns, in float32."""

    gates: jax.Array  # [1 + UNITS, 4 * UNITS], of an input and the last state
    bias: jax.Array  # [4 * UNITS]
    out: jax.Array  # [UNITS]


def loss(weights: Weights, series: jax.Array) -> jax.Array:
    """How far each year is from what the network expects after the year before."""

    def step(carry: tuple[jax.Array, jax.Array], x: jax.Array):
        h, c = carry
        gates = jnp.append(x, h) @ weights.gates + weights.bias
        take, keep, show, new = jnp.split(gates, 4)
        c = jax.nn.sigmoid(keep) * c + jax.nn.sigmoid(take) * jnp.tanh(new)
        h = jax.nn.sigmoid(show) * jnp.tanh(c)
        return (h, c), h @ weights.out

    nothing = jnp.zeros(UNITS, series.dtype)
    _, expected = lax.scan(step, (nothing, nothing), series[:-1])
    return jnp.mean((expected - series[1:]) ** 2)


def problem() -> tuple[Weights, jax.Array]:
    """Weights to begin with, and the record in hundreds of sunspots, `[309]`."""
    rng = np.random.default_rng(0)
    shapes = Weights((1 + UNITS, 4 * UNITS), (4 * UNITS,), (UNITS,))  # type: ignore
    drawn = [jnp.asarray(0.1 * rng.normal(size=s), jnp.float32) for s in shapes]
    return Weights(*drawn), jnp.asarray(sunspots().numbers / 100, jnp.float32)


class Times(NamedTuple):
    """Milliseconds of a gradient; how far the two are apart at most."""

    plain: float
    optimized: float
    difference: float
    turns: int


def measure(turns: int = 15) -> Times:
    """The medians of two programs that take turns."""
    arguments = problem()
    plain = jax.jit(jax.grad(loss))
    optimized = jax.jit(jscan.optimize(jax.grad(loss)))
    first, second = (
        np.hstack([x.ravel() for x in f(*arguments)]) for f in (plain, optimized)
    )
    times = [
        (_time(plain, arguments), _time(optimized, arguments)) for _ in range(turns)
    ]
    medians = [1e3 * statistics.median(column) for column in zip(*times, strict=True)]
    return Times(medians[0], medians[1], float(np.abs(first - second).max()), turns)


def _time(
    function: Callable[..., Weights], arguments: tuple[Weights, jax.Array]
) -> float:
    start = time.perf_counter()
    jax.block_until_ready(function(*arguments))
    return time.perf_counter() - start


def decisions() -> str:
    """What the optimizer did to the backward loop, in its own words."""
    report = jscan.explain(jax.grad(loss))(*problem())
    return str(report.loops[-1])
