"""small_dots, tiny products: written as multiply and sum, which a compiler fuses.

On a CPU that is what keeps a whole small loop in one compiled function, up to 60 times
faster than one call per operation. A larger product is written so behind a barrier: the
compiler would otherwise do the sum again in every operation that reads it.

Of a matrix times a vector the columns are added up. A constant one that lies in rows is
stored transposed for that; with few columns of many numbers each it stays a product,
which reads rows faster (`layouts.py`).

What is tiny, and for which kinds of products, differs by device (`costs/machines.py`).
The rule runs at lowering, when no derivative will follow.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from jscan._base.kinds import counted
from jscan._jax.equations import spliced
from jscan._jax.jaxprs import avals_of, trace, variable_like
from jscan._jax.names import primitives
from jscan._jax.operations import dot_sizes
from jscan._optimizer.analysis.dependence import Dependence
from jscan._optimizer.costs.fusions import Step
from jscan._optimizer.costs.machine import Machine
from jscan._optimizer.costs.tiny import matrix_of
from jscan._optimizer.passes.small_dots.apart import apart
from jscan._optimizer.passes.small_dots.layouts import best_layout, constant_matrix
from jscan._optimizer.record.context import Context
from jscan._optimizer.record.loop import Loop


def run(loop: Loop, context: Context) -> Loop:
    """Write the tiny products left in the loop as sums."""
    machine = context.machine
    products = [e for e in loop.equations if e.primitive is primitives.dot_general_p]
    rows = {id(e): m for e in products if (m := _in_rows(e, loop, context))}
    is_constant = lambda e: matrix_of(e)[0] in loop.constants
    tiny = [e for e in products if id(e) in rows or machine.is_tiny(e, is_constant(e))]
    step = Dependence(loop).step()
    if not machine.calls_too_many(step, but=tiny):
        stay = apart(tiny, loop, machine, rows.keys())
        tiny = [e for e in tiny if id(e) not in stay]
        summed = set(map(id, tiny))
        if any(machine.is_call(e) for e in products if id(e) not in summed):
            # The step calls these anyway; with a vector, a call is as fast as a sum.
            tiny = [e for e in tiny if not dot_sizes(e).is_of_vector]
        tiny = [e for e in tiny if not _pays_in_rows(e, loop, context, step)]
    if not tiny:
        return loop
    turned = {rows[id(e)] for e in tiny if id(e) in rows}
    values = {matrix: loop.constants[matrix].T for matrix in turned}
    columns = {matrix: variable_like(value) for matrix, value in values.items()}
    sums: dict[Any, Any] = {}
    new = {
        id(e): _written_out(e, machine, sums, columns.get(rows.get(id(e))))
        for e in tiny
    }
    stored = {columns[matrix]: value for matrix, value in values.items()}
    loop = replace(loop.exchanged(new), constants={**loop.constants, **stored})
    return loop.fired(
        f"{counted(len(tiny), 'tiny product')} written as multiply and sum"
    )


def _in_rows(product: Any, loop: Loop, context: Context) -> Any | None:
    """The constant matrix of a product with a vector that is stored transposed."""
    machine, found = context.machine, constant_matrix(product, loop)
    long = 0 < machine.transposed_vector <= loop.length
    if not (found and long and found.axis == 1):
        return None
    return found.matrix if machine.adds_columns(dot_sizes(product)) else None


def _pays_in_rows(product: Any, loop: Loop, context: Context, step: Step) -> bool:
    """Whether it stays a product, of a constant matrix that is stored as rows."""
    machine, found = context.machine, constant_matrix(product, loop)
    if not found or found.axis == 1 or context.is_split:
        return False
    if not machine.reads_rows(dot_sizes(product)):
        return False
    if machine.becomes_one(step, [product]):
        return False
    best = best_layout(found, loop.length, context)
    return best is not None and best.by_rows


def _written_out(
    equation: Any, machine: Machine, sums: dict[Any, Any], columns: Any
) -> list[Any]:
    """A product as a sum; `sums` has those of its kind that were traced.

    Given may be its transposed matrix, whose columns are to be added up.
    """
    of_vector, turned = dot_sizes(equation).is_of_vector, columns is not None
    function = _added_up(equation, turned) if of_vector else _summed(equation, machine)
    operands = list(equation.invars)
    if of_vector and matrix_of(equation)[0] is operands[1]:
        operands.reverse()
    if turned:
        operands[0] = columns
    types = avals_of(equation.invars)
    kind = (*types, str(equation.params["dimension_numbers"]), turned)
    if kind not in sums:
        sums[kind] = trace(function, avals_of(operands))
    return spliced(sums[kind], operands, equation)


def _summed(equation: Any, machine: Machine) -> Callable[..., jax.Array]:
    """A product of matrices: multiplied element by element, and added up."""
    sizes = dot_sizes(equation)
    apart = sizes.contracted > 1 and sizes.multiplications > machine.fused_dot
    contracted, batched = equation.params["dimension_numbers"]
    batch, shared = len(batched[0]), len(batched[0]) + len(contracted[0])

    def in_order(array: jax.Array, first: Any, last: Any) -> jax.Array:
        free = [i for i in range(array.ndim) if i not in (*first, *last)]
        return jax.lax.transpose(array, (*first, *free, *last))

    def product(x: jax.Array, y: jax.Array) -> jax.Array:
        x, y = map(in_order, (x, y), batched, contracted)
        front, columns = batch + x.ndim - shared, y.ndim - shared
        x = jax.lax.expand_dims(x, tuple(range(front, front + columns)))
        y = jax.lax.expand_dims(y, tuple(range(batch, front)))
        x, y = jnp.broadcast_arrays(x, y)
        total = jax.lax.reduce_sum(x * y, tuple(range(front + columns, x.ndim)))
        return jax.lax.optimization_barrier(total) if apart else total

    return product


def _added_up(equation: Any, turned: bool) -> Callable[..., jax.Array]:
    """A matrix times a vector: the sum of its rows, or columns, times a number each."""
    _, (axis,) = matrix_of(equation)
    axis = 1 - axis if turned else axis
    shape = equation.outvars[0].aval.shape

    def product(matrix: jax.Array, vector: jax.Array) -> jax.Array:
        numbers = jax.lax.broadcast_in_dim(vector.ravel(), matrix.shape, (axis,))
        total = jax.lax.reduce_sum(matrix * numbers, (axis,))
        return total if total.shape == shape else total.reshape(shape)

    return product
