"""What does a program cost that another thread runs?

XLA's CPU client runs a program in the thread that calls it if it counts fewer than a
thousand operations in it, of which the body of a loop counts once. Any other one it
hands over. Called again and again that takes little; where other work lies between
calls, or the other cores are busy, the thread has to be woken. With `--inline` JAX is
told not to do that (`jax_cpu_enable_async_dispatch`).
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
import time
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp

import _timing

HEADER = (
    "program",
    "operations",
    "again and again",
    "a busy neighbour",
    "after 0.5 ms",
)
PAUSE = 0.0005


def arithmetic(x: jax.Array) -> jax.Array:
    """Two operations a number."""
    return 1.5 * x + 0.5


def loop(x: jax.Array) -> jax.Array:
    """A thousand steps, of which one counts."""
    step = lambda state, _: (0.9 * state + 0.1, None)
    return jax.lax.scan(step, x[:8], None, length=1000)[0]


def both(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The same loop, and what has to be handed over."""
    return loop(x), arithmetic(x)


PROGRAMS: tuple[tuple[str, Callable[..., object], int], ...] = (
    ("arithmetic on 490 numbers", arithmetic, 490),
    ("arithmetic on 510 numbers", arithmetic, 510),
    ("a loop of 1,000 steps", loop, 510),
    ("both", both, 510),
)


def after_a_pause(call: Callable[[], object], calls: int) -> float:
    """Median seconds of a call before which the process slept."""
    seconds: list[float] = []
    for _ in range(calls):
        time.sleep(PAUSE)
        start = time.perf_counter()
        jax.block_until_ready(call())
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def rows(how: _timing.Settings) -> Iterator[tuple[str, ...]]:
    """Measures each program in the three ways."""
    busy = dataclasses.replace(how, busy=True)
    for name, function, size in PROGRAMS:
        if not how.wants(name):
            continue
        x = jnp.ones(size)
        program = _timing.build(function, (x,))
        compiled = jax.jit(function).lower(x).compile()
        count = compiled.cost_analysis()["flops"]
        times = [_timing.measure({name: program.call}, h)[name] for h in (how, busy)]
        paused = after_a_pause(program.call, 3 if how.quick else 200)
        seconds = (*(timing.seconds for timing in times), paused)
        yield name, f"{count:,.0f}", *map(_timing.duration, seconds)


def main() -> None:
    inline = "--inline" in sys.argv
    arguments = [a for a in sys.argv[1:] if a != "--inline"]
    jax.config.update("jax_cpu_enable_async_dispatch", not inline)
    how = _timing.settings(__doc__ or "", arguments)
    _timing.print_machine()
    _timing.table(HEADER, rows(how))


if __name__ == "__main__":
    main()
