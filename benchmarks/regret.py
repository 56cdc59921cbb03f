"""How much of what an expert gains does the optimizer gain, on loops nobody tuned?

Each family of loops is drawn in sizes that depend on seeds alone. *Captured* is the
time of the faster one of plain `lax.scan` and the loop by hand, over that of the loop
at hand: 1.0 is as good as both. Families are split into a part to which costs are
fitted and one that judges them (with a star); below the table are the means of each.
Forms that are compiled to the same code are one program, and take the same time: theirs
is that of the first. How many rows *optimize* leaves as they are is below, too.
"""

from __future__ import annotations

import dataclasses
import gc
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

import _timing
from against_lax import same
from families import FAMILIES, Case, Family
from jscan import optimize

SLOWER, MISSED = 0.95, 0.8
HEADER = (
    "family",
    "sizes",
    "pass",
    "plain",
    "by hand",
    "optimize",
    "unasked",
    "captured",
    "captured unasked",
    "build",
    "",
)


@dataclasses.dataclass(frozen=True)
class Row:
    """One case in one direction; times are ratios to plain, above 1 is faster."""

    family: Family
    sizes: str
    direction: str
    plain: float
    by_hand: float
    optimized: float
    unasked: float
    build: float
    changed: bool
    agree: bool

    @property
    def captured(self) -> float:
        return self.optimized / max(1.0, self.by_hand)

    @property
    def captured_unasked(self) -> float:
        return self.unasked / max(1.0, self.by_hand)

    def cells(self) -> list[str]:
        ratios = self.by_hand, self.optimized, self.unasked
        remark = "slower" if min(self.optimized, self.unasked) < SLOWER else ""
        return [
            self.family.name + (" *" if self.family.is_held_out else ""),
            self.sizes,
            self.direction,
            _timing.duration(self.plain),
            *(f"{ratio:.2f}x" for ratio in ratios),
            f"{self.captured:.2f}",
            f"{self.captured_unasked:.2f}",
            f"{self.build:.2f}x",
            remark if self.agree else "DIFFERENT RESULT",
        ]


def gradient(function: Callable[..., Any]) -> Callable[..., Any]:
    """Of the sum of squares of what a function gives, by its first argument."""

    def cost(*arguments: Any) -> jax.Array:
        leaves = jax.tree.leaves(function(*arguments))
        return sum((jnp.sum(x * x) for x in leaves), start=jnp.float32(0))

    return jax.grad(cost)


def row(one: Family, case: Case, direction: str, how: _timing.Settings) -> Row:
    """Measures one case in one direction, all forms in turns."""
    change = gradient if direction == "gradient" else lambda function: function
    forms = {"plain": change(case.plain)}
    if case.by_hand is not None:
        forms["by hand"] = change(case.by_hand)
    forms["optimize"] = optimize(forms["plain"])
    forms["unasked"] = change(case.unasked)
    built = {name: _timing.build(form, case.arguments) for name, form in forms.items()}
    first = {program.code: name for name, program in reversed(built.items())}
    alone = {name: built[name].call for name in built if name in first.values()}
    timings = _timing.measure(alone, how)
    timings = {name: timings[first[program.code]] for name, program in built.items()}
    results = [program.call() for program in built.values()]
    optimized, plain = built["optimize"], built["plain"]
    return Row(
        one,
        _sizes(case),
        direction,
        plain=timings["plain"].seconds,
        by_hand=timings["by hand"].ratio if "by hand" in timings else 1.0,
        optimized=timings["optimize"].ratio,
        unasked=timings["unasked"].ratio,
        build=optimized.build_seconds / plain.build_seconds,
        changed=optimized.code != plain.code,
        agree=all(same(results[0], result) for result in results[1:]),
    )


def _sizes(case: Case) -> str:
    """The steps, and the largest row of each kind of array."""
    rows = jax.tree.leaves(case.xs)
    steps = case.length or rows[0].shape[0]
    largest = max((x.size // steps for x in rows), default=0)
    state = sum(x.size for x in jax.tree.leaves(case.init) if hasattr(x, "size"))
    weights = sum(x.size for x in jax.tree.leaves(case.parameters))
    return f"T={steps}, row {largest}, state {state}, weights {weights}"


def rows(how: _timing.Settings) -> Iterator[Row]:
    """Measures all families asked for."""
    for one in FAMILIES[:: 7 if how.quick else 1]:
        if not how.wants(one.name):
            continue
        for seed in how.seeds:
            case = one.case(seed, how.quick)
            yield row(one, case, "forward", how)
            if one.gradient:
                yield row(one, case, "gradient", how)
            jax.clear_caches()
            gc.collect()


def summary(measured: list[Row]) -> Iterator[list[str]]:
    """What was captured, by part and direction."""
    for held_out in (False, True):
        for direction in ("forward", "gradient"):
            found = [
                r
                for r in measured
                if r.family.is_held_out is held_out and r.direction == direction
            ]
            if not found:
                continue
            asked, unasked = (
                [getattr(r, name) for r in found]
                for name in ("captured", "captured_unasked")
            )
            mean = _timing.geometric_mean
            yield [
                "judges" if held_out else "fitted to",
                direction,
                str(len(found)),
                f"{mean([r.by_hand for r in found]):.2f}x",
                f"{mean([r.optimized for r in found]):.2f}x",
                f"{mean(asked):.2f}",
                f"{mean(unasked):.2f}",
                str(sum(c < MISSED for c in asked)),
                str(sum(r.optimized < SLOWER for r in found)),
                str(sum(r.unasked < SLOWER for r in found)),
                str(sum(not r.changed for r in found)),
            ]


SUMMARY = (
    "part",
    "pass",
    "rows",
    "by hand",
    "optimize",
    "captured",
    "unasked",
    f"captured < {MISSED}",
    f"optimize < {SLOWER}x",
    f"unasked < {SLOWER}x",
    "as they are",
)


def main() -> None:
    how = _timing.settings(__doc__ or "")
    _timing.print_machine()
    measured: list[Row] = _timing.collected(HEADER, rows(how))
    print()
    _timing.table(SUMMARY, summary(measured))
    sys.exit(not all(one.agree for one in measured))


if __name__ == "__main__":
    main()
