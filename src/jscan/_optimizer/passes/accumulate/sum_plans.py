"""accumulate, the question: how is a term summed over time, and does that pay?

A plan says which rows the sum needs, and which equations of the step run behind the
loop instead. `sums_out.py` chooses among plans; `writing/time_sums.py` carries them
out.
"""

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp

from jscan._jax.equations import free_variables, needed, new_equation
from jscan._jax.jaxprs import Atom, stack_bytes, variable_like
from jscan._jax.names import primitives
from jscan._optimizer.analysis.at_once import tied
from jscan._optimizer.analysis.dependence import Dependence, Level, batchable
from jscan._optimizer.analysis.linearity import (
    ADDED_UP,
    EXCHANGES,
    inner_product,
    is_linear,
    writes_into_zeros,
)
from jscan._optimizer.analysis.sum_trees import ADDITIONS
from jscan._optimizer.record.context import Context
from jscan._optimizer.record.loop import Carry, Loop


@dataclass(frozen=True)
class Plan:
    """How a term is summed over time.

    Attributes:
        pays: Whether the term alone is worth it.
        saved: Nanoseconds that its products save, for which others may count as well.
        stacks: Variables whose rows the sum reads.
        equations: Equations of the step that run after the loop instead.
    """

    pays: bool = False
    saved: float = 0.0
    stacks: frozenset[Any] = frozenset()
    equations: tuple[Any, ...] = ()


class Planner:
    """Finds accumulators in one loop and plans their sums."""

    def __init__(self, loop: Loop, context: Context) -> None:
        self.loop = loop
        self.context = context
        self.dependence = Dependence(loop)
        self.stacked = set(loop.stacked())
        self.free = frozenset({*loop.sequences, *self.stacked})
        self.start = context.machine.sum_start(loop.equations)
        # Devices may have to add up their parts at each step, else once.
        self._saves_exchanges = context.is_split

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
            terms.append(right if left is variable else left)
            if terms[-1].aval.shape != variable.aval.shape:
                return None
            (variable,) = equation.outvars
        read = self.dependence.users.get(variable) or variable in self.stacked
        if not terms or read or updates.count(variable) != 1:
            return None
        return tuple(terms)

    @functools.cached_property
    def pays_as_map(self) -> bool:
        """Whether the loop would run as a batch, were its sums not carried."""
        if tied(self.loop):
            return False
        read = {*free_variables(self.loop.equations)} & self.loop.sequences.keys()
        wanted = self.loop.wanted_rows()
        keeps = self.context.machine.keeps_map_in_loop
        rows, how = [*read, *wanted], dict(summed=True, stored=bool(wanted))
        return not keeps(self.loop.equations, rows, self.loop.length, **how)

    def plan_of_all(self, atoms: Iterable[Atom]) -> Plan | None:
        """How to sum several operands; `None` if one of them takes too much memory."""
        return _together(map(self.plan, atoms))

    def plan(self, atom: Atom) -> Plan | None:
        """How to sum an operand over time; `None` if that takes too much memory."""
        if not self.dependence.changes(atom):
            return Plan()
        if atom in self.free:
            return Plan(stacks=frozenset({atom}))
        machine, length = self.context.machine, self.loop.length
        equation = self.dependence.producer(atom)
        name = None if equation is None else equation.primitive.name
        exchanges = name in EXCHANGES and is_linear(equation)
        if equation is None or not (exchanges or batchable(equation, length)):
            return self._materialise(atom)
        if name == "concatenate":
            return self._side_by_side(equation)
        product = inner_product(equation, self.dependence)
        if product is not None:
            # To add up a number takes less than to store rows.
            rows, pays = self._rows(product.invars), self._saves_exchanges
            return _and(rows, product, equation, pays=pays)
        if name in ADDED_UP or is_linear(equation):
            saves = exchanges or (name == "reduce_sum" and self._saves_exchanges)
            return _and(self.plan_of_all(equation.invars), equation, pays=saves)
        changing = list(filter(self.dependence.changes, equation.invars))
        if name == "dot_general" and len(changing) == 2:
            return self._product(equation)
        if writes_into_zeros(equation, self.dependence):
            pays = machine.takes_out_rows or self._saves_exchanges
            return _and(self._rows(changing), equation, pays=pays)
        if self.dependence.level(atom) is Level.SEQUENCE:
            return self._recompute(atom)
        if self.free.issuperset(changing):
            return Plan(stacks=frozenset(changing), equations=(equation,))
        return self._materialise(atom)

    def plan_of_work(self, sums: Sequence[Carry], terms: Sequence[Atom]) -> Plan | None:
        """A plan for the work that terms need and no other state, if it is worth it.

        What it reads is stored instead, as far as it is not anyway.
        """
        loop, machine, level = self.loop, self.context.machine, self.dependence.level_of
        others = [c.update for c in loop.carries if c not in sums]
        stays = needed(loop.equations, others)
        ids = set(map(id, stays))
        work = [e for e in needed(loop.equations, terms) if id(e) not in ids]
        gains = any(machine.gains_batched(e) and level(e) is Level.STATE for e in work)
        if not gains or not all(batchable(e, loop.length) for e in work):
            return None
        if any(map(self._has_no_matrix, work)):
            return None  # for all steps at once it is as many products
        changing = filter(self.dependence.changes, free_variables(work))
        new = frozenset(changing) - self.free
        held, more = (stack_bytes(list(v), loop.length) for v in (self.stacked, new))
        before, after = self.dependence.step(), self.dependence.step(stays)
        freed = machine.freed(before, after) - machine.stores(new)
        why = machine.keeps_in_loop(
            work, loop.length, freed, step=loop.equations, held=held, new=more
        )
        if why is not None or more > self.context.budget:
            return None
        return Plan(pays=True, stacks=new, equations=tuple(work))

    def relieves(self, sums: Sequence[Carry], plans: Sequence[Plan]) -> bool:
        """Whether products that are small pay together, by calls that a step saves.

        Without some sums it is another step, that stores what their plans read.
        """
        new = frozenset[Any]().union(*(plan.stacks for plan in plans)) - self.free
        work = [e for plan in plans for e in plan.equations]
        if work and not any(map(self._has_no_matrix, work)):
            return False  # it would be done for all steps, and not by a product
        if stack_bytes(list(new), self.loop.length) > self.context.budget:
            return False
        loop, machine = self.loop, self.context.machine
        updates = [c.update for c in loop.carries if c not in sums]
        stays = needed(loop.equations, [*updates, *self.stacked, *new])
        before, after = self.dependence.step(), self.dependence.step(stays)
        saved = machine.relieved(before, after)
        saved = loop.length * (saved - machine.stores(new))
        return self.start > 0 and machine.relieving_start <= saved

    def _has_no_matrix(self, equation: Any) -> bool:
        """Whether an equation is a product of two operands that both change."""
        changing = map(self.dependence.changes, equation.invars)
        return equation.primitive.name == "dot_general" and all(changing)

    def _product(self, equation: Any) -> Plan | None:
        operands = self._rows(equation.invars)
        if operands is None:
            return None
        size = stack_bytes(list(operands.stacks - self.free), self.loop.length)
        machine, loop, budget = self.context.machine, self.loop, self.context.budget
        step = machine.saved_by_sum(equation, size, budget)
        pays = step * loop.length >= self.start or self._saves_exchanges
        plan = _and(
            operands, equation, pays=pays and (step > 0 or self._saves_exchanges)
        )
        return plan and replace(plan, saved=step * loop.length)

    def _side_by_side(self, equation: Any) -> Plan | None:
        """Parts of an array: many products of few rows are worth storing those."""
        parts = equation.invars
        total = _together(map(self._product_of_rows, parts))
        if total is not None:
            new, machine = len(total.stacks - self.free), self.context.machine
            if machine.takes_out_products(len(parts), new, self.loop.length):
                return _and(total, equation, pays=True)
        return _and(self.plan_of_all(parts), equation)

    def _product_of_rows(self, atom: Atom) -> Plan | None:
        """A plan for what is, moved or reduced, a product of what changes."""
        equation = self.dependence.producer(atom)
        if equation is None:
            return None
        if is_linear(equation) and len(equation.invars) == 1:
            return _and(self._product_of_rows(equation.invars[0]), equation)
        is_product = equation.primitive.name == "mul"
        if is_product and all(map(self.dependence.changes, equation.invars)):
            return _and(self._rows(equation.invars), equation)
        return None

    def _rows(self, atoms: Iterable[Atom]) -> Plan | None:
        """A plan for having rows of all the operands that change."""
        plans = (self._rows_of(a) for a in atoms if self.dependence.changes(a))
        total = _together(plans)
        return total and replace(total, pays=False, saved=0.0)

    def _rows_of(self, atom: Any) -> Plan | None:
        if self.dependence.level(atom) is Level.SEQUENCE and atom not in self.free:
            return self._recompute(atom)
        return self._materialise(atom)

    def _recompute(self, atom: Any) -> Plan | None:
        """Rows of sequence work: computed again after the loop."""
        producer = self.dependence.producers[atom]
        upstream = self.dependence.upstream([producer], self.loop.equations)
        pure = [e for e in upstream if self.dependence.level_of(e) > Level.CONSTANT]
        size = stack_bytes([atom], self.loop.length)
        can = all(batchable(e, self.loop.length) for e in pure)
        if not can or size > self.context.budget:
            return self._materialise(atom)
        machine = self.context.machine
        gains = any(map(machine.gains_batched, pure))
        pays = gains and not machine.keeps_in_loop(pure, self.loop.length)
        return Plan(pays, equations=tuple(upstream))

    def _materialise(self, atom: Any) -> Plan | None:
        size = stack_bytes([atom], self.loop.length)
        if atom not in self.free and size > self.context.budget:
            return None
        return Plan(stacks=frozenset({atom}))


def with_additions(loop: Loop) -> Loop:
    """The loop whose sums add negative terms instead of subtracting: the same bits."""
    dependence, new = Dependence(loop), {}
    for carry in loop.carries:
        variable = carry.variable
        while len(users := dependence.users.get(variable, [])) == 1:
            (equation,) = users
            left, right = equation.invars[0], equation.invars[-1]
            if equation.primitive.name == "sub" and left is variable is not right:
                new[id(equation)] = _as_addition(equation)
            elif equation.primitive.name not in ADDITIONS:
                break
            (variable,) = equation.outvars
    return loop.exchanged(new)


def _as_addition(equation: Any) -> list[Any]:
    left, right = equation.invars
    negative = variable_like(equation.outvars[0])
    source = equation.source_info
    negated = new_equation(primitives.neg_p, [right], negative, source)
    (total,) = equation.outvars
    return [negated, new_equation(primitives.add_p, [left, negative], total, source)]


def _together(plans: Iterable[Plan | None]) -> Plan | None:
    """One plan of several; `None` if one of them takes too much memory."""
    total = Plan()
    for plan in plans:
        if plan is None:
            return None
        total = Plan(
            total.pays or plan.pays,
            total.saved + plan.saved,
            total.stacks | plan.stacks,
            (*total.equations, *plan.equations),
        )
    return total


def _and(plan: Plan | None, *equations: Any, pays: bool = False) -> Plan | None:
    """A plan by which more equations run behind the loop, which may make it pay."""
    return _together([plan, Plan(pays, equations=equations)])
