"""The one cost model: what pays on which machine, and how much memory may be used.

What holds for one kind of machine only is an attribute that is switched off unless it
was measured there: `machines.py` has the constants. Limits that hold on any machine
stand with their rule.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from jscan._jax.jaxprs import number_of_bytes
from jscan._jax.names import JAX_VERSION
from jscan._jax.operations import (
    CHEAP_ARITHMETIC,
    MOVES_DATA,
    dot_sizes,
    is_elementwise,
)
from jscan._optimizer.costs.budget import MEBIBYTE
from jscan._optimizer.costs.products import ProductCosts
from jscan._optimizer.costs.unrolling import Unrolling

RECOMPUTED = "a step computes again what jax.checkpoint was asked not to store"
"""Why no more rows of such a loop are stored."""

EXCHANGED = "not done, devices might have to exchange data for it"
"""Why a loop is left alone in what the compiler splits over devices."""


@dataclass(frozen=True)
class Machine(ProductCosts):
    """What pays on one kind of device.

    Attributes:
        unrolling: When to do several steps an iteration; `None` if never.
        orders_reads: Whether the compiler updates in place what is read before.
        chunk_bytes: Bytes between the operations of one chunk of a map.
        smallest_again: Elements from which a row is computed again, not stored.
        split_bytes: Bytes of rows for which a loop is cut into parts.
        pads_between: Whether parts of a row are put side by side with more zeros than
            numbers between them.
        joined_bytes: Bytes that a step of two different loops may touch for them to run
            as one; 0 if never.
        joined_dot: Multiplications of the largest product of such a step.
        associates: Whether a linear recurrence is faster as an associative scan.
        cut_rows: Elements of a part of a row from which it is cut before the loop; 0 if
            never.
        whole_rows: Elements of a row, or a part of one, from which it is read whole
            before a step works on it; 0 if never.
    """

    unrolling: Unrolling | None = None
    orders_reads: bool = JAX_VERSION >= (0, 12)
    chunk_bytes: int = 4 * MEBIBYTE
    smallest_again: int = 1
    split_bytes: int = MEBIBYTE // 4
    pads_between: bool = True
    joined_bytes: int = 0
    joined_dot: int = 0
    associates: bool = False
    cut_rows: int = 0
    whole_rows: int = 0

    def with_starts(self, factor: float) -> "Machine":
        """The same, where it takes so many times as long to start a batch.

        Where that is counted it stays counted: costs of 0 would move cheap work, too.
        """
        starts = {f.name for f in fields(self) if f.name.endswith("_start")}
        changed = {name: round(factor * getattr(self, name)) for name in starts}
        least = min(self.batch_start, 1)
        return replace(
            self, **changed | {"batch_start": max(least, changed["batch_start"])}
        )

    def dispatched(self) -> "Machine":
        """The same, for loops of a program that another thread runs in any case."""
        return replace(self, dispatch_start=0)

    def keeps_apart(
        self, equations: Sequence[Any], state: Sequence[Any], rows: Sequence[Any]
    ) -> str | None:
        """Why two different loops take less time as they are, if they do.

        Given is one step of both, what they carry, and what they hand out at each step.
        """
        if not self.joined_bytes:
            return "whether larger steps pay was not measured on this device"
        touched = [*state, *state, *rows]
        for equation in equations:
            if not self._is_light(equation):
                name = equation.primitive.name
                return f"a step does {name}, which outweighs what a loop costs"
            touched += (*equation.invars, *equation.outvars)
        size = sum(map(number_of_bytes, touched))
        if size > self.joined_bytes:
            most = self.joined_bytes
            return f"a step of both touches {size} bytes, one loop pays up to {most}"
        return None

    def _is_light(self, equation: Any) -> bool:
        if equation.primitive.name == "dot_general":
            return dot_sizes(equation).multiplications <= self.joined_dot
        return is_elementwise(equation) or equation.primitive.name in MOVES_DATA


LONGEST_ROUNDING = 2e-3
"""Steps times the last place of a sum that is added up one step at a time."""


def keeps_logsumexp_rows(step: Sequence[Any], rows: int, budget: int) -> str | None:
    """Why a logsumexp over stored rows beats a running one, if it does.

    The running one takes two exponentials a step instead of one. Measured: 0.45 to 2
    times as fast for rows below the budget; above it, where every page faults at each
    call, 1.3 to 2 times after cheap steps and tanh, but 0.5 to 0.9 after a sine.
    """
    if rows <= budget:
        text = "one exponential less a step is faster while they take"
        return f"{text} {rows} bytes, up to {budget}"
    names = (equation.primitive.name for equation in step)
    heavy = next((n for n in names if n not in _BESIDE_EXPONENTIALS), None)
    if heavy is None:
        return None
    return f"exponentials in a step that does {heavy} were not found to be faster"


_BESIDE_EXPONENTIALS = CHEAP_ARITHMETIC | MOVES_DATA | {"tanh"}
