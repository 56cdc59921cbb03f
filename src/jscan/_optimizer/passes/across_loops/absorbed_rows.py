"""Which rows that a loop reads it can compute in the step, from what they are made of.

A program multiplies all rows by two and a loop reads the result: the rows of the
product are written once and read once for nothing. Cheap work element by element on
rows of one loop alone is done at the step that reads them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jscan._jax.jaxprs import Atom, Literal, is_variable, number_of_bytes, variable_like
from jscan._jax.names import primitives
from jscan._jax.operations import CHEAPER_THAN_A_ROW
from jscan._optimizer.analysis.index import Flat
from jscan._optimizer.passes.across_loops.recompute_search import LONGEST, Again
from jscan._optimizer.record.loop import Loop


def absorbed(loop: Loop, equation: Any, flat: Flat) -> Again:
    """What a loop can compute itself.

    Args:
        loop: The record of the loop, with operands in place of values.
        equation: The loop.
        flat: The program around it.
    """
    here = {outer: v for v, outer in loop.sequences.items() if is_variable(outer)}
    work = _Work(here)
    gone: list[Any] = []
    for variable, outer in loop.sequences.items():
        alone = is_variable(outer) and flat.readers.get(outer) == (equation,)
        if not alone or equation.invars.count(outer) != 1:
            continue
        chain = _chain(outer, flat)
        leaves = _leaves(chain)
        new = [v for v in leaves if v.aval.shape and v not in work.names]
        if not chain or any(v.aval.shape[:1] != (loop.length,) for v in new):
            continue
        if sum(map(number_of_bytes, new)) > number_of_bytes(outer):
            continue
        work.add(chain, variable, outer)
        gone.append(variable)
    return Again(tuple(gone), work.read, work.fixed, tuple(work.equations))


def _chain(outer: Any, flat: Flat) -> list[Any]:
    """The cheap equations that make rows for one loop alone, in order."""
    found: list[Any] = []
    pending = [outer]
    while pending:
        equation = flat.producers.get(pending.pop())
        if equation is None or not is_cheap_row(equation):
            continue
        if equation.outvars[0].aval.shape != outer.aval.shape:
            continue
        ids = {id(e) for e in found}
        for output in equation.outvars:
            readers = flat.readers.get(output)
            if output is not outer and (
                readers is None or any(id(e) not in ids for e in readers)
            ):
                break  # something else reads it: it exists anyway
        else:
            if id(equation) not in ids:
                found.append(equation)
            pending += filter(is_variable, equation.invars)
        if len(found) > LONGEST:
            return []
    order = {id(e): i for i, e in enumerate(flat.equations)}
    return sorted(found, key=lambda e: order[id(e)])


def is_cheap_row(equation: Any) -> bool:
    """Whether each row of the result is made, cheaply, of the same rows of operands."""
    if len(equation.outvars) != 1:
        return False
    shape = equation.outvars[0].aval.shape
    if equation.primitive is primitives.broadcast_in_dim_p:
        return bool(shape) and equation.invars[0].aval.shape == ()
    return (
        bool(shape)
        and equation.primitive.name in CHEAPER_THAN_A_ROW
        and all(atom.aval.shape in ((), shape) for atom in equation.invars)
    )


def _leaves(chain: list[Any]) -> list[Any]:
    made = {v for e in chain for v in e.outvars}
    read = dict.fromkeys(a for e in chain for a in e.invars if is_variable(a))
    return [v for v in read if v not in made]


@dataclass
class _Work:
    """The equations of a step that replace rows, as they are collected."""

    names: dict[Any, Any]  # what is read outside -> its variable in the step
    read: dict[Any, Any] = field(default_factory=dict)
    fixed: dict[Any, Any] = field(default_factory=dict)
    equations: list[Any] = field(default_factory=list)

    def add(self, chain: list[Any], variable: Any, outer: Any) -> None:
        """One row computed by the equations of the program, row by row."""
        for leaf in _leaves(chain):
            if leaf in self.names:
                continue
            scalar = leaf.aval.shape == ()
            row = variable_like(leaf, None if scalar else leaf.aval.shape[1:])
            self.names[leaf] = row
            (self.fixed if scalar else self.read)[row] = leaf
        made: dict[Any, Any] = {}
        for equation in chain:
            (output,) = equation.outvars
            row = variable if output is outer else variable_like(output, _row(output))
            made[output] = row
            self.equations.append(_for_a_row(equation, {**self.names, **made}, row))
        self.names.pop(outer, None)


def _row(atom: Atom) -> tuple[int, ...]:
    return atom.aval.shape[1:]


def _for_a_row(equation: Any, names: Mapping[Any, Any], row: Any) -> Any:
    operands = [a if isinstance(a, Literal) else names[a] for a in equation.invars]
    params = equation.params
    if equation.primitive is primitives.broadcast_in_dim_p:
        params = {**params, "shape": row.aval.shape}
    return equation.replace(invars=operands, outvars=[row], params=params)
