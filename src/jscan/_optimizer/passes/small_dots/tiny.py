"""small_dots, tiny products: written as XLA's CPU compiler likes them.

A tiny product becomes multiply-and-sum. It is what keeps a whole small loop in one
compiled function, up to 60 times faster than one call per operation. A larger one does
too, behind a barrier: the compiler would otherwise do the sum again in every operation
that reads it.

The rule holds for the CPU. It runs at lowering, when no derivative will follow.
"""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from jscan._jax.equations import splice
from jscan._jax.names import primitives
from jscan._jax.operations import dot_sizes
from jscan._optimizer.costs.machine import Machine
from jscan._optimizer.record.context import Context
from jscan._optimizer.record.loop import Loop


def run(loop: Loop, context: Context) -> Loop:
    """Write the tiny products left in the loop as sums."""
    machine = context.machine
    if not machine.small_dot:
        return loop
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
    return loop.fired(f"{count} tiny product(s) written as multiply and sum")


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
