"""Which rows that a loop reads it can compute in the step, from what they are made of.

A program multiplies all rows by two and a loop reads the result: the rows of the
product are written once and read once for nothing. Cheap work element by element on
rows of one loop alone is done at the step that reads them.
"""

from collections.abc import Mapping
from typing import Any

from jscan._jax.equations import free_variables
from jscan._jax.jaxprs import is_variable, number_of_bytes, variable_like
from jscan._jax.names import primitives
from jscan._jax.operations import CHEAPER_THAN_A_ROW
from jscan._optimizer.analysis.index import Flat
from jscan._optimizer.passes.across_loops.recompute_search import LONGEST, Again
from jscan._optimizer.record.loop import Loop


def absorb(loop: Loop, equation: Any, flat: Flat, again: Again) -> None:
    """Add to `again` what a loop can compute itself.

    Args:
        loop: The record of the loop, with operands in place of values.
        equation: The loop.
        flat: The program around it.
        again: What the loop computes.
    """
    # What is read outside, with its variable in the step.
    names = {outer: v for v, outer in loop.sequences.items() if is_variable(outer)}
    for variable, outer in loop.sequences.items():
        alone = is_variable(outer) and flat.readers.get(outer) == (equation,)
        if not alone or equation.invars.count(outer) != 1:
            continue
        chain = _chain(outer, flat)
        leaves = [v for v in free_variables(chain) if v not in names]
        new = [v for v in leaves if v.aval.shape]
        if not chain or any(v.aval.shape[0] != loop.length for v in new):
            continue
        if sum(map(number_of_bytes, new)) > number_of_bytes(outer):
            continue
        for leaf in leaves:
            rows = leaf.aval.shape != ()
            names[leaf] = _row(leaf) if rows else variable_like(leaf)
            (again.read if rows else again.fixed)[names[leaf]] = leaf
        here = dict(names)
        for step in chain:
            (output,) = step.outvars
            here.setdefault(output, _row(output))
            again.equations.append(_for_a_row(step, here))
        again.gone.append(variable)
        del names[outer]


def _chain(outer: Any, flat: Flat) -> list[Any]:
    """The cheap equations that make rows for one loop alone, in order."""
    found: set[int] = set()
    pending = [outer]
    while pending:
        equation = flat.producers.get(pending.pop())
        if equation is None or not _is_cheap_row(equation):
            continue
        (output,) = equation.outvars
        if output.aval.shape != outer.aval.shape:
            continue
        readers = flat.readers.get(output)
        if output is not outer and (
            readers is None or not found.issuperset(map(id, readers))
        ):
            continue  # something else reads it: it exists anyway
        found.add(id(equation))
        pending += filter(is_variable, equation.invars)
        if len(found) > LONGEST:
            return []
    return [e for e in flat.equations if id(e) in found] if found else []


def _is_cheap_row(equation: Any) -> bool:
    """Whether each row of the result is made, cheaply, of the same rows of operands."""
    shape = equation.outvars[0].aval.shape
    if len(equation.outvars) != 1 or not shape:
        return False
    if equation.primitive is primitives.broadcast_in_dim_p:
        return equation.invars[0].aval.shape == ()
    alike = all(atom.aval.shape in ((), shape) for atom in equation.invars)
    return alike and equation.primitive.name in CHEAPER_THAN_A_ROW


def _row(rows: Any) -> Any:
    return variable_like(rows, rows.aval.shape[1:])


def _for_a_row(equation: Any, names: Mapping[Any, Any]) -> Any:
    operands = [names[a] if is_variable(a) else a for a in equation.invars]
    row, params = names[equation.outvars[0]], equation.params
    if equation.primitive is primitives.broadcast_in_dim_p:
        params = {**params, "shape": row.aval.shape}
    return equation.replace(invars=operands, outvars=[row], params=params)
