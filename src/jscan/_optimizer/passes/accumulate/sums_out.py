"""accumulate: a carry that is only added to becomes one sum after the loop.

Differentiating a loop gives, for each weight, a carry ``c + outer(h, g)``: T small
products and T passes over an array of the weight's size. The same sum is one matrix
product with time among the contracted axes. What the products read is stacked
instead, which is why the memory budget has a say.
"""

from dataclasses import dataclass, replace

from jscan._base.kinds import counted
from jscan._jax.jaxprs import Atom, stack_bytes
from jscan._optimizer.analysis.dependence import Level
from jscan._optimizer.costs.machine import RECOMPUTED
from jscan._optimizer.passes.accumulate.sum_plans import (
    Plan,
    Planner,
    with_additions,
)
from jscan._optimizer.record.cleanup import without_carries
from jscan._optimizer.record.context import Context
from jscan._optimizer.record.loop import Carry, Loop, Total


@dataclass(frozen=True)
class _Accumulator:
    carry: Carry
    terms: tuple[Atom, ...]
    plan: Plan

    @property
    def type(self) -> str:
        return self.carry.variable.aval.str_short()


def run(loop: Loop, context: Context) -> Loop:
    """Take out every accumulator that pays, and those that then come for free."""
    before, loop = loop, with_additions(loop)
    planner = Planner(loop, context)
    found = []
    for carry in loop.carries:
        terms = planner.terms(carry)
        if terms is None:
            continue
        if loop.recomputes:
            loop = loop.refused(f"sums stay: {RECOMPUTED}")
            continue
        plan = planner.plan_of_all(terms)
        if plan is None:
            loop = loop.refused(
                f"the sum {carry.variable.aval.str_short()} needs rows that do not fit "
                f"the memory budget of {context.budget} bytes"
            )
            continue
        found.append(_Accumulator(carry, terms, plan))
    chosen = _choose(planner, found)
    taken = {accumulator.carry.variable for accumulator in chosen}
    for accumulator in found:
        if accumulator.carry.variable not in taken:
            loop = loop.refused(
                f"the sum {accumulator.type} stays: storing its terms costs more than "
                "adding them in the loop"
            )
    if not chosen:
        return replace(before, notes=loop.notes)
    # What was weighed is a loop of which nothing is left.
    vanishes = len(chosen) == len(loop.carries) and planner.pays_as_map
    return replace(_take_out(loop, chosen), vanishes=vanishes)


def _choose(planner: Planner, found: list[_Accumulator]) -> list[_Accumulator]:
    chosen: list[_Accumulator] = []
    stacks = planner.free
    enough = sum(a.plan.saved for a in found) >= planner.start
    pays = lambda plan: plan.pays or (enough and plan.saved > 0)
    for accumulator in (a for a in found if pays(a.plan)):
        more = stacks | accumulator.plan.stacks
        new = stack_bytes(list(more - planner.free), planner.loop.length)
        # The budget holds for all sums of the loop together.
        if new <= planner.context.budget:
            chosen.append(accumulator)
            stacks = more
    # With nothing else carried, taking the sums out removes the loop itself.
    only_sums = len(found) == len(planner.loop.carries) and planner.pays_as_map
    planner.free = stacks  # what is stored for one sum is at hand for the others
    level = planner.dependence.level
    for accumulator in (a for a in found if a not in chosen):
        again = planner.plan_of_all(accumulator.terms)
        if again is not None and again.stacks <= stacks:
            accumulator = replace(accumulator, plan=again)
        at_hand = accumulator.plan.stacks <= stacks
        stateless = all(level(v) < Level.STATE for v in accumulator.plan.stacks)
        if (chosen and (at_hand or stateless)) or (only_sums and stateless):
            chosen.append(accumulator)
    rest = [a for a in found if a not in chosen]
    terms = [term for a in rest for term in a.terms]
    plan = planner.plan_of_work([a.carry for a in found], terms)
    if plan is not None:
        return [*chosen, *(replace(a, plan=plan) for a in rest)]
    leaves = [a.carry for a in found]
    relieves = rest and planner.relieves(leaves, [a.plan for a in rest])
    return [*chosen, *rest] if relieves else chosen


def _take_out(loop: Loop, chosen: list[_Accumulator]) -> Loop:
    sums = {a.carry.variable: Total(a.carry.initial, a.terms) for a in chosen}
    loop = loop.with_after(e for a in chosen for e in a.plan.equations)
    for accumulator in chosen:
        loop = loop.fired(
            f"the sum {accumulator.type} of {counted(len(accumulator.terms), 'term')} "
            "a step is taken after the loop"
        )
    return without_carries(loop, sums)
