"""What does a scan cost when it is called eagerly, with a fresh lambda each time?

That is how a notebook calls it: no `jit`, and the step is defined anew in each call.
`lax.scan` compiles again for every new function object. `jscan.scan` looks the program
up by what was traced.
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
from workloads.networks import rnn

HEADER = (
    "loop",
    "lax.scan, a call",
    "jscan.scan, a call",
    "lax.scan / jscan.scan [quartiles]",
)


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two functions without arguments that define their step at each call."""

    lax: Callable[[], object]
    jscan: Callable[[], object]


def _scalar() -> Pair:
    xs = jnp.linspace(0.0, 1.0, 100)
    start = jnp.float32(0)

    def by_lax() -> object:
        def step(total, x):
            total = total + x
            return total, total

        return lax.scan(step, start, xs)[1]

    return Pair(by_lax, lambda: jscan.scan(lambda x, t: t + x, xs, start)[0])


def _closure() -> Pair:
    xs = jnp.ones((100, 32))
    weight = 0.1 * jnp.eye(32)
    start = jnp.zeros(32)

    def by_lax() -> object:
        def step(h, x):
            h = jnp.tanh(x + h @ weight)
            return h, h

        return lax.scan(step, start, xs)[1]

    def by_jscan() -> object:
        return jscan.scan(lambda x, h: jnp.tanh(x + h @ weight), xs, start)[0]

    return Pair(by_lax, by_jscan)


def _network() -> Pair:
    problem = rnn(64, 8, 64)
    (read, recur, bias), xs = problem.parameters, problem.data
    start = jnp.zeros((8, 64))

    def by_jscan() -> object:
        def step(x, h):
            return jnp.tanh(x @ read + h @ recur + bias)

        return jscan.scan(step, xs, start)[0]

    return Pair(lambda: problem.function(*problem.arguments), by_jscan)


def _gradient() -> Pair:
    xs = jnp.ones((100, 32))
    start = jnp.zeros(32)

    def by_lax(scale) -> jax.Array:
        def step(h, x):
            h = jnp.tanh(scale * h + x)
            return h, h

        return jnp.sum(lax.scan(step, start, xs)[1])

    def by_jscan(scale) -> jax.Array:
        return jnp.sum(jscan.scan(lambda x, h: jnp.tanh(scale * h + x), xs, start)[0])

    scale = jnp.full(32, 0.5)

    def fresh(function: Function) -> Callable[[], object]:
        return lambda: jax.grad(lambda s: function(s))(scale)

    return Pair(fresh(by_lax), fresh(by_jscan))


LOOPS: dict[str, Callable[[], Pair]] = {
    "sum of scalars, 100 steps": _scalar,
    "closed-over matrix, 100 steps": _closure,
    "rnn, 8 rows, 64 wide, 64 steps": _network,
    "gradient, (32,), 100 steps": _gradient,
}


def rows(how: _timing.Settings) -> Iterator[list[str]]:
    """Measures the loops asked for."""
    for name, make in LOOPS.items():
        if not how.wants(name):
            continue
        pair = make()
        timings = _timing.measure({"lax": pair.lax, "jscan": pair.jscan}, how)
        yield [
            name,
            _timing.duration(timings["lax"].seconds),
            _timing.duration(timings["jscan"].seconds),
            str(timings["jscan"]),
        ]


if __name__ == "__main__":
    _timing.run_script(__doc__, HEADER, rows)
