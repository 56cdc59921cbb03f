"""What does a loop cost that stops early?

Three questions, each the median of the ratios of rounds in which the programs took
turns: a loop that stops at 16 of 8192 steps beside one of 16 steps (at most 3 is the
aim), and value and gradient of the same loop beside a scan that masks the steps after
the stop (at least 10 is the aim).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp

import jscan

BOUND, STOP = 8192, 16


LIMIT = 0.95**STOP  # where a state that shrinks by 0.95 a step is after 16 steps


def stopping(h: jax.Array, w: jax.Array) -> jax.Array:
    """Stops when the state has become small."""

    def step(h, w):
        new = jnp.sin(h) * w
        return new, jscan.until(new[0] <= LIMIT / 2)

    return jscan.scan(step, None, h, w, n_steps=BOUND).outputs[-1].sum()


def stopping_last(h: jax.Array, w: jax.Array) -> jax.Array:
    """The same without the rows, of which `jit` would have to fill 8192."""

    def step(_, h, w):
        new = jnp.sin(h) * w
        return new, jscan.until(new[0] <= LIMIT / 2)

    return jscan.reduce(step, jnp.arange(BOUND), h, w).outputs.sum()


def short(h: jax.Array, w: jax.Array) -> jax.Array:
    """A loop of as many steps as `stopping` runs."""
    rows, _ = jscan.scan(lambda h, w: jnp.sin(h) * w, None, h, w, n_steps=STOP)
    return rows[-1].sum()


def masked(h: jax.Array, w: jax.Array) -> jax.Array:
    """What one writes without `until`: every step runs, later ones change nothing."""

    def step(carry, _):
        h, going = carry
        new = jnp.where(going, jnp.sin(h) * w, h)
        return (new, going & (new[0] > LIMIT / 2)), new

    start = (h, jnp.array(True))
    return jax.lax.scan(step, start, None, length=BOUND)[1][-1].sum()


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


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two rounds, no figures")
    rounds, calls = (2, 2) if parser.parse_args().quick else (9, 30)
    print(f"jax {jax.__version__}, {jax.devices()[0].platform}")
    print("state | question | first, us | second, us | ratio")
    for size in (1, 64):
        h, w = jnp.full(size, 0.5), jnp.full(size, 0.97)
        questions = {
            "eager until / 16 steps": (stopping, short, lambda f: f),
            "jit until / 16 steps": (stopping, short, jax.jit),
            "jit until, last row only / 16 steps": (stopping_last, short, jax.jit),
            "jit masked / until": (masked, stopping, jax.jit),
            "jit masked / until, last row only": (masked, stopping_last, jax.jit),
            "jit gradient masked / until": (
                masked,
                stopping,
                lambda f: jax.jit(jax.grad(f, (0, 1))),
            ),
            "jit gradient masked / until, last row only": (
                masked,
                stopping_last,
                lambda f: jax.jit(jax.grad(f, (0, 1))),
            ),
        }
        for question, (first, second, transform) in questions.items():
            programs = transform(first), transform(second)
            times = ratio(
                lambda f=programs[0], h=h, w=w: f(h, w),
                lambda f=programs[1], h=h, w=w: f(h, w),
                rounds,
                calls,
            )
            numbers = f"{1e6 * times[0]:.0f} | {1e6 * times[1]:.0f} | {times[2]:.1f}"
            print(f"{size} | {question} | {numbers}")


if __name__ == "__main__":
    main()
