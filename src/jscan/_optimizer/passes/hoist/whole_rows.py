"""hoist: a row is read as a whole before a step works on it.

XLA reads the row of a stack inside the elementwise work that needs it. Where JAX 0.12
does so it does not vectorise a tanh in its native loops, nor in other loops a tanh, a
logistic or an exp beside slices of the row. A barrier makes the row an array of its
own: up to 4 times as fast from 64 elements on. Cheap arithmetic would lose a fifth.
"""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from jscan._base.kinds import counted
from jscan._jax.equations import splice, unique_variables
from jscan._jax.jaxprs import variable_like
from jscan._jax.operations import (
    POLYNOMIALS,
    SHAPES_ONLY,
    applies,
    dot_sizes,
    is_cut,
    is_elementwise,
)
from jscan._optimizer.analysis.dependence import Dependence
from jscan._optimizer.record.cleanup import substitute
from jscan._optimizer.record.context import Context
from jscan._optimizer.record.loop import Loop


def run(loop: Loop, context: Context) -> Loop:
    """Put a barrier behind the rows that are read slowly."""
    smallest = context.machine.whole_rows
    rows = _slow_rows(loop, smallest) if smallest else []
    if not rows:
        return loop
    whole = [variable_like(row) for row in rows]
    reader = next(e for e in loop.equations if not set(rows).isdisjoint(_read(e)))
    barrier = splice(
        lambda *values: jax.lax.optimization_barrier(values), rows, reader, whole
    )
    changed = substitute(loop, dict(zip(rows, whole, strict=True)))
    loop = replace(loop, equations=(*barrier, *changed.equations))
    return loop.fired(f"{counted(len(rows), 'row')} read whole at each step")


def _read(*equations: Any) -> list[Any]:
    return unique_variables(atom for e in equations for atom in e.invars)


def _slow_rows(loop: Loop, smallest: int) -> list[Any]:
    dependence = Dependence(loop)
    elsewhere = {*dependence.read_outside(), *loop.wanted_rows()}
    rows = [
        row
        for row in _read(*loop.equations)
        if row in loop.sequences
        and row.aval.size >= smallest
        and row not in elsewhere
        and jnp.issubdtype(row.aval.dtype, jnp.floating)
    ]
    if _is_native_with_tanh(loop, smallest):
        return rows
    if not any(map(_has_rows, loop.equations)):
        return []
    if not applies(loop.equations, POLYNOMIALS, smallest):
        return []
    return [row for row in rows if _is_cut_up(row, dependence, smallest)]


def _is_native_with_tanh(loop: Loop, smallest: int) -> bool:
    """Whether XLA makes one function of a step that takes a large tanh."""
    native = all(
        is_elementwise(e)
        or is_cut(e)
        or e.primitive.name in SHAPES_ONLY
        or (e.primitive.name == "dot_general" and not _has_rows(e))
        for e in loop.equations
    )
    return native and applies(loop.equations, {"tanh"}, smallest)


def _has_rows(equation: Any) -> bool:
    """Whether an equation is a product of several rows, done by a kernel."""
    if equation.primitive.name != "dot_general":
        return False
    sizes = dot_sizes(equation)
    return sizes.batch == 1 and sizes.rows > 1 and sizes.columns > 1


def _is_cut_up(row: Any, dependence: Dependence, smallest: int) -> bool:
    """Whether slices alone read a row, or what elementwise work makes of it."""
    pending, seen = [row], {row}
    while pending:
        readers = dependence.users.get(pending.pop(), [])
        if not readers:
            return False
        for equation in readers:
            made = equation.outvars[0]
            if is_cut(equation) and made.aval.size >= smallest:
                continue
            if not is_elementwise(equation):
                return False
            if made not in seen:
                seen.add(made)
                pending.append(made)
    return True
