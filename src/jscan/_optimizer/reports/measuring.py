"""What a program takes as it is and rewritten, measured in pairs of runs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax

from jscan._jax.types import is_traced

_SECONDS = 1.0  # for all pairs together, if a run takes less
_PAIRS = 50  # at most


@dataclass(frozen=True, eq=False, repr=False)
class Runs:
    """Both forms of a program, compiled, and what they are called with.

    A report that is pickled or copied deep leaves them behind.
    """

    programs: tuple[Any, Any]
    operands: Sequence[Any] | None
    has_effects: bool

    def __reduce__(self) -> Any:
        return type(None), ()

    @property
    def refusal(self) -> str | None:
        """Why nothing can be measured, or None."""
        operands = [] if self.operands is None else self.operands
        if self.has_effects:
            return "the program has effects, which would happen again"
        if self.operands is None or any(map(is_traced, operands)):
            return "the arguments were not values"
        if any(getattr(x, "is_deleted", bool)() for x in operands):
            return "an argument was given away (donated) since"
        return None

    def times(self) -> tuple[float, float]:
        """Seconds of a call, before and after: medians of pairs of runs."""
        for program in self.programs:
            self._seconds(program)
        pairs: list[tuple[float, float]] = []
        end = time.perf_counter() + _SECONDS
        while not pairs or (len(pairs) < _PAIRS and time.perf_counter() < end):
            pairs.append(tuple(map(self._seconds, self.programs)))  # type: ignore[arg-type]
        before, after = map(statistics.median, zip(*pairs, strict=True))
        return before, after

    def _seconds(self, program: Any) -> float:
        start = time.perf_counter()
        jax.block_until_ready(program(*(self.operands or ())))
        return time.perf_counter() - start
