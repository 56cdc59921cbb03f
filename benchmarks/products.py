"""How fast are the small products of a vector and a matrix that a step does?

A loop adds up squared errors of a linear model, row by row, or hands out what the
model says: the matrix as a user has it, by columns (`x @ W`) or by rows (`W @ x`), of
many sizes. Beside plain JAX stand `optimize` and the product of all rows at once. Which
way is fastest differs by the size alone, up to 10 times.
"""

from __future__ import annotations

from collections.abc import Iterator

import jax
import jax.numpy as jnp

import _timing
from jscan import optimize
from workloads import Function
from workloads._registry import normal

HEADER = (
    "loop",
    "numbers x results",
    "plain, a step",
    "plain / optimize [quartiles]",
    "plain / at once [quartiles]",
)

NUMBERS, RESULTS = (8, 12, 16, 24, 32, 40, 68, 130), (2, 3, 5, 8, 12, 16, 24)


def programs(by_rows: bool) -> dict[str, tuple[Function, Function | None]]:
    """Loops of a matrix, inputs and targets, and the same at once, if that can be."""

    def multiply(w, x):
        return w @ x if by_rows else x @ w

    def of_all(w, xs):
        return xs @ (w.T if by_rows else w)

    def summed(w, xs, ys):
        error = lambda x, y: multiply(w, x) - y
        add = lambda total, row: (total + (error(*row) ** 2).sum(), None)
        return jax.lax.scan(add, jnp.float32(0), (xs, ys))[0]

    def mapped(w, xs, ys):
        step = lambda _, row: (0, jnp.maximum(multiply(w, row[0]) - row[1], 0))
        return jax.lax.scan(step, 0, (xs, ys))[1]

    def waiting(w, xs, ys):
        def step(x, row):
            return jnp.resize(jnp.tanh(multiply(w, x) + row[1]), x.shape) + row[0], None

        return jax.lax.scan(step, xs[0], (xs, ys))[0]

    return {
        "errors": (summed, lambda w, xs, ys: ((of_all(w, xs) - ys) ** 2).sum()),
        "rows": (mapped, lambda w, xs, ys: jnp.maximum(of_all(w, xs) - ys, 0)),
        "of the state": (waiting, None),
    }


def rows(how: _timing.Settings) -> Iterator[list[str]]:
    """Measures the products asked for."""
    steps = 300 if how.quick else 1000
    sizes = [(n, k) for n in NUMBERS for k in RESULTS]
    for text, by_rows in (("x @ W", False), ("W @ x", True)):
        for label, (loop, at_once) in programs(by_rows).items():
            for numbers, results in sizes[8:9] if how.quick else sizes:
                name = f"{label}, {text}"
                if not how.wants(f"{name} {numbers} x {results}"):
                    continue
                shape = (results, numbers) if by_rows else (numbers, results)
                xs, ys = normal(steps, numbers), normal(steps, results)
                arguments = (normal(*shape, scale=numbers**-0.5), xs, ys)
                plain = _timing.build(loop, arguments)
                timings = [
                    _timing.measure_pair(plain, _timing.build(one, arguments), how)
                    for one in (optimize(loop), at_once)
                    if one is not None
                ]
                step = timings[0].seconds * timings[0].ratio / steps
                ratios = [str(timing) for timing in timings]
                yield [
                    *(name, f"{numbers} x {results}", _timing.duration(step)),
                    *(ratios if at_once else [*ratios, "-"]),
                ]


if __name__ == "__main__":
    _timing.run_script(__doc__, HEADER, rows)
