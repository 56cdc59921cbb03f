"""hoist: rows that a step cuts up are cut for all steps at once.

``i, f, g, o = split(row + h @ U, 4)`` with rows computed beforehand is how a careful
programmer writes a cell. The compilers of JAX before 0.12 do not vectorise elementwise
work that reads slices of a row of a stack. With a tanh, a logistic or an exp among it,
it ran up to 4 times as fast on parts stacked by themselves, their copies included;
cheap arithmetic alone takes less time than the copies.
"""

from typing import Any

from jscan._jax.jaxprs import stack_bytes
from jscan._jax.operations import POLYNOMIALS, applies, is_cut, is_elementwise
from jscan._optimizer.analysis.dependence import Dependence
from jscan._optimizer.costs.machine import RECOMPUTED
from jscan._optimizer.passes.hoist.push_slices import pushed
from jscan._optimizer.passes.hoist.sequences import done_before
from jscan._optimizer.record.context import Context
from jscan._optimizer.record.loop import Loop

_FEWEST_STEPS = 32


def run(loop: Loop, context: Context) -> Loop:
    """Cut the stacks whose rows the step only reads in parts."""
    smallest = context.machine.cut_rows
    is_slow = applies(loop.equations, POLYNOMIALS, smallest)
    if not smallest or loop.length < _FEWEST_STEPS or not is_slow:
        return loop
    original, loop = loop, pushed(loop, columns=False)
    rows = [v for v in loop.sequences if v not in loop.counters]
    cuts = [cut for row in rows for cut in _parts(row, loop, smallest)]
    if not cuts:
        return original
    if loop.recomputes:
        return original.refused(f"rows are cut in the step: {RECOMPUTED}")
    parts = [cut.outvars[0] for cut in cuts]
    size = stack_bytes(parts, loop.length)
    if size > context.budget:
        return original.refused(
            f"rows are cut in the step: their parts would take {size} bytes, over the "
            f"memory budget of {context.budget}"
        )
    loop = done_before(loop, cuts, parts, context)
    return loop.fired(f"rows are cut into {len(parts)} parts for all steps at once")


def _parts(row: Any, loop: Loop, smallest: int) -> list[Any]:
    """The equations that read a row, if all cut it for elementwise work."""
    dependence = Dependence(loop)
    cuts = dependence.users.get(row, [])
    parts = [cut.outvars[0] for cut in cuts]
    readers = [user for part in parts for user in dependence.users.get(part, [])]
    fits = (
        dependence.read_elsewhere().isdisjoint([row, *parts])
        and all(map(is_cut, cuts))
        and all(map(is_elementwise, readers))
        and all(part.aval.size >= smallest for part in parts)
    )
    return cuts if fits else []
