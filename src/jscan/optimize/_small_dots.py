"""small_dots: dense algebra in a step, written the way XLA's CPU compiler likes it.

* A product with a transposed constant matrix (every backward loop has one) reads the
  matrix transposed once, before the loop: XLA does not hoist the transpose.
  A vector times a small matrix, or in a short loop, gains less than that takes.
* Small products that share their left operand become one with the matrices side by
  side, as long as it stays below the size at which XLA starts threads.
* A tiny product becomes multiply-and-sum. It is what keeps a whole small loop in one
  compiled function, up to 60 times faster than one call per operation. A larger
  one does too, behind a barrier: the compiler would otherwise do the sum again in
  every operation that reads it.

The rules hold for the CPU. They run at lowering, when no derivative will follow.
"""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import primitives

from jscan.optimize._cost import Machine
from jscan.optimize._dependence import Dependence, Level
from jscan.optimize._jaxpr import is_variable, splice, variable_like
from jscan.optimize._loop import Loop
from jscan.optimize._options import Context
from jscan.optimize._slices import slice_of
from jscan.optimize._work import dot_sizes

NAME = "small_dots"


def run(loop: Loop, context: Context) -> Loop:
    """Apply the three rules to the products left in the loop."""
    machine = context.machine
    if machine.transposed_rows or machine.transposed_vector:
        loop = _materialise_transposes(loop, machine)
    if machine.merged_dot:
        loop = _merge_products(loop, machine)
    if machine.small_dot:
        loop = _multiply_and_sum(loop, machine)
    return loop


def _by_constant_matrix(equation: Any, dependence: Dependence) -> bool:
    """A product of the state with one constant matrix, without batch axes."""
    if equation.primitive is not primitives.dot_general_p:
        return False
    left, right = equation.invars
    (_, contracted), (batch, _) = equation.params["dimension_numbers"]
    return (
        not batch
        and len(contracted) == 1
        and is_variable(left)
        and is_variable(right)
        and right.aval.ndim == 2
        and dependence.level(left) is Level.STATE
        and dependence.level(right) is Level.CONSTANT
    )


def _materialise_transposes(loop: Loop, machine: Machine) -> Loop:
    dependence = Dependence(loop)
    constants = dict(loop.constants)
    transposed: dict[Any, Any] = {}
    equations: list[Any] = []
    for equation in loop.equations:
        by_matrix = _by_constant_matrix(equation, dependence)
        if by_matrix and machine.stores_transposed(equation, loop.length):
            left, right = equation.invars
            (axes, (contracted,)), batch = equation.params["dimension_numbers"]
            if contracted == 1 and right in constants:
                if right not in transposed:
                    transposed[right] = variable_like(right, right.aval.shape[::-1])
                    constants[transposed[right]] = constants[right].T
                numbers = ((axes, (0,)), batch)
                equation = equation.replace(
                    invars=[left, transposed[right]],
                    params={**equation.params, "dimension_numbers": numbers},
                )
        equations.append(equation)
    if not transposed:
        return loop
    loop = replace(loop, constants=constants, equations=tuple(equations))
    return loop.fired(
        NAME, f"{len(transposed)} transposed matrix(es) stored before the loop"
    )


def _merge_products(loop: Loop, machine: Machine) -> Loop:
    dependence = Dependence(loop)
    groups: dict[Any, list[Any]] = {}
    for equation in loop.equations:
        if _by_constant_matrix(equation, dependence):
            (left_axes, (right_axis,)), _ = equation.params["dimension_numbers"]
            left, right = equation.invars
            if right_axis == 0 and right in loop.constants:
                dtype = right.aval.dtype
                groups.setdefault((left, left_axes, dtype), []).append(equation)
    for group in groups.values():
        sizes = [dot_sizes(e) for e in group]
        columns = sum(size.columns for size in sizes)
        fits = sizes[0].contracted * columns <= machine.merged_dot
        cached = any(map(machine.is_cached_dot, group))
        several = len(group) > 1 and sizes[0].rows <= machine.merged_rows
        if several and fits and not cached:
            loop = _merged(loop, group)
    return loop


def _merged(loop: Loop, group: list[Any]) -> Loop:
    first = group[0]
    matrices = [e.invars[1] for e in group]
    wide = jnp.concatenate([loop.constants[m] for m in matrices], axis=1)
    matrix = variable_like(matrices[0], wide.shape)
    *outer, _ = first.outvars[0].aval.shape
    product = variable_like(first.outvars[0], (*outer, wide.shape[1]))
    new = [first.replace(invars=[first.invars[0], matrix], outvars=[product])]
    offset = 0
    for equation in group:
        columns = equation.outvars[0].aval.shape[-1]
        starts = (*[0] * len(outer), offset)
        offset += columns
        cut = slice_of(product, starts, (*outer, offset), equation)
        new.append(cut.replace(outvars=equation.outvars))
    ids = set(map(id, group))
    equations: list[Any] = []
    for equation in loop.equations:
        # All of them read the same left operand, so all may stand where the first did.
        if equation is first:
            equations += new
        elif id(equation) not in ids:
            equations.append(equation)
    loop = replace(
        loop,
        constants={**loop.constants, matrix: wide},
        equations=tuple(equations),
    )
    return loop.fired(NAME, f"{len(group)} products with one left operand became one")


def _multiply_and_sum(loop: Loop, machine: Machine) -> Loop:
    equations: list[Any] = []
    count = 0
    for equation in loop.equations:
        if _is_tiny(equation, machine):
            sizes = dot_sizes(equation)
            apart = sizes.contracted > 1 and sizes.multiplications > machine.fused_dot
            written_out = _written_out(equation, apart)
            equations += splice(written_out, equation.invars, equation)
            count += 1
        else:
            equations.append(equation)
    if not count:
        return loop
    loop = replace(loop, equations=tuple(equations))
    return loop.fired(NAME, f"{count} tiny product(s) written as multiply and sum")


def _is_tiny(equation: Any, machine: Machine) -> bool:
    if equation.primitive is not primitives.dot_general_p:
        return False
    sizes = dot_sizes(equation)
    summed = sizes.batch == 1 and sizes.contracted > 1
    largest = machine.small_sum if summed else machine.small_dot
    left, right = equation.invars
    dtype = equation.outvars[0].aval.dtype
    matrices = sizes.batch > 1 or (sizes.rows > 1 and sizes.columns > 1)
    return (
        0 < sizes.multiplications <= largest
        and matrices
        and left.aval.dtype == right.aval.dtype == dtype
        and dtype in (jnp.float32, jnp.float64)
    )


def _written_out(equation: Any, apart: bool) -> Any:
    (left_axes, right_axes), (left_batch, right_batch) = equation.params[
        "dimension_numbers"
    ]

    def product(x: jax.Array, y: jax.Array) -> jax.Array:
        left_free = [
            i for i in range(x.ndim) if i not in left_axes and i not in left_batch
        ]
        right_free = [
            i for i in range(y.ndim) if i not in right_axes and i not in right_batch
        ]
        x = jax.lax.transpose(x, (*left_batch, *left_free, *left_axes))
        y = jax.lax.transpose(y, (*right_batch, *right_free, *right_axes))
        batch, rows, columns = len(left_batch), len(left_free), len(right_free)
        front = batch + rows
        x = jax.lax.expand_dims(x, tuple(range(front, front + columns)))
        y = jax.lax.expand_dims(y, tuple(range(batch, front)))
        shape = jnp.broadcast_shapes(x.shape, y.shape)
        last = range(front + columns, len(shape))
        terms = jnp.broadcast_to(x, shape) * jnp.broadcast_to(y, shape)
        total = jax.lax.reduce_sum(terms, tuple(last))
        return jax.lax.optimization_barrier(total) if apart else total

    return product
