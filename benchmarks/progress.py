"""What does a progress bar cost? The aim: at most 2% of a loop of about a second.

Runs with and without a bar take turns; the ratio is that of neighbours. Two programs
without a bar are compared the same way: what they differ by is the machine.
"""

from __future__ import annotations

import argparse
import io
import statistics
import time

import jax
import jax.numpy as jnp

import jscan


def seconds(run: object, *args: jax.Array) -> float:
    """One call on the wall."""
    start = time.perf_counter()
    jax.block_until_ready(run(*args))  # type: ignore[operator]
    jax.effects_barrier()
    return time.perf_counter() - start


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two rounds, no figures")
    quick = parser.parse_args().quick
    # Small steps, many of them: nothing hides what a report costs.
    sizes = {16: 200} if quick else {64: 2_000_000, 256: 300_000, 1024: 20_000}
    print(f"jax {jax.__version__}, {jax.devices()[0].platform}")
    print("state | steps | without, s | with a bar | two without")
    for size, steps in sizes.items():
        w = jnp.eye(size) * 0.5

        def loop(w: jax.Array, progress: object, steps: int = steps) -> jax.Array:
            return jscan.scan(
                lambda h, w: jnp.tanh(h @ w),
                None,
                jnp.ones(w.shape[0]),
                w,
                n_steps=steps,
                progress=progress,  # type: ignore[arg-type]
            ).outputs

        bar = dict(file=io.StringIO())
        runs = [jax.jit(lambda w, p=p: loop(w, p)) for p in (False, bar, False)]
        for run in runs:
            seconds(run, w)
        rounds = [[seconds(run, w) for run in runs] for _ in range(2 if quick else 11)]
        ratios = [
            100 * (statistics.median(r[k] / (r[0] + r[2]) * 2 for r in rounds) - 1)
            for k in (0, 1)
        ]
        base = statistics.median(r[0] for r in rounds)
        print(f"{size} | {steps} | {base:.2f} | {ratios[1]:+.1f}% | {ratios[0]:+.1f}%")


if __name__ == "__main__":
    main()
