"""What does a loop cost that stops early?

A loop that stops at 16 of 8192 steps beside one of 16 steps (at most 3 is the aim), and
its gradient beside that of a scan that masks the steps after the stop (at least 10 is
the aim). Each figure is the median of the ratios of rounds in which the programs took
turns.

Under `jit` a loop returns all 8192 rows, held after the stop, so a program that reads
them all has to write them: "rows alone" is what JAX needs to write as many zeros, and
"by hand" is a `while_loop` with a derivative written for it, which holds rows as well.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import jscan

BOUND, STOP = 8192, 16

Loop = Callable[[jax.Array, jax.Array], jax.Array]


def advance(h: jax.Array, w: jax.Array) -> jax.Array:
    """One step of a scalar or of a vector state."""
    return jnp.tanh(h @ w) * 0.999 if w.ndim == 2 else 0.999 * jnp.tanh(w * h + 0.1)


def stopping(h: jax.Array, w: jax.Array) -> Any:
    """Stops after 16 steps, which nobody knows before."""

    def step(i: jax.Array, h: jax.Array, w: jax.Array) -> Any:
        return advance(h, w), jscan.until(i + 1 >= STOP)

    return jscan.scan(step, jnp.arange(BOUND), h, w)


def rows_of(h: jax.Array, w: jax.Array) -> jax.Array:
    """All rows of `stopping`."""
    return stopping(h, w).outputs


def last_of(h: jax.Array, w: jax.Array) -> jax.Array:
    """The last row alone: nothing has to be filled."""

    def step(i: jax.Array, h: jax.Array, w: jax.Array) -> Any:
        return advance(h, w), jscan.until(i + 1 >= STOP)

    return jscan.reduce(step, jnp.arange(BOUND), h, w).outputs


def short(h: jax.Array, w: jax.Array) -> jax.Array:
    """A loop of as many steps as `stopping` runs."""
    return jscan.scan(advance, None, h, w, n_steps=STOP).outputs


def short_lax(h: jax.Array, w: jax.Array) -> jax.Array:
    """The same by hand."""
    return jax.lax.scan(lambda h, _: (advance(h, w),) * 2, h, None, length=STOP)[1]


def rows_alone(h: jax.Array, w: jax.Array) -> jax.Array:
    """As many rows, without a loop."""
    return jnp.zeros((BOUND, *h.shape), h.dtype)


def masked(h: jax.Array, w: jax.Array) -> jax.Array:
    """What one writes without `until`: every step runs, later ones change nothing."""

    def step(carry: Any, i: jax.Array) -> Any:
        h, done = carry
        new = jnp.where(done, h, advance(h, w))
        return (new, done | (i + 1 >= STOP)), new

    start = (h, jnp.array(False))
    return jax.lax.scan(step, start, jnp.arange(BOUND))[1]


def masked_last(h: jax.Array, w: jax.Array) -> jax.Array:
    """Its last row."""
    return masked(h, w)[-1]


@jax.custom_vjp
def by_hand(h: jax.Array, w: jax.Array) -> jax.Array:
    """What an expert writes for this one loop, rows held as `jscan.scan` does."""
    return _run_by_hand(h, w)[0]


def _run_by_hand(h: jax.Array, w: jax.Array) -> tuple[jax.Array, jax.Array]:
    def more(state: Any) -> jax.Array:
        i, _, _, done = state
        return (i < BOUND) & ~done

    def step(state: Any) -> Any:
        i, h, rows, _ = state
        h = advance(h, w)
        rows = jax.lax.dynamic_update_index_in_dim(rows, h, i, 0)
        return i + 1, h, rows, i + 1 >= STOP

    start = (jnp.int32(0), h, jnp.zeros((BOUND, *h.shape), h.dtype), jnp.array(False))
    n, last, rows, _ = jax.lax.while_loop(more, step, start)
    ran = (jnp.arange(BOUND) < n).reshape(-1, *[1] * h.ndim)
    return jnp.where(ran, rows, last), n


def _forward_by_hand(h: jax.Array, w: jax.Array) -> Any:
    rows, n = _run_by_hand(h, w)
    return rows, (h, w, rows, n)


def _backward_by_hand(kept: Any, slopes: jax.Array) -> tuple[jax.Array, jax.Array]:
    start, w, rows, n = kept
    ran = (jnp.arange(BOUND) < n).reshape(-1, *[1] * start.ndim)
    held = jnp.where(ran, 0, slopes).sum(axis=0)  # all those rows are the last one

    def step(state: Any) -> Any:
        i, slope_h, slope_w = state
        slope_h += jax.lax.dynamic_index_in_dim(slopes, i, 0, False)
        before = jax.lax.dynamic_index_in_dim(rows, jnp.maximum(i - 1, 0), 0, False)
        _, back = jax.vjp(advance, jnp.where(i > 0, before, start), w)
        slope_h, more = back(slope_h)
        return i - 1, slope_h, slope_w + more

    state = (n - 1, held, jnp.zeros_like(w))
    return jax.lax.while_loop(lambda s: s[0] >= 0, step, state)[1:]


by_hand.defvjp(_forward_by_hand, _backward_by_hand)


def cost(loop: Loop) -> Loop:
    """The sum of the squares of the executed rows, as a function to differentiate."""

    def total(h: jax.Array, w: jax.Array) -> jax.Array:
        squares = loop(h, w) ** 2
        if squares.ndim == h.ndim:
            return squares.sum()
        ran = jnp.arange(len(squares)) < STOP
        return jnp.where(ran.reshape(-1, *[1] * h.ndim), squares, 0).sum()

    return total


def gradient(loop: Loop) -> Any:
    """The gradient of `cost`, compiled."""
    return jax.jit(jax.grad(cost(loop), (0, 1)))


def ratio(
    first: Callable[[], object], second: Callable[[], object], rounds: int, calls: int
) -> tuple[float, float, float]:
    """Median seconds of both, and the median of the rounds' ratios."""

    def turn(call: Callable[[], object]) -> float:
        start = time.perf_counter()
        for _ in range(calls):
            jax.block_until_ready(call())
        return (time.perf_counter() - start) / calls

    turn(first), turn(second)
    pairs = [(turn(first), turn(second)) for _ in range(rounds)]
    ratios = statistics.median(a / b for a, b in pairs)
    return (*(statistics.median(p) for p in zip(*pairs, strict=True)), ratios)


QUESTIONS: dict[str, tuple[Any, Any]] = {
    "eager until / 16 steps": (rows_of, short),
    "jit until, rows / 16 steps": (jax.jit(rows_of), jax.jit(short_lax)),
    "jit rows alone / 16 steps": (jax.jit(rows_alone), jax.jit(short_lax)),
    "jit until, last row / 16 steps": (jax.jit(last_of), jax.jit(short_lax)),
    "jit masked / until, rows": (jax.jit(masked), jax.jit(rows_of)),
    "jit masked / until, last row": (jax.jit(masked_last), jax.jit(last_of)),
    "gradient masked / until, rows": (gradient(masked), gradient(rows_of)),
    "gradient masked / by hand, rows": (gradient(masked), gradient(by_hand)),
    "gradient masked / until, last row": (gradient(masked_last), gradient(last_of)),
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two rounds, no figures")
    rounds, calls = (2, 2) if parser.parse_args().quick else (15, 30)
    print(f"jax {jax.__version__}, {jax.devices()[0].platform}")
    print("state | question | first, us | second, us | ratio")
    states = {
        "scalar": (jnp.float32(0.5), jnp.float32(1.1)),
        "(64,)": (jnp.full(64, 0.5), jnp.eye(64) * 1.1 + 0.001),
    }
    for name, state in states.items():
        for question, (first, second) in QUESTIONS.items():
            times = ratio(
                lambda f=first, s=state: f(*s),
                lambda f=second, s=state: f(*s),
                rounds,
                calls,
            )
            numbers = f"{1e6 * times[0]:.0f} | {1e6 * times[1]:.0f} | {times[2]:.1f}"
            print(f"{name} | {question} | {numbers}")


if __name__ == "__main__":
    main()
