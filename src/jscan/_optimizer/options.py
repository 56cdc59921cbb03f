"""What a caller may choose."""

from dataclasses import dataclass

from jscan._optimizer.costs.batches import DEFAULT_BUDGET


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
