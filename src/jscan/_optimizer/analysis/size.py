"""Size of a loop: arithmetic, memory traffic and memory held, from its record.

These are counts of the program as written, not of what XLA makes of it; the report
adds XLA's own figure for the temporary memory of the whole program.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jscan._jax.equations import free_variables, unique_variables
from jscan._jax.jaxprs import is_variable, number_of_bytes
from jscan._jax.operations import is_elementwise
from jscan._optimizer.costs.flops import flops
from jscan._optimizer.record.loop import Loop, Total


@dataclass(frozen=True)
class Size:
    """What a loop costs.

    Attributes:
        steps: Iterations of the loop that is left; 0 if none is.
        operations: Equations of one step.
        batched: Equations done for all steps at once, before or after the loop.
        flops: Floating point operations of all steps, moved work included.
        moved_bytes: Bytes read and written by all steps (rows, carries and the
            constants they read) and by moved work.
        held_bytes: Bytes of rows that exist only between the loop and what reads them.
    """

    steps: int
    operations: int
    batched: int
    flops: int
    moved_bytes: int
    held_bytes: int


def measure(loop: Loop, steps: int | None = None) -> Size:
    """The size of a loop, of which the program asks for `steps`, all if not given."""
    total = loop.length if steps is None else steps
    stacked = loop.stacked()
    read = set(free_variables([*loop.equations, *loop.after]))
    rows = [v for v in loop.sequences if v in read]
    row_bytes = sum(map(number_of_bytes, [*rows, *stacked]))
    state_bytes = 2 * sum(number_of_bytes(c.variable) for c in loop.carries)
    constants = [v for v in loop.constants if v in read]
    state_bytes += sum(map(number_of_bytes, constants))
    moved = [*loop.hoisted, *loop.after]
    moved_bytes = sum(_traffic(equation, loop, total) for equation in moved)
    runs = bool(loop.equations or loop.carries or stacked)
    results = set(loop.wanted_rows())
    held = [v for v in stacked if v not in results]
    held += [v for e in loop.hoisted for v in e.outvars if v in loop.sequences]
    return Size(
        steps=loop.length if runs else 0,
        operations=len(loop.equations),
        batched=len(moved),
        flops=flops(loop.equations) * loop.length + flops(moved) * total,
        moved_bytes=(row_bytes + state_bytes) * loop.length + moved_bytes,
        held_bytes=total * sum(map(number_of_bytes, held)),
    )


def _traffic(equation: Any, loop: Loop, steps: int) -> int:
    """Bytes read and written by an equation that runs once for all steps.

    Constants are read once, and a sum over time is written once.
    """
    sums = [r.terms for r in loop.results.values() if isinstance(r, Total)]
    once = {*loop.constants, *unique_variables(itertools.chain(*sums))}
    return sum(
        number_of_bytes(a) * (steps if is_variable(a) and a not in once else 1)
        for a in (*equation.invars, *equation.outvars)
    )


def intermediates(loop: Loop, equations: Sequence[Any]) -> list[Any]:
    """Values that batched equations must hold in memory, besides results."""
    results = set(loop.wanted_rows())
    return [
        v
        for equation in equations
        if not is_elementwise(equation)
        for v in equation.outvars
        if v not in results
    ]
