"""What does a progress bar cost? The aim: at most 2% of a loop of about a second."""

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
    size, rounds = (16, 2) if quick else (384, 9)
    steps = 200 if quick else 20_000

    def loop(w: jax.Array, progress: object) -> jax.Array:
        return jscan.scan(
            lambda h, w: jnp.tanh(h @ w),
            None,
            jnp.ones(size),
            w,
            n_steps=steps,
            progress=progress,  # type: ignore[arg-type]
        ).outputs[-1]

    bar = dict(file=io.StringIO())
    w = jnp.eye(size) * 0.5
    plain, shown = (jax.jit(lambda w, p=p: loop(w, p)) for p in (False, bar))
    seconds(plain, w), seconds(shown, w)
    pairs = [(seconds(plain, w), seconds(shown, w)) for _ in range(rounds)]
    print(f"jax {jax.__version__}, {jax.devices()[0].platform}, {steps} steps")
    print(f"without: {statistics.median(a for a, _ in pairs):.3f} s")
    extra = statistics.median(b / a - 1 for a, b in pairs)
    print(f"with a bar: {100 * extra:+.1f}%")


if __name__ == "__main__":
    main()
