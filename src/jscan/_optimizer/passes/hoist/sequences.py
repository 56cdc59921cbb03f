"""hoist: work that does not depend on the state leaves the loop.

Work on constants alone is done once. Work on sequences is done for all steps at once
before the loop, when it is more than moving data about: a product with T rows uses a
processor far better than T products with one row. Its result is one more sequence, so
the memory budget has a say. A ``cond`` or ``while`` never leaves: batched, it would
run the branches a step does not take.
"""

from dataclasses import replace
from typing import Any

from jscan._jax.equations import free_variables
from jscan._jax.jaxprs import stack_bytes
from jscan._jax.operations import is_expensive
from jscan._optimizer.analysis.dependence import Dependence, Level, batchable
from jscan._optimizer.costs.machine import RECOMPUTED, TOO_LITTLE
from jscan._optimizer.record.cleanup import drop_unused
from jscan._optimizer.record.context import Context
from jscan._optimizer.record.loop import Loop
from jscan._optimizer.writing.batches import batched


def hoist_sequences(loop: Loop, context: Context) -> Loop:
    """Batch sequence work of the loop over time, where it pays."""
    dependence = Dependence(loop)
    candidates = [
        e
        for e in loop.equations
        if not e.effects and dependence.level_of(e) is Level.SEQUENCE
    ]
    roots = [e for e in candidates if context.machine.gains_batched(e)]
    loop = _note_state_work(loop, context, dependence)
    if roots and loop.recomputes:
        return loop.refused(f"sequence work stays: {RECOMPUTED}")
    movable = []
    for equation in roots:
        upstream = dependence.upstream([equation], candidates)
        blocker = next((e for e in upstream if not batchable(e, loop.length)), None)
        if blocker is None:
            movable.append(equation)
        else:
            loop = loop.refused(_why_not(blocker))
    chosen, loop = _within_budget(loop, context, dependence, movable, candidates)
    if not chosen:
        return loop
    names = ", ".join(sorted({e.primitive.name for e in chosen if is_expensive(e)}))
    wanted = _frontier(loop, dependence, chosen)
    held, new = (stack_bytes(v, loop.length) for v in (loop.stacked(), wanted))
    if not context.machine.pays_batched(chosen, loop.length, held=held, new=new):
        return loop.refused(f"{names} on sequences stays: {TOO_LITTLE}")
    values = batched(
        chosen,
        wanted,
        loop.constants,
        loop.sequences,
        loop.length,
        context,
    )
    ids = set(map(id, chosen))
    loop = replace(
        loop,
        equations=tuple(e for e in loop.equations if id(e) not in ids),
        sequences={**loop.sequences, **dict(zip(wanted, values, strict=True))},
        hoisted=(*loop.hoisted, *chosen),
    )
    return drop_unused(
        loop.fired(f"{names} on sequences alone is done for all steps at once")
    )


def _note_state_work(loop: Loop, context: Context, dependence: Dependence) -> Loop:
    """Say what would be worth taking out, were it not for the state it reads."""
    names = {
        equation.primitive.name
        for equation in loop.equations
        if dependence.level_of(equation) is Level.STATE
        and context.machine.gains_batched(equation)
    }
    if not names:
        return loop
    text = ", ".join(sorted(names))
    return loop.refused(f"needs the state of the step before: {text}")


def _within_budget(
    loop: Loop,
    context: Context,
    dependence: Dependence,
    roots: list[Any],
    candidates: list[Any],
) -> tuple[list[Any], Loop]:
    """The roots with their upstream, as many as the budget allows, in order."""
    chosen: list[Any] = []
    for root in roots:
        more = dependence.upstream([*chosen, root], candidates)
        size = stack_bytes(_frontier(loop, dependence, more), loop.length)
        if size <= context.budget:
            chosen = more
        else:
            loop = loop.refused(
                f"{root.primitive.name} on sequences stays: its rows would take {size} "
                f"bytes, over the memory budget of {context.budget}",
            )
    return chosen, loop


def _frontier(loop: Loop, dependence: Dependence, chosen: list[Any]) -> list[Any]:
    """Variables the chosen equations define and the rest of the loop reads."""
    ids = set(map(id, chosen))
    rest = [e for e in loop.equations if id(e) not in ids]
    read = {*dependence.read_outside(), *loop.wanted_rows()}
    read.update(free_variables([*rest, *loop.after]))
    return [v for e in chosen for v in e.outvars if v in read]


def _why_not(equation: Any) -> str:
    name = equation.primitive.name
    if name in ("cond", "while"):
        return f"{name} stays: batched, it would run branches that a step does not take"
    return f"{name} stays: batching it might change what it computes"
