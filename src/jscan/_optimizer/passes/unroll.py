"""unroll: a small step is repeated several times in the loop's body.

Decided last, and at lowering only: differentiation keeps the factor, and a backward
step is so much larger that an unrolled one can fall out of the form XLA's CPU
compiler turns into a single function. What is small, `costs/unrolling.py` says.
"""

from dataclasses import replace
from typing import Any

from jscan._jax.jaxprs import is_variable, number_of_bytes
from jscan._jax.operations import is_cut, picks_a_number
from jscan._optimizer.costs.unrolling import StepSize
from jscan._optimizer.record.context import Context
from jscan._optimizer.record.loop import Loop


def run(loop: Loop, context: Context) -> Loop:
    """Choose the factor from the size of the step."""
    unrolling = context.machine.unrolling
    if unrolling is None or loop.unroll != 1 or not loop.equations:
        return loop
    if loop.length < unrolling.shortest:
        least = unrolling.shortest
        return loop.refused(f"{loop.length} steps are too few, it pays from {least} on")
    factor, why = unrolling.steps(_size(loop, _work(loop)))
    if factor == 1:
        return loop.refused(why)
    return replace(loop, unroll=factor).fired(why)


def _work(loop: Loop) -> list[Any]:
    """A step without reading pieces of constant arrays, which is part of their use."""
    known, work = set(loop.constants), []
    for equation in loop.equations:
        piece = picks_a_number(equation) or is_cut(equation)
        if piece and any(v in known for v in filter(is_variable, equation.invars)):
            known.update(equation.outvars)
        else:
            work.append(equation)
    return work


def _size(loop: Loop, work: list[Any]) -> StepSize:
    stacked = loop.stacked()
    operands = [atom for e in work for atom in (*e.invars, *e.outvars)]
    read = {atom for atom in operands if is_variable(atom)}
    rows_read = [v for v in loop.sequences if v in read and v not in loop.counters]
    return StepSize(
        length=loop.length,
        work=work,
        touched=sum(map(number_of_bytes, [*operands, *stacked])),
        rows=len(rows_read) + len(stacked),
        states=len(loop.carries),
        results=bool(stacked),
        scalar=all(atom.aval.size == 1 for atom in [*operands, *stacked]),
    )
