"""Profiles: what loops cost, counted call by call."""

from __future__ import annotations

import dataclasses
import html
import time
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, ClassVar, Never

import jax

from jscan._base.caches import cached
from jscan._base.errors import unknown_loop
from jscan._base.types import Leaf
from jscan._base.verbs import verb
from jscan._execution.plan import LoopPlan
from jscan._execution.run import PlannedLoop
from jscan._programs.program import Program
from jscan._programs.regions import executable, usual_options

HEADS = ["loop", "calls", "traced", "steps", "compile s", "wall s", "us/step"]
HEADS += ["flops/step", "bytes/step"]


@dataclass
class LoopProfile:
    """What the calls of one loop have cost.

    Attributes:
        name: The loop's label.
        calls: Calls that ran, and whose time is known.
        traced: Calls inside `jit`, `grad` or `vmap`: they became part of another
            program, whose time is not the loop's own.
        steps: Steps executed in all calls that ran.
        compile_time: Seconds spent on compiling.
        wall_time: Seconds spent on running.
        flops: Floating-point operations of one compiled step.
        bytes: Bytes that one compiled step reads and writes.

    Example:
        >>> import jax.numpy as jnp, jscan
        >>> with jscan.profile() as found:
        ...     _ = jscan.scan(lambda x: x + 1, jnp.ones(50), name="add")
        >>> found.loops["add"].steps
        50
    """

    name: str
    calls: int = 0
    traced: int = 0
    steps: int = 0
    compile_time: float = 0.0
    wall_time: float = 0.0
    flops: float = 0.0
    bytes: float = 0.0

    @property
    def time_per_step(self) -> float:
        """Seconds a step, of the time spent on running."""
        return self.wall_time / self.steps if self.steps else 0.0

    def _cells(self) -> list[str]:
        """The numbers as text, in the order of the table's columns."""
        return [
            self.name,
            str(self.calls),
            str(self.traced),
            str(self.steps),
            f"{self.compile_time:.3f}",
            f"{self.wall_time:.4f}",
            f"{1e6 * self.time_per_step:.3f}",
            f"{self.flops:.0f}",
            f"{self.bytes:.0f}",
        ]


class _Loops(dict[str, LoopProfile]):
    def __missing__(self, name: str) -> Never:
        raise unknown_loop(name, self, "profile")


class profile:
    """Collects what the loops of its thread (or asyncio task) cost while entered.

    Attributes:
        loops: A `LoopProfile` for every label, in the order of their first calls.
        always: Of the class: what loops called with ``profile=True`` have cost so far.

    Example:
        >>> import jax.numpy as jnp, jscan
        >>> with jscan.profile() as report:
        ...     for _ in range(2):
        ...         _ = jscan.scan(lambda x, s: s + x, jnp.ones(50), 0.0, name="sum")
        >>> report.loops["sum"].calls, report.loops["sum"].steps
        (2, 100)
        >>> print(report)  # doctest: +ELLIPSIS
        loop  calls  traced  steps ...
    """

    always: ClassVar[profile]

    @verb("write with jscan.profile() as report: and call the function in there")
    def __init__(self) -> None:
        self.loops: dict[str, LoopProfile] = _Loops()

    def __enter__(self) -> profile:
        _entered.set((*_entered.get(), self))
        return self

    def __exit__(self, *_: object) -> None:
        _entered.set(tuple(one for one in _entered.get() if one is not self))

    def as_dicts(self) -> list[dict[str, Any]]:
        """One dict of numbers for every loop."""
        return [
            {**dataclasses.asdict(loop), "time_per_step": loop.time_per_step}
            for loop in self.loops.values()
        ]

    def _table(self) -> list[list[str]]:
        return [HEADS, *(loop._cells() for loop in self.loops.values())]

    def __str__(self) -> str:
        rows = self._table()
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join("  ".join(map(str.ljust, row, widths)) for row in rows)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """The table, for a notebook."""
        head, *rows = [[html.escape(cell) for cell in row] for row in self._table()]
        body = "".join(f"<tr><td>{'</td><td>'.join(row)}</td></tr>" for row in rows)
        return f"<table><tr><th>{'</th><th>'.join(head)}</th></tr>{body}</table>"


profile.always = profile()

_entered: ContextVar[tuple[profile, ...]] = ContextVar("entered", default=())


def records(plan: LoopPlan) -> list[LoopProfile]:
    """Where a call of this loop is counted."""
    asked = plan.options.profile
    collectors = (*_entered.get(), *([profile.always] if asked else []))
    if not collectors:
        return []
    label = asked if isinstance(asked, str) else plan.options.name or "scan"
    found = [c.loops.setdefault(label, LoopProfile(label)) for c in collectors]
    flops, size = _step_cost(plan.step)
    for record in found:
        record.flops, record.bytes = flops, size
    return found


def run_timed(
    plan: LoopPlan, inputs: Sequence[Leaf], found: Sequence[LoopProfile]
) -> list[Leaf]:
    """Run an eager loop, and count it."""
    placed = tuple(str(getattr(leaf, "sharding", None)) for leaf in inputs)
    before = time.perf_counter()
    compiled = _compiled(PlannedLoop(plan), placed, _Hidden(inputs))
    ready = time.perf_counter()
    leaves = jax.block_until_ready(compiled(*inputs))
    done = time.perf_counter()
    for record in found:
        record.calls += 1
        record.steps += int(leaves[-1]) if plan.is_bounded else plan.n_steps
        record.compile_time += ready - before
        record.wall_time += done - ready
    return leaves


class _Hidden:
    """Arrays that a cached function may use but is not looked up by."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Hidden)

    def __hash__(self) -> int:
        return 0


@cached
def _compiled(loop: PlannedLoop, placed: tuple[str, ...], inputs: _Hidden) -> Any:
    options = usual_options(loop.plan.options.mode == "FAST_RUN")
    jitted: Any = executable(loop, options)
    compiled = jitted.lower(*inputs.value).compile()
    inputs.value = None  # the cache must not keep them alive
    return compiled


@cached
def _step_cost(step: Program) -> tuple[float, float]:
    """Flops and bytes of the compiled step, as far as the backend tells."""
    costs = jax.jit(step).lower(*step.in_avals).compile().cost_analysis()
    costs = costs or {}
    return float(costs.get("flops", 0.0)), float(costs.get("bytes accessed", 0.0))
