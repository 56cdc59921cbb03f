"""small_dots, layouts: a constant matrix, stored as it is read fastest by a step.

A vector times a matrix of 36 columns takes a step 1.6 times as long as one of 48: XLA's
CPU compiler does 32 of them with vector instructions and four one by one. With columns
of zeros that nobody reads it is up to 2 times as fast, up to 3.7 with few columns; and
where few numbers are each added up from many, the matrix is stored transposed.

The rule runs at lowering, when no derivative will follow.
"""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from jscan._base.kinds import counted
from jscan._jax.equations import splice
from jscan._jax.jaxprs import Atom, variable_like
from jscan._jax.names import primitives
from jscan._jax.operations import dot_sizes
from jscan._optimizer.costs.layouts import Layout, faster_layout
from jscan._optimizer.record.context import Context
from jscan._optimizer.record.loop import Loop


@dataclass(frozen=True)
class Product:
    """A vector times a constant matrix, of which one axis is added up."""

    vector: Atom
    matrix: Any
    axis: int

    @property
    def added(self) -> int:
        return self.matrix.aval.shape[self.axis]

    @property
    def layout(self) -> Layout:
        return Layout(self.axis == 1, self.matrix.aval.shape[1 - self.axis])


def run(loop: Loop, context: Context) -> Loop:
    """Store matrices that vectors are multiplied by in the layout that is faster."""
    stored: dict[Any, Any] = {}
    values: dict[Any, jax.Array] = {}
    new: dict[int, list[Any]] = {}
    for equation in loop.equations:
        product = constant_matrix(equation, loop)
        best = best_layout(product, loop.length, context) if product else None
        if product and best:
            more = 2 * product.added * (best.columns - product.layout.columns)
            context = replace(context, counted=context.counted + more)
            key = product.matrix, product.axis, best
            if key not in stored:
                value = _laid_out(loop.constants[product.matrix], product.axis, best)
                stored[key] = variable_like(value)  # it may vary over devices
                values[stored[key]] = value
            new[id(equation)] = _written(equation, product, best, stored[key])
    if not new:
        return loop
    loop = replace(loop.exchanged(new), constants={**loop.constants, **values})
    return loop.fired(
        f"{counted(len(stored), 'matrix')} stored as a vector is multiplied fastest"
    )


def best_layout(product: Product, length: int, context: Context) -> Layout | None:
    """The layout in which the matrix is to be stored, if that pays."""
    size = product.matrix.aval.dtype.itemsize
    lanes = context.machine.register_bytes // size
    if not lanes:
        return None
    machine, layout, added = context.machine, product.layout, product.added
    best = faster_layout(layout, added, lanes, length)
    more = 2 * added * (best.columns - layout.columns) if best else 0
    if more and context.counted + more >= machine.dispatched_flops:
        best = faster_layout(layout, added, lanes, length, machine.dispatch_start)
    fits = best and product.added * best.columns * size <= context.budget
    return best if fits else None


def constant_matrix(equation: Any, loop: Loop) -> Product | None:
    """What an equation multiplies, if it is a vector and a constant matrix."""
    if equation.primitive is not primitives.dot_general_p:
        return None
    sizes = dot_sizes(equation)
    axes, batch = equation.params["dimension_numbers"]
    dtype = equation.outvars[0].aval.dtype
    if not sizes.is_of_vector or any(batch) or len(axes[0]) != 1:
        return None
    if dtype not in (jnp.float32, jnp.float64) or equation.params.get("out_sharding"):
        return None
    sides = zip(equation.invars, axes, strict=True)
    vector, matrix = sorted(sides, key=lambda side: side[0].aval.size)
    found = Product(vector[0], matrix[0], matrix[1][0])
    fits = (
        found.matrix in loop.constants
        and found.matrix.aval.ndim == 2
        and found.vector.aval.size == found.added
        and found.vector.aval.dtype == found.matrix.aval.dtype == dtype
    )
    return found if fits else None


def _laid_out(matrix: jax.Array, axis: int, layout: Layout) -> jax.Array:
    """The matrix in another layout: those of 0 are columns that nobody reads."""
    by_columns = matrix if axis == 0 else matrix.T
    more = layout.columns - by_columns.shape[1]
    by_columns = jnp.pad(by_columns, ((0, 0), (0, more)))
    return by_columns.T if layout.by_rows else by_columns


def _written(equation: Any, product: Product, layout: Layout, matrix: Any) -> list[Any]:
    """The product with the matrix in that layout."""
    how = {k: equation.params[k] for k in ("precision", "preferred_element_type")}
    shape, columns = equation.outvars[0].aval.shape, product.layout.columns

    def value(vector: jax.Array, matrix: jax.Array) -> jax.Array:
        vector = vector.reshape(product.added)
        if layout.by_rows:
            found = jax.lax.dot_general(matrix, vector, (((1,), (0,)), ((), ())), **how)
        else:
            found = jax.lax.dot_general(vector, matrix, (((0,), (0,)), ((), ())), **how)
        return found[:columns].reshape(shape)

    return splice(value, [product.vector, matrix], equation)
