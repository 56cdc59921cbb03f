"""What a caller may choose, and the marked names that say it to the lowering."""

from __future__ import annotations

from dataclasses import dataclass, replace

from jscan._jax.marks import PLAIN
from jscan._optimizer.costs.budget import DEFAULT_BUDGET


@dataclass(frozen=True)
class Options:
    """The caller's choices.

    Attributes:
        passes: Names of rules, or of families of them; `None` for all that keep
            rounding close.
        memory_budget: Bytes that one rewrite of one loop may add.
        unasked: Nobody asked for a rewrite, so that one is made only for devices on
            which its gains were measured.
    """

    passes: frozenset[str] | None = None
    memory_budget: int = DEFAULT_BUDGET
    unasked: bool = False

    @property
    def name(self) -> str:
        """The marked name of a region for which these choices were made."""
        label = "jscan_loop" if self.unasked else "jscan_optimize"
        if self == Options(unasked=self.unasked):
            return label
        passes = "default" if self.passes is None else "+".join(sorted(self.passes))
        return f"{label}__{passes}__{self.memory_budget}"


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
    return replace(options, passes=passes, memory_budget=int(rest[1]))
