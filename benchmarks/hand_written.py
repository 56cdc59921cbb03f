"""What does `jscan.scan` cost beside the lax.scan one would write by hand?

Loops without taps into the past, where nothing is to be gained by layout. Each is
written three times: by hand, with `jscan.scan`, and with `mode="FAST_COMPILE"`, which
leaves out the optimizer and shows the front end alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
from jax import lax

import _timing
import jscan
from workloads import Function
from workloads.networks import fused_lstm, rnn
from workloads.recurrences import cumulative_scalar, garch, smoothing
from workloads.tutorial import affine_map

HEADER = (
    "loop",
    "pass",
    "by hand",
    "by hand / jscan [quartiles]",
    "by hand / FAST_COMPILE",
    "build, by hand",
    "build, jscan",
    "build, FAST_COMPILE",
)


@dataclasses.dataclass(frozen=True)
class Pair:
    """One loop by hand and with `jscan.scan`.

    Attributes:
        by_hand: `by_hand(parameters, data)`, with `lax.scan`.
        with_jscan: The same from a mode.
        arguments: Parameters and data.
    """

    by_hand: Function
    with_jscan: Callable[[str], Function]
    arguments: tuple[object, object]


def _cumulative(length: int) -> Pair:
    def with_jscan(mode: str) -> Function:
        def function(scale, xs):
            def step(x, total):
                return total + scale * x

            start = jnp.float32(0)
            return jscan.scan(step, xs, start, mode=mode)[0]

        return function

    problem = cumulative_scalar(length)
    return Pair(problem.function, with_jscan, problem.arguments)


def _smoothing(length: int) -> Pair:
    def with_jscan(mode: str) -> Function:
        def function(logit, xs):
            decay = jax.nn.sigmoid(logit)

            def step(x, level):
                error = x - level
                return level + decay * error, error

            return jscan.scan(step, xs, [jnp.zeros(64), None], mode=mode)[0][1]

        return function

    problem = smoothing(length)
    return Pair(problem.function, with_jscan, problem.arguments)


def _garch(length: int) -> Pair:
    def with_jscan(mode: str) -> Function:
        def function(parameters, returns):
            def step(r, variance, omega, alpha, beta):
                variance = omega + alpha * r * r + beta * variance
                return variance, jnp.log(variance) + r * r / variance

            start = [jnp.float32(1.0), None]
            return jscan.scan(step, returns, start, parameters, mode=mode)[0][1]

        return function

    problem = garch(length)
    return Pair(problem.function, with_jscan, problem.arguments)


def _map(length: int) -> Pair:
    def with_jscan(mode: str) -> Function:
        def function(parameters, xs):
            def step(x, weight, bias):
                return jnp.tanh(x @ weight + bias)

            return jscan.map(step, xs, parameters, mode=mode)[0]

        return function

    problem = affine_map(length)
    return Pair(problem.function, with_jscan, problem.arguments)


def _rnn(length: int) -> Pair:
    def with_jscan(mode: str) -> Function:
        def function(parameters, xs):
            def step(x, h, read, recur, bias):
                return jnp.tanh(x @ read + h @ recur + bias)

            start = jnp.zeros((8, 128))
            return jscan.scan(step, xs, start, parameters, mode=mode)[0]

        return function

    problem = rnn(length, 8, 128)
    return Pair(problem.function, with_jscan, problem.arguments)


def _lstm(length: int) -> Pair:
    def with_jscan(mode: str) -> Function:
        def function(parameters, xs):
            def step(x, h, c, read, recur, bias):
                gates = x @ read + h @ recur + bias
                take, keep, fresh, show = jnp.split(gates, 4, -1)
                c = jax.nn.sigmoid(keep) * c + jax.nn.sigmoid(take) * jnp.tanh(fresh)
                return jax.nn.sigmoid(show) * jnp.tanh(c), c

            zeros = jnp.zeros((8, 128))
            return jscan.scan(step, xs, [zeros, zeros], parameters, mode=mode)[0][0]

        return function

    problem = fused_lstm(length, 8, 128)
    return Pair(problem.function, with_jscan, problem.arguments)


def _counted(length: int) -> Pair:
    def by_hand(scale, start):
        def step(state, _):
            state = jnp.sin(scale * state)
            return state, state

        return lax.scan(step, start, None, length=length)[1]

    def with_jscan(mode: str) -> Function:
        def function(scale, start):
            def step(state):
                return jnp.sin(scale * state)

            return jscan.scan(step, outputs_info=start, n_steps=length, mode=mode)[0]

        return function

    return Pair(by_hand, with_jscan, (jnp.full(16, 0.9), jnp.ones(16)))


LOOPS: dict[str, tuple[Callable[[int], Pair], int]] = {
    "cumulative sum, scalar": (_cumulative, 50_000),
    "exponential smoothing, (64,)": (_smoothing, 10_000),
    "GARCH(1,1)": (_garch, 50_000),
    "map tanh(x @ W + b)": (_map, 10_000),
    "counted loop, (16,)": (_counted, 10_000),
    "rnn, 8 rows, 128 wide": (_rnn, 256),
    "fused lstm, 8 rows, 128 wide": (_lstm, 128),
}


def cost(function: Function) -> Function:
    """The gradient of the sum of squares of an array result."""
    return jax.grad(lambda parameters, data: jnp.sum(function(parameters, data) ** 2))


def rows(how: _timing.Settings) -> Iterator[list[str]]:
    """Measures the loops asked for."""
    for name, (make, length) in LOOPS.items():
        if not how.wants(name):
            continue
        pair = make(16 if how.quick else length)
        for direction in ("forward", "gradient"):
            functions = {
                "by hand": pair.by_hand,
                "jscan": pair.with_jscan("FAST_RUN"),
                "FAST_COMPILE": pair.with_jscan("FAST_COMPILE"),
            }
            if direction == "gradient":
                functions = {key: cost(f) for key, f in functions.items()}
            # The first program of a process pays for more than its own build.
            _timing.build(functions["by hand"], pair.arguments)
            jax.clear_caches()
            programs = {
                key: _timing.build(function, pair.arguments)
                for key, function in functions.items()
            }
            calls = {key: program.call for key, program in programs.items()}
            timings = _timing.measure(calls, how)
            yield [
                name,
                direction,
                _timing.duration(timings["by hand"].seconds),
                str(timings["jscan"]),
                str(timings["FAST_COMPILE"]),
                *[_timing.duration(p.build_seconds) for p in programs.values()],
            ]


if __name__ == "__main__":
    _timing.run_script(__doc__, HEADER, rows)
