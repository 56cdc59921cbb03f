"""How do long lags run beside the window a user would write?

Without taps a user keeps the last rows in the carry and shifts them at every step,
which moves the whole window. Two kinds of loops: two lags (1 and p), and all lags from
1 to p. The state is a scalar or has 64 elements.
"""

from __future__ import annotations

from collections.abc import Iterator

import jax
import jax.numpy as jnp
from jax import lax

import _timing
import jscan
from workloads import Function
from workloads._registry import normal

HEADER = (
    "lags",
    "state",
    "pass",
    "window, a step",
    "window / jscan [quartiles]",
)

TWO_LAGS = (2, 8, 32, 128)
DENSE_LAGS = (4, 8, 32)


def two_lags_by_window(lag: int, shape: tuple[int, ...]) -> Function:
    """Lags 1 and `lag`, with the window in the carry."""

    def function(weights, xs):
        def step(window, x):
            y = jnp.tanh(weights[0] * window[-1] + weights[1] * window[0] + x)
            return jnp.concatenate([window[1:], y[None]]), y

        return lax.scan(step, jnp.zeros((lag, *shape)), xs)[1]

    return function


def two_lags_by_taps(lag: int, shape: tuple[int, ...]) -> Function:
    """Lags 1 and `lag`, as taps."""

    def function(weights, xs):
        def step(x, far, near):
            return jnp.tanh(weights[0] * near + weights[1] * far + x)

        initial = {"initial": jnp.zeros((lag, *shape)), "taps": [-lag, -1]}
        return jscan.scan(step, xs, initial)[0]

    return function


def dense_by_window(lags: int, shape: tuple[int, ...]) -> Function:
    """All lags from 1 to `lags`, as one product with the window."""

    def function(weights, xs):
        def step(window, x):
            y = jnp.tanh(jnp.tensordot(weights, window, 1) + x)
            return jnp.concatenate([window[1:], y[None]]), y

        return lax.scan(step, jnp.zeros((lags, *shape)), xs)[1]

    return function


def dense_by_taps(lags: int, shape: tuple[int, ...]) -> Function:
    """All lags from 1 to `lags`, as taps."""

    def function(weights, xs):
        def step(x, *rows):
            return jnp.tanh(sum(w * r for w, r in zip(weights, rows, strict=True)) + x)

        taps = list(range(-lags, 0))
        initial = {"initial": jnp.zeros((lags, *shape)), "taps": taps}
        return jscan.scan(step, xs, initial)[0]

    return function


def cost(function: Function) -> Function:
    """The gradient of the sum of squares for the weights."""
    return jax.grad(lambda weights, xs: jnp.sum(function(weights, xs) ** 2))


def programs() -> Iterator[tuple[str, tuple[int, ...], Function, Function, int]]:
    """Label, shape of the state, the window, the taps, and number of weights."""
    for shape in ((), (64,)):
        for lag in TWO_LAGS:
            window, taps = two_lags_by_window(lag, shape), two_lags_by_taps(lag, shape)
            yield f"1 and {lag}", shape, window, taps, 2
        for lags in DENSE_LAGS:
            window, taps = dense_by_window(lags, shape), dense_by_taps(lags, shape)
            yield f"1 to {lags}", shape, window, taps, lags


def rows(how: _timing.Settings) -> Iterator[list[str]]:
    """Measures the loops asked for."""
    length = 300 if how.quick else 4096
    for label, shape, window, taps, weights in programs():
        if not how.wants(f"{label} {shape}"):
            continue
        if how.quick and (shape == () or label not in ("1 and 128", "1 to 4")):
            continue
        arguments = (normal(weights, scale=0.1), normal(length, *shape))
        for direction in ("forward", "gradient"):
            by_window, by_taps = window, taps
            if direction == "gradient":
                by_window, by_taps = cost(window), cost(taps)
            baseline = _timing.build(by_window, arguments)
            timing = _timing.measure_pair(
                baseline, _timing.build(by_taps, arguments), how
            )
            seconds = timing.seconds * timing.ratio / length
            yield [
                label,
                str(shape),
                direction,
                _timing.duration(seconds),
                str(timing),
            ]


if __name__ == "__main__":
    _timing.run_script(__doc__, HEADER, rows)
