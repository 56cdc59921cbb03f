"""What does a progress bar cost? The aim: at most 2% of a loop of about a second.

Runs with and without a bar take turns; the ratio is that of neighbours. Two programs
without a bar are compared the same way: what they differ by is the machine.
"""

from __future__ import annotations

import argparse
import functools
import io
import statistics
import time
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

import jscan

Case: TypeAlias = Callable[..., jax.Array]


def seconds(run: object, *args: jax.Array, calls: int = 3) -> float:
    """A call on the wall.

    Several in a row, because a program without callbacks is ready before the memory it
    worked in is given back (5% of a gradient that works in 200 MB), and one with
    callbacks is waited for until after.
    """
    start = time.perf_counter()
    for _ in range(calls):
        jax.block_until_ready(run(*args))  # type: ignore[operator]
    jax.effects_barrier()
    return (time.perf_counter() - start) / calls


def scalar_steps(steps: int) -> tuple[Case, tuple[jax.Array, ...]]:
    """The shortest steps there are, about ten nanoseconds."""

    def run(progress: Any, a: jax.Array) -> jax.Array:
        return jscan.scan(
            lambda h, a: jnp.sin(a * h) + 1,
            None,
            jnp.ones(()),
            a,
            n_steps=steps,
            progress=progress,
        ).outputs

    return run, (jnp.float32(0.5),)


def tanh_steps(size: int, steps: int) -> tuple[Case, tuple[jax.Array, ...]]:
    """Small steps, many of them: nothing hides what a report costs.

    One number a step is kept: a gigabyte of rows costs more, and less evenly, to be
    found and given back than any bar.
    """

    def step(h: jax.Array, w: jax.Array) -> tuple[jax.Array, jax.Array]:
        h = jnp.tanh(h @ w)
        return h, h[0]

    def run(progress: Any, w: jax.Array) -> jax.Array:
        start = [jnp.ones(size), None]
        return jscan.scan(
            step, None, start, w, n_steps=steps, progress=progress
        ).outputs[1]

    return run, (jnp.eye(size) * 0.5,)


def gru_steps(size: int, steps: int) -> tuple[Case, tuple[jax.Array, ...]]:
    """A loop the optimizer changes: the bar must not keep it from doing so."""
    keys = jax.random.split(jax.random.key(0), 3)
    w, u = (jax.random.normal(k, (size, 3 * size)) * 0.05 for k in keys[:2])
    x = jax.random.normal(keys[2], (steps, size))

    def step(x: jax.Array, h: jax.Array, w: jax.Array, u: jax.Array) -> jax.Array:
        a, b = x @ u, h @ w
        r, z = jax.nn.sigmoid(a[: 2 * size] + b[: 2 * size]).reshape(2, size)
        return (1 - z) * jnp.tanh(a[2 * size :] + r * b[2 * size :]) + z * h

    def run(progress: Any, w: jax.Array, u: jax.Array, x: jax.Array) -> jax.Array:
        h = jnp.zeros(size)
        return jscan.scan(step, x, h, (w, u), progress=progress).outputs

    return run, (w, u, x)


def gradient(case: Case) -> Case:
    """The gradient by the first array."""
    return jax.grad(lambda w, p, *rest: (case(p, w, *rest) ** 2).mean())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two rounds, no figures")
    quick = parser.parse_args().quick
    few = 200 if quick else 0
    gru, arrays = gru_steps(16 if quick else 128, few or 200_000)
    short, few_arrays = gru_steps(16 if quick else 128, few or 90_000)
    cases: dict[str, tuple[Case, tuple[jax.Array, ...]]] = {
        "sin(a * h) + 1": scalar_steps(few or 60_000_000),
        "tanh(h @ w), 64": tanh_steps(64, few or 7_000_000),
        "tanh(h @ w), 256": tanh_steps(256, few or 350_000),
        "tanh(h @ w), 1024": tanh_steps(16 if quick else 1024, few or 25_000),
        "GRU, 128": (gru, arrays),
        "GRU, 128, gradient": (
            lambda p, w, *rest: gradient(short)(w, p, *rest),
            few_arrays,
        ),
    }
    print(f"jax {jax.__version__}, {jax.devices()[0].platform}")
    print("loop | without, s | with a bar | two without")
    for name, (case, args) in cases.items():
        bar = dict(file=io.StringIO())
        runs = [jax.jit(functools.partial(case, p)) for p in (False, bar, False)]
        for run in runs:
            seconds(run, *args, calls=1)
        rounds = [
            [seconds(run, *args) for run in runs] for _ in range(2 if quick else 9)
        ]
        ratios = [
            100 * (statistics.median(r[k] / (r[0] + r[2]) * 2 for r in rounds) - 1)
            for k in (0, 1)
        ]
        base = statistics.median(r[0] for r in rounds)
        print(
            f"{name} | {base:.2f} | {ratios[1]:+.1f}% | {ratios[0]:+.1f}%", flush=True
        )


if __name__ == "__main__":
    main()
