"""What a caller may choose, and the marked names that say it to the lowering."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, cast

from jscan._jax.marks import PLAIN
from jscan._optimizer.costs.budget import DEFAULT_BUDGET

Plan: TypeAlias = Literal["estimate", "measure"]
DEFAULT_PLAN_MS = 10_000


@dataclass(frozen=True)
class Options:
    """The caller's choices.

    Attributes:
        passes: Names of rules, or of families of them; `None` for all that keep
            rounding close.
        memory_budget: Bytes that one rewrite of one loop may add.
        unasked: Nobody asked for a rewrite, so that one is made only for devices on
            which its gains were measured.
        plan: Who decides how a loop is written: `"estimate"` or `"measure"`.
        plan_ms: Milliseconds that measuring may add to one compilation.
        machine: The digest of a table of costs: see `costs/tables.py`.
    """

    passes: frozenset[str] | None = None
    memory_budget: int = DEFAULT_BUDGET
    unasked: bool = False
    plan: Plan = "estimate"
    plan_ms: int = DEFAULT_PLAN_MS
    machine: str = ""

    @property
    def measures(self) -> bool:
        """Whether forms of a loop are timed."""
        return self.plan == "measure"

    @property
    def name(self) -> str:
        """The marked name of a region for which these choices were made."""
        label = "jscan_loop" if self.unasked else "jscan_optimize"
        if self == Options(unasked=self.unasked):
            return label
        passes = "default" if self.passes is None else "+".join(sorted(self.passes))
        name = f"{label}__{passes}__{self.memory_budget}"
        if self == Options(self.passes, self.memory_budget, self.unasked):
            return name
        return f"{name}__{self.plan}__{self.plan_ms}__{self.machine}"


def choices_of(name: str) -> Options | None:
    """What a marked name says; `None` if nothing is to be done."""
    if name == PLAIN:
        return None
    label, *rest = name.split("__")
    options = Options(unasked=label == "jscan_loop")
    if not rest:
        return options
    passes = None
    if rest[0] != "default":
        passes = frozenset(filter(None, rest[0].split("+")))
    options = replace(options, passes=passes, memory_budget=int(rest[1]))
    if len(rest) == 2:
        return options
    plan, milliseconds, machine = cast(Plan, rest[2]), int(rest[3]), rest[4]
    return replace(options, plan=plan, plan_ms=milliseconds, machine=machine)
