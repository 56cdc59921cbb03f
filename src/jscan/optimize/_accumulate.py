"""accumulate: a carry that is only added to becomes one sum after the loop.

Differentiating a loop gives, for each weight, a carry ``c + outer(h, g)``: T small
products and T passes over an array of the weight's size. The same sum is one matrix
product with time among the contracted axes. What the products read is stacked
instead, which is why the memory budget has a say.
"""

from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp

from jscan.optimize._cost import RECOMPUTED, stack_bytes
from jscan.optimize._dependence import Dependence, Level, batchable
from jscan.optimize._jaxpr import (
    Atom,
    fills_with_zero,
    free_variables,
    is_variable,
    is_zero_literal,
)
from jscan.optimize._loop import Carry, Final, Loop, Result, Total
from jscan.optimize._merge import drop_unused
from jscan.optimize._options import Context

NAME = "accumulate"

ADDITIONS = frozenset({"add", "add_any"})
LINEAR = frozenset(
    {
        *("neg", "transpose", "reshape", "squeeze", "broadcast_in_dim"),
        *("reduce_sum", "slice", "rev", "copy"),
    }
)
"""Operations that give the same bits before and after a sum, but for its order."""


@dataclass(frozen=True)
class _Plan:
    """How a term is summed over time.

    Attributes:
        pays: Whether the term alone is worth it.
        stacks: Variables whose rows the sum reads.
        equations: Equations of the step that run after the loop instead.
    """

    pays: bool
    stacks: frozenset[Any] = frozenset()
    equations: tuple[Any, ...] = ()

    def __or__(self, other: "_Plan") -> "_Plan":
        return _Plan(
            self.pays or other.pays,
            self.stacks | other.stacks,
            (*self.equations, *other.equations),
        )


@dataclass(frozen=True)
class _Accumulator:
    carry: Carry
    terms: tuple[Atom, ...]
    plan: _Plan


def run(loop: Loop, context: Context) -> Loop:
    """Take out every accumulator that pays, and those that then come for free."""
    planner = _Planner(loop, context)
    found = []
    for carry in loop.carries:
        terms = planner.terms(carry)
        if terms is None:
            continue
        if loop.recomputes:
            loop = loop.refused(NAME, f"sums stay: {RECOMPUTED}")
            continue
        plan = planner.plan_of_all(terms)
        if plan is None:
            loop = loop.refused(
                NAME,
                f"the sum {carry.variable.aval.str_short()} needs rows that do not fit "
                f"the memory budget of {context.budget} bytes",
            )
            continue
        found.append(_Accumulator(carry, terms, plan))
    chosen = _choose(planner, found)
    taken = {accumulator.carry.variable for accumulator in chosen}
    for accumulator in found:
        if accumulator.carry.variable not in taken:
            loop = loop.refused(
                NAME,
                f"the sum {accumulator.carry.variable.aval.str_short()} stays: storing "
                "its terms costs more than adding them in the loop",
            )
    return drop_unused(_take_out(loop, chosen)) if chosen else loop


def _choose(planner: "_Planner", found: list[_Accumulator]) -> list[_Accumulator]:
    chosen: list[_Accumulator] = []
    stacks = planner.free
    for accumulator in (a for a in found if a.plan.pays):
        more = stacks | accumulator.plan.stacks
        new = stack_bytes(list(more - planner.free), planner.loop.length)
        # The budget holds for all sums of the loop together.
        if new <= planner.context.budget:
            chosen.append(accumulator)
            stacks = more
    # With nothing else carried, taking the sums out removes the loop itself.
    only_sums = len(found) == len(planner.loop.carries) and planner.pays_as_map()
    planner.free = stacks  # what is stored for one sum is at hand for the others
    for accumulator in found:
        if accumulator in chosen:
            continue
        again = planner.plan_of_all(accumulator.terms)
        if again is not None and again.stacks <= stacks:
            accumulator = replace(accumulator, plan=again)
        at_hand = accumulator.plan.stacks <= stacks
        stateless = all(
            planner.dependence.level(v) < Level.STATE for v in accumulator.plan.stacks
        )
        if (chosen and (at_hand or stateless)) or (only_sums and stateless):
            chosen.append(accumulator)
    return chosen


def _take_out(loop: Loop, chosen: list[_Accumulator]) -> Loop:
    gone = {a.carry.variable: a for a in chosen}
    loop = loop.with_after(e for a in chosen for e in a.plan.equations)
    results: dict[Any, Result] = {}
    for name, result in loop.results.items():
        accumulator = _accumulator_of(result, gone)
        if accumulator is not None:
            result = _replace_final(
                result, Total(accumulator.carry.initial, accumulator.terms)
            )
        results[name] = result
    for accumulator in chosen:
        loop = loop.fired(
            NAME,
            f"the sum {accumulator.carry.variable.aval.str_short()} of "
            f"{len(accumulator.terms)} term(s) a step is taken after the loop",
        )
    return replace(
        loop,
        carries=tuple(c for c in loop.carries if c.variable not in gone),
        results=results,
    )


def _accumulator_of(result: Result, gone: dict[Any, _Accumulator]) -> Any:
    while hasattr(result, "operand"):
        result = result.operand  # pyright: ignore[reportAttributeAccessIssue]
    return gone.get(result.variable) if isinstance(result, Final) else None


def _replace_final(result: Result, total: Total) -> Result:
    if isinstance(result, Final):
        return total
    return replace(result, operand=_replace_final(result.operand, total))  # pyright: ignore


class _Planner:
    """Finds accumulators in one loop and plans their sums."""

    def __init__(self, loop: Loop, context: Context) -> None:
        self.loop = loop
        self.context = context
        self.dependence = Dependence(loop)
        self.stacked = set(loop.stacked())
        self.free = frozenset({*loop.sequences, *self.stacked})

    def terms(self, carry: Carry) -> tuple[Atom, ...] | None:
        """The terms added to the carry at each step, if that is all its use."""
        if not jnp.issubdtype(carry.variable.aval.dtype, jnp.inexact):
            return None
        updates = [c.update for c in self.loop.carries]
        terms: list[Atom] = []
        variable = carry.variable
        while variable is not carry.update:
            users = self.dependence.users.get(variable, [])
            if len(users) != 1 or variable in self.stacked or variable in updates:
                return None
            (equation,) = users
            left, right = equation.invars[0], equation.invars[-1]
            if equation.primitive.name not in ADDITIONS or left is right:
                return None
            term = right if left is variable else left
            output = equation.outvars[0]
            if term.aval.shape != output.aval.shape != variable.aval.shape:
                return None
            if term.aval.shape != variable.aval.shape:
                return None
            terms.append(term)
            variable = output
        read = self.dependence.users.get(variable) or variable in self.stacked
        if not terms or read or updates.count(variable) != 1:
            return None
        return tuple(terms)

    def pays_as_map(self) -> bool:
        """Whether the loop would pay as a batch, were its sums not carried."""
        read = {*free_variables(self.loop.equations)} & self.loop.sequences.keys()
        rows = [*read, *self.loop.wanted_rows()]
        machine, length = self.context.machine, self.loop.length
        return machine.pays_as_map(self.loop.equations, rows, length, summed=True)

    def plan_of_all(self, atoms: tuple[Atom, ...]) -> _Plan | None:
        """How to sum several operands; `None` if one of them takes too much memory."""
        total = _Plan(False)
        for atom in atoms:
            plan = self.plan(atom)
            if plan is None:
                return None
            total |= plan
        return total

    def plan(self, atom: Atom) -> _Plan | None:
        """How to sum an operand over time; `None` if that takes too much memory."""
        if not is_variable(atom) or self.dependence.level(atom) is Level.CONSTANT:
            return _Plan(False)
        if atom in self.free:
            return _Plan(False, frozenset({atom}))
        equation = self.dependence.producers.get(atom)
        if equation is None or not batchable(equation):
            return self._materialise(atom)
        name = equation.primitive.name
        if name in ADDITIONS or name == "sub" or name in LINEAR:
            return self._through(equation)
        changing = [v for v in equation.invars if self._changes(v)]
        if name == "dot_general" and len(changing) == 2:
            return self._product(equation)
        if self._writes_into_zeros(equation):
            operands = self._rows(changing)
            pays = _Plan(self.context.machine.takes_out_rows)
            return None if operands is None else pays | operands | _of(equation)
        if self.dependence.level(atom) is Level.SEQUENCE:
            return self._recompute(atom)
        if self.free.issuperset(changing):
            return _Plan(False, frozenset(changing)) | _of(equation)
        return self._materialise(atom)

    def _changes(self, atom: Atom) -> bool:
        return is_variable(atom) and self.dependence.level(atom) > Level.CONSTANT

    def _through(self, equation: Any) -> _Plan | None:
        total = _of(equation)
        for operand in equation.invars:
            plan = self.plan(operand)
            if plan is None:
                return None
            total |= plan
        return total

    def _product(self, equation: Any) -> _Plan | None:
        operands = self._rows(equation.invars)
        if operands is None:
            return None
        new = [v for v in operands.stacks if v not in self.free]
        size = stack_bytes(new, self.loop.length)
        pays = self.context.machine.pays_as_sum(
            equation, self.loop.length, size, self.context.budget
        )
        return _Plan(pays) | operands | _of(equation)

    def _writes_into_zeros(self, equation: Any) -> bool:
        """A table of zeros with some rows set: the derivative of reading a row."""
        name = equation.primitive.name
        if name not in ("scatter-add", "dynamic_update_slice"):
            return False
        if name == "scatter-add":
            numbers = equation.params["dimension_numbers"]
            if numbers.operand_batching_dims or not self._changes(equation.invars[1]):
                return False
        return is_zero(equation.invars[0], self.dependence, self.loop)

    def _rows(self, atoms: list[Any]) -> _Plan | None:
        """A plan for having rows of all the operands."""
        total = _Plan(False)
        for atom in atoms:
            if not self._changes(atom):
                continue
            if self.dependence.level(atom) is Level.SEQUENCE and atom not in self.free:
                plan = self._recompute(atom)
            else:
                plan = self._materialise(atom)
            if plan is None:
                return None
            total |= replace(plan, pays=False)
        return total

    def _recompute(self, atom: Any) -> _Plan | None:
        """Rows of sequence work: computed again after the loop."""
        producer = self.dependence.producers[atom]
        upstream = self.dependence.upstream([producer], self.loop.equations)
        pure = [e for e in upstream if self.dependence.level_of(e) > Level.CONSTANT]
        size = stack_bytes([atom], self.loop.length)
        if not all(map(batchable, pure)) or size > self.context.budget:
            return self._materialise(atom)
        machine = self.context.machine
        gains = any(map(machine.gains_batched, pure))
        pays = gains and machine.pays_batched(pure, self.loop.length)
        return _Plan(pays, frozenset(), tuple(upstream))

    def _materialise(self, atom: Any) -> _Plan | None:
        size = stack_bytes([atom], self.loop.length)
        if atom not in self.free and size > self.context.budget:
            return None
        return _Plan(False, frozenset({atom}))


def _of(equation: Any) -> _Plan:
    return _Plan(False, frozenset(), (equation,))


def is_zero(atom: Atom, dependence: Dependence, loop: Loop) -> bool:
    """Whether an operand is known to be all zeros."""
    if not is_variable(atom):
        return is_zero_literal(atom)
    if atom in loop.zeros:
        return True
    equation = dependence.producers.get(atom)
    return equation is not None and fills_with_zero(equation)
