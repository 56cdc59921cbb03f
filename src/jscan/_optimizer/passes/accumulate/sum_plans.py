"""accumulate, the question: how is a term summed over time, and does that pay?

A plan says which rows the sum needs, and which equations of the step run behind the
loop instead. `_accumulate.py` chooses among plans, `_time_sum.py` carries them out.
"""

from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp

from jscan._jax.equations import free_variables
from jscan._jax.jaxprs import Atom, is_variable, stack_bytes
from jscan._optimizer.analysis.dependence import Dependence, Level, batchable
from jscan._optimizer.analysis.linearity import (
    EXCHANGES,
    inner_product,
    is_linear,
    is_zero,
)
from jscan._optimizer.analysis.sum_trees import ADDITIONS
from jscan._optimizer.record.context import Context
from jscan._optimizer.record.loop import Carry, Loop


@dataclass(frozen=True)
class Plan:
    """How a term is summed over time.

    Attributes:
        pays: Whether the term alone is worth it.
        stacks: Variables whose rows the sum reads.
        equations: Equations of the step that run after the loop instead.
    """

    pays: bool
    stacks: frozenset[Any] = frozenset()
    equations: tuple[Any, ...] = ()

    def __or__(self, other: "Plan") -> "Plan":
        return Plan(
            self.pays or other.pays,
            self.stacks | other.stacks,
            (*self.equations, *other.equations),
        )


class Planner:
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

    def plan_of_all(self, atoms: tuple[Atom, ...]) -> Plan | None:
        """How to sum several operands; `None` if one of them takes too much memory."""
        total = Plan(False)
        for atom in atoms:
            plan = self.plan(atom)
            if plan is None:
                return None
            total |= plan
        return total

    def plan(self, atom: Atom) -> Plan | None:
        """How to sum an operand over time; `None` if that takes too much memory."""
        if not is_variable(atom) or self.dependence.level(atom) is Level.CONSTANT:
            return Plan(False)
        if atom in self.free:
            return Plan(False, frozenset({atom}))
        equation = self.dependence.producers.get(atom)
        name = None if equation is None else equation.primitive.name
        exchanges = name in EXCHANGES and is_linear(equation)
        length = self.loop.length
        if equation is None or not (exchanges or batchable(equation, length)):
            return self._materialise(atom)
        if name == "concatenate":
            return self._side_by_side(equation)
        if inner_product(equation, self.dependence) is not None:
            return self._inner_product(equation)
        if name in ADDITIONS or name == "sub" or is_linear(equation):
            plan = self._through(equation)
            saves = exchanges or (name == "reduce_sum" and self._saves_exchanges)
            return replace(plan, pays=True) if plan and saves else plan
        changing = [v for v in equation.invars if self._changes(v)]
        if name == "dot_general" and len(changing) == 2:
            return self._product(equation)
        if self._writes_into_zeros(equation):
            operands = self._rows(changing)
            machine = self.context.machine
            pays = Plan(machine.takes_out_rows or self._saves_exchanges)
            return None if operands is None else pays | operands | _of(equation)
        if self.dependence.level(atom) is Level.SEQUENCE:
            return self._recompute(atom)
        if self.free.issuperset(changing):
            return Plan(False, frozenset(changing)) | _of(equation)
        return self._materialise(atom)

    @property
    def _saves_exchanges(self) -> bool:
        """Whether devices may have to add up their parts at each step, else once."""
        return self.context.is_split

    def _changes(self, atom: Atom) -> bool:
        return is_variable(atom) and self.dependence.level(atom) > Level.CONSTANT

    def _through(self, equation: Any) -> Plan | None:
        total = _of(equation)
        for operand in equation.invars:
            plan = self.plan(operand)
            if plan is None:
                return None
            total |= plan
        return total

    def _product(self, equation: Any) -> Plan | None:
        operands = self._rows(equation.invars)
        if operands is None:
            return None
        new = [v for v in operands.stacks if v not in self.free]
        size = stack_bytes(new, self.loop.length)
        pays = self.context.machine.pays_as_sum(
            equation, self.loop.length, size, self.context.budget
        )
        return Plan(pays or self._saves_exchanges) | operands | _of(equation)

    def _inner_product(self, equation: Any) -> Plan | None:
        product = self.dependence.producers[equation.invars[0]]
        operands = self._rows(product.invars)
        if operands is None:
            return None
        machine = self.context.machine
        pays = machine.takes_out_inner_product(product, self.loop.length)
        return (
            Plan(pays or self._saves_exchanges)
            | operands
            | _of(product)
            | _of(equation)
        )

    def _side_by_side(self, equation: Any) -> Plan | None:
        """Parts of an array: many products of few rows are worth storing those."""
        parts = [self._product_of_rows(atom) for atom in equation.invars]
        total = _of(equation)
        for part in parts:
            if part is None:
                return self._through(equation)
            total |= part
        new, machine = len(total.stacks - self.free), self.context.machine
        if machine.takes_out_products(len(parts), new, self.loop.length):
            return replace(total, pays=True)
        return self._through(equation)

    def _product_of_rows(self, atom: Atom) -> Plan | None:
        """A plan for what is, moved or reduced, a product of what changes."""
        equation = self.dependence.producers.get(atom) if is_variable(atom) else None
        if equation is None:
            return None
        if is_linear(equation) and len(equation.invars) == 1:
            plan = self._product_of_rows(equation.invars[0])
        elif equation.primitive.name == "mul" and all(
            map(self._changes, equation.invars)
        ):
            plan = self._rows(equation.invars)
        else:
            return None
        return None if plan is None else plan | _of(equation)

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

    def _rows(self, atoms: list[Any]) -> Plan | None:
        """A plan for having rows of all the operands."""
        total = Plan(False)
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
        pays = gains and machine.pays_batched(pure, self.loop.length)
        return Plan(pays, frozenset(), tuple(upstream))

    def _materialise(self, atom: Any) -> Plan | None:
        size = stack_bytes([atom], self.loop.length)
        if atom not in self.free and size > self.context.budget:
            return None
        return Plan(False, frozenset({atom}))


def _of(equation: Any) -> Plan:
    return Plan(False, frozenset(), (equation,))
