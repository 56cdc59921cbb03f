"""Is anything slower with `jscan.optimize` than without?

Runs every workload, forward and gradient, as it is and optimized, and compares each
ratio with the least that is asked of the row: 0.95 ("never slower") or more.
"""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Iterator

import jax
import numpy as np

import _timing
from jscan import optimize
from workloads import NEVER_SLOWER, WORKLOADS, Function, Workload

HEADER = (
    "workload",
    "pass",
    "plain",
    "plain / optimized [quartiles]",
    "asked",
    "temporary MiB",
    "build",
    "",
)


@dataclasses.dataclass(frozen=True)
class Row:
    """One program measured as it is and optimized."""

    name: str
    direction: str
    asked: float
    plain: _timing.Program
    optimized: _timing.Program
    timing: _timing.Timing
    agree: bool

    @property
    def fast_enough(self) -> bool:
        """Whether the ratio reaches what is asked."""
        return self.timing.ratio >= self.asked

    def cells(self) -> list[str]:
        """The row as the table shows it."""
        plain_seconds = self.timing.seconds * self.timing.ratio
        temp = [_timing.mebibytes(p.temp_bytes) for p in (self.plain, self.optimized)]
        build = self.optimized.build_seconds / self.plain.build_seconds
        remark = "" if self.fast_enough else "below"
        return [
            self.name,
            self.direction,
            _timing.duration(plain_seconds),
            str(self.timing),
            f"{self.asked:g}",
            " → ".join(temp),
            f"{build:.2f}x",
            remark if self.agree else "DIFFERENT RESULT",
        ]


def same(plain: object, optimized: object) -> bool:
    """Whether two results agree up to the order of summation in float32."""

    def close(a: jax.Array, b: jax.Array) -> bool:
        first, second = np.asarray(a), np.asarray(b)
        if not np.issubdtype(first.dtype, np.floating):
            return bool(np.array_equal(first, second))
        scale = np.max(np.abs(first), initial=0.0, where=np.isfinite(first))
        near = dict(rtol=1e-2, atol=1e-3 * scale, equal_nan=True)
        return bool(np.allclose(first, second, **near))

    pairs = zip(jax.tree.leaves(plain), jax.tree.leaves(optimized), strict=True)
    return all(close(a, b) for a, b in pairs)


def row(
    workload: Workload, direction: str, function: Function, how: _timing.Settings
) -> Row:
    """Measures one direction of one workload."""
    arguments = workload.problem(how.quick, how.steps).arguments
    plain = _timing.build(function, arguments)
    optimized = _timing.build(optimize(function), arguments)
    asked = workload.forward if direction == "forward" else workload.gradient
    return Row(
        name=workload.name,
        direction=direction,
        asked=asked or 0.0,
        plain=plain,
        optimized=optimized,
        timing=_timing.measure_pair(plain, optimized, how),
        agree=same(plain.call(), optimized.call()),
    )


def rows(how: _timing.Settings) -> Iterator[Row]:
    """Measures all workloads asked for."""
    for workload in WORKLOADS[:: 9 if how.quick else 1]:
        if not how.wants(workload.name):
            continue
        problem = workload.problem(how.quick, how.steps)
        yield row(workload, "forward", problem.function, how)
        if workload.gradient is not None:
            yield row(workload, "gradient", problem.gradient(), how)
        # The compiled programs of a finished row would only fill the memory.
        jax.clear_caches()
        gc.collect()


def main() -> None:
    how = _timing.settings(__doc__ or "")
    _timing.print_machine()
    measured: list[Row] = _timing.collected(HEADER, rows(how))
    ratios = [one.timing.ratio for one in measured]
    slower = [one for one in measured if one.timing.ratio < NEVER_SLOWER]
    print(
        f"\n{len(measured)} rows, geometric mean {_timing.geometric_mean(ratios):.2f}x"
    )
    print(f"slower than {NEVER_SLOWER}x: {len(slower)}")
    for one in slower:
        print(f"  {one.name}, {one.direction}: {one.timing}")
    print(f"below what is asked: {sum(not one.fast_enough for one in measured)}")


if __name__ == "__main__":
    main()
