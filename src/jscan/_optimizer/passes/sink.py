"""sink: work that only outputs need is done after the loop, for all steps at once.

What the work reads is stacked instead of what it computes, so it pays for work that
batches well and whose operands are not much larger than its result. Operations that
read rows stacked anyway follow for free; reductions of the state stay, since their
results are small and their operands are not.
"""

from typing import Any

from jscan._base.kinds import counted
from jscan._jax.jaxprs import number_of_bytes, stack_bytes
from jscan._jax.operations import is_expensive
from jscan._optimizer.analysis.dependence import Dependence, Level, batchable
from jscan._optimizer.analysis.size import intermediates
from jscan._optimizer.costs.machine import RECOMPUTED, Machine
from jscan._optimizer.record.context import Context
from jscan._optimizer.record.loop import Loop

_LARGEST_GROWTH = 2
"""Bytes that may be stacked for each byte that no longer is."""


def run(loop: Loop, context: Context) -> Loop:
    """Choose the equations that leave, and record them as run after the loop."""
    if not loop.carries:
        return loop  # without state, vectorise has decided
    machine, dependence = context.machine, Dependence(loop)
    core = set(map(id, dependence.core()))
    rest = [e for e in loop.equations if id(e) not in core]
    if not rest:
        return loop
    if loop.recomputes:
        return loop.refused(f"what only outputs need stays: {RECOMPUTED}")
    chosen, loop = _chosen(loop, context, dependence, rest)
    why = chosen and _why_not(chosen, dependence, machine)
    if why:
        return loop.refused(f"what only outputs need stays: {why}")
    if machine.batch_start and not any(map(machine.gains_batched, chosen)):
        return loop  # cheap work alone gains nothing by another pass over memory
    chosen = _with_free_riders(dependence, chosen, rest)
    if not chosen:
        return loop
    moved = sum(map(is_expensive, chosen)) or len(chosen)
    text = f"{counted(moved, 'operation')} that only outputs need run behind the loop"
    return loop.with_after(chosen).fired(text)


def _why_not(chosen: list[Any], dependence: Dependence, machine: Machine) -> str | None:
    """Why what is chosen does not pay behind the loop, if so."""
    loop, level = dependence.loop, dependence.level_of
    leave = set(map(id, chosen)).difference(map(id, dependence.core()))
    of_state = (e for e in loop.equations if level(e) is Level.STATE)
    stays = [e for e in of_state if id(e) not in leave]
    freed = machine.freed(dependence.step(), dependence.step(stays))
    return machine.keeps_in_loop(chosen, loop.length, freed, step=loop.equations)


def _chosen(
    loop: Loop, context: Context, dependence: Dependence, rest: list[Any]
) -> tuple[list[Any], Loop]:
    """What leaves for its own sake, with what it takes along."""
    chosen = [
        e
        for e in rest
        if dependence.level_of(e) is Level.SEQUENCE
        and all(batchable(u, loop.length) for u in dependence.upstream([e], rest))
    ]
    size = stack_bytes(intermediates(loop, chosen), loop.length)
    if size > context.budget:
        over = f"over the memory budget of {context.budget}"
        loop = loop.refused(f"work on sequences would hold {size} bytes, {over}")
        chosen = []
    gains = context.machine.gains_batched
    stacked = set(loop.with_after(chosen).stacked())
    for root in [e for e in rest if gains(e) and e not in chosen]:
        group = dependence.downstream([root], rest)
        blocker = next((e for e in group if not batchable(e, loop.length)), None)
        if blocker is not None:
            name = blocker.primitive.name
            loop = loop.refused(f"{root.primitive.name} feeds {name}, which stays")
            continue
        group = _with_sequence_work(dependence, [*chosen, *group])
        then = set(loop.with_after(group).stacked())
        why = _refusal(loop, context, stacked, then)
        if why is None:
            chosen, stacked = group, then
        else:
            loop = loop.refused(f"{root.primitive.name} stays: {why}")
    return chosen, loop


def _with_sequence_work(dependence: Dependence, group: list[Any]) -> list[Any]:
    """The group and the sequence work it reads, which can be done again for free."""
    level, loop = dependence.level, dependence.loop
    read = [a for e in group for a in e.invars if level(a) is Level.SEQUENCE]
    upstream = dependence.upstream(map(dependence.producer, read), loop.equations)
    again = [e for e in upstream if dependence.level_of(e) < Level.STATE]
    if not all(batchable(e, loop.length) for e in again):
        again = []
    ids = set(map(id, (*group, *again)))
    return [e for e in loop.equations if id(e) in ids]


def _refusal(
    loop: Loop, context: Context, before: set[Any], after: set[Any]
) -> str | None:
    new = stack_bytes(list(after - before), loop.length)
    saved = stack_bytes(list(before - after), loop.length)
    if new > _LARGEST_GROWTH * saved:
        return f"it would stack {new} bytes instead of {saved}"
    if new - saved > context.budget:
        over = f"over the memory budget of {context.budget}"
        return f"it would add {new - saved} bytes, {over}"
    return None


def _with_free_riders(
    dependence: Dependence, chosen: list[Any], rest: list[Any]
) -> list[Any]:
    """Add cheap work on rows that are stacked anyway, from the outputs inwards."""
    loop = dependence.loop
    stacked = set(loop.with_after(chosen).stacked())
    gone = set(map(id, chosen))
    for equation in reversed(rest):
        users = [u for v in equation.outvars for u in dependence.users.get(v, [])]
        stays = any(id(u) not in gone for u in users)
        if id(equation) in gone or stays or not batchable(equation, loop.length):
            continue
        read = {a for a in equation.invars if dependence.changes(a)}
        read -= loop.sequences.keys()
        outputs = stacked.intersection(equation.outvars)
        new = sum(map(number_of_bytes, read - stacked))
        saved = sum(map(number_of_bytes, outputs))
        if saved and new <= saved:
            gone.add(id(equation))
            stacked = (stacked - outputs) | read
    return [e for e in loop.equations if id(e) in gone]
