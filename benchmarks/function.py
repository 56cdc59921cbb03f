"""What does a call of `jscan.function` cost beyond the same program under `jax.jit`?

The programs are tiny, so that the call is all there is: the arguments are sorted, a
turn is taken, the new value stored. Differences are medians of pairs, one after the
other, so that a busy machine slows both.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp

import _timing
import jscan

HEADER = ("function", "jax.jit, a call", "jscan.function, a call", "difference")
CALLS, ROUNDS = 500, 41


def _update(donate: bool) -> tuple[Callable[[], object], Callable[[], object]]:
    """One variable, read and updated; the value goes from call to call under `jit`."""
    x, value = jnp.ones(()), [jnp.zeros(())]
    program = jax.jit(
        lambda w, x: (w * 2.0, w + x), donate_argnums=(0,) if donate else ()
    )

    def by_jit() -> object:
        output, value[0] = program(value[0], x)
        return output

    w = jscan.shared(jnp.zeros(()), name="w")
    call = jscan.function(lambda x: (w * 2.0, {w: w + x}), donate=donate)
    return by_jit, lambda: call(x)


def _read() -> tuple[Callable[[], object], Callable[[], object]]:
    x, value = jnp.ones(()), jnp.ones(())
    program = jax.jit(lambda w, x: w * x)
    w = jscan.shared(value, name="w")
    call = jscan.function(lambda x: w * x)
    return lambda: program(value, x), lambda: call(x)


PAIRS = {
    "reads and updates one variable": lambda: _update(donate=False),
    "the same, donate=True": lambda: _update(donate=True),
    "reads one variable": _read,
}


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    for _ in range(CALLS):
        call()
    return (time.perf_counter() - start) / CALLS


def rows(how: _timing.Settings) -> Iterator[list[str]]:
    """Measures the calls asked for."""
    for name, make in PAIRS.items():
        if not how.wants(name):
            continue
        pair = make()
        for call in pair:
            _seconds(call)
        times = [(_seconds(pair[0]), _seconds(pair[1])) for _ in range(ROUNDS)]
        plain, ours = (statistics.median(column) for column in zip(*times, strict=True))
        more = statistics.median(b - a for a, b in times)
        yield [name, *(f"{1e6 * seconds:.1f} us" for seconds in (plain, ours, more))]


if __name__ == "__main__":
    _timing.run_script(__doc__, HEADER, rows)
