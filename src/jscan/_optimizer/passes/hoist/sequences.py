"""hoist: work that does not depend on the state leaves the loop.

Work on constants alone is done once. Work on sequences is done for all steps at once
before the loop, when it is more than moving data about: a product with T rows uses a
processor far better than T products with one row. Its result is one more sequence, so
the memory budget has a say, and cheap work that reads it leaves, too, where that makes
fewer rows. A ``cond`` or ``while`` on sequences never leaves: batched, it would run
branches that a step does not take, or as long as the slowest step.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from jscan._jax.equations import free_variables
from jscan._jax.jaxprs import stack_bytes
from jscan._jax.operations import (
    REDUCTIONS,
    SHAPES_ONLY,
    is_cut,
    is_elementwise,
    is_expensive,
)
from jscan._optimizer.analysis.dependence import Dependence, Level, batchable
from jscan._optimizer.analysis.fewest_rows import with_fewest_rows
from jscan._optimizer.analysis.size import intermediates
from jscan._optimizer.costs.machine import RECOMPUTED
from jscan._optimizer.record.context import Context
from jscan._optimizer.record.loop import Loop
from jscan._optimizer.writing.batches import batched


def hoist_sequences(loop: Loop, context: Context) -> Loop:
    """Batch sequence work of the loop over time, where it pays."""
    dependence = Dependence(loop)
    machine, length = context.machine, loop.length
    worth = list(filter(machine.gains_batched, loop.equations))
    of_state = [e for e in worth if dependence.level_of(e) is Level.STATE]
    if of_state:
        loop = loop.refused(f"needs the state of the step before: {_names(of_state)}")
    roots = [e for e in worth if dependence.level_of(e) is Level.SEQUENCE]
    if roots and loop.recomputes:
        return loop.refused(f"sequence work stays: {RECOMPUTED}")
    chosen, loop = _chosen(loop, context, dependence, roots)
    if not chosen:
        return loop
    names = _names(filter(is_expensive, chosen))
    wanted = _frontier(dependence, chosen)
    handed = loop.stacked()
    held, new = (stack_bytes(v, length) for v in (handed, wanted))
    step, stays = loop.equations, loop.without(chosen).equations
    extra = machine.freed(dependence.step(), dependence.step(stays))
    extra -= _read_by_slices(dependence, wanted) * max(0.0, machine.vector_call)
    extra += machine.saved_beside(chosen, handed, free_variables(stays))
    why = machine.keeps_in_loop(chosen, length, extra, step=step, held=held, new=new)
    if why is not None:
        return loop.refused(f"{names} on sequences stays: {why}")
    loop = done_before(loop, chosen, wanted, context)
    loop = replace(loop, hoisted=(*loop.hoisted, *chosen))
    return loop.fired(f"{names} on sequences alone is done for all steps at once")


def done_before(
    loop: Loop, equations: Sequence[Any], wanted: Sequence[Any], context: Context
) -> Loop:
    """The loop with equations done before it: what is wanted of them are sequences."""
    dependence = Dependence(loop)  # what is constant may not have been hoisted
    fixed = [e for e in loop.equations if dependence.level_of(e) is Level.CONSTANT]
    values = batched(loop, [*fixed, *equations], wanted, context)
    rows = dict(zip(wanted, values, strict=True))
    return replace(loop.without(equations), sequences={**loop.sequences, **rows})


def _chosen(
    loop: Loop, context: Context, dependence: Dependence, roots: Sequence[Any]
) -> tuple[list[Any], Loop]:
    """The roots with their upstream, as many as the budget allows, in order."""
    candidates = [e for e in loop.equations if dependence.level_of(e) is Level.SEQUENCE]
    chosen: list[Any] = []
    for root in roots:
        upstream = dependence.upstream([root], candidates)
        blocker = next((e for e in upstream if not batchable(e, loop.length)), None)
        more = dependence.upstream([*chosen, root], candidates)
        size = stack_bytes(_frontier(dependence, more), loop.length)
        if blocker is not None:
            loop = loop.refused(_why_not(blocker))
        elif size > context.budget:
            loop = loop.refused(
                f"{root.primitive.name} on sequences stays: its rows would take {size} "
                f"bytes, over the memory budget of {context.budget}"
            )
        else:
            chosen = more
    return _with_cheap_work(dependence, chosen, candidates, context), loop


def _with_cheap_work(
    dependence: Dependence,
    chosen: list[Any],
    candidates: Sequence[Any],
    context: Context,
) -> list[Any]:
    """The chosen equations, and what makes fewer rows of theirs."""
    loop = dependence.loop
    cheap = [
        e
        for e in candidates
        if (is_elementwise(e) or e.primitive.name in SHAPES_ONLY | REDUCTIONS)
        and batchable(e, loop.length)
    ]
    wider = with_fewest_rows(dependence, chosen, cheap)
    between = intermediates(loop, wider)  # which the batch may have to hold
    return wider if stack_bytes(between, loop.length) <= context.budget else chosen


def _frontier(dependence: Dependence, chosen: list[Any]) -> list[Any]:
    """Variables the chosen equations define and the rest of the loop reads."""
    rest = dependence.loop.without(chosen).equations
    read = {*dependence.read_elsewhere(), *free_variables(rest)}
    return [v for e in chosen for v in e.outvars if v in read]


def _read_by_slices(dependence: Dependence, rows: Iterable[Any]) -> int:
    """How many more rows a step reads, for slices of the sums of these and others."""
    more = 0
    for row in rows:
        readers = dependence.users.get(row, [])
        if len(readers) == 1 and is_elementwise(readers[0]):
            slices = dependence.users.get(readers[0].outvars[0], [])
            more += max(0, sum(map(is_cut, slices)) - 1)
    return more


def _names(equations: Iterable[Any]) -> str:
    return ", ".join(sorted({e.primitive.name for e in equations}))


def _why_not(equation: Any) -> str:
    name = equation.primitive.name
    if name == "cond":
        return "cond stays: batched, it would run branches that a step does not take"
    if name == "while":
        return "while stays: batched, it would run until the slowest step is done"
    return f"{name} stays: batching it might change what it computes"
