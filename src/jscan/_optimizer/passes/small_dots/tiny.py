"""small_dots, tiny products: written as XLA's CPU compiler likes them.

A tiny product becomes multiply-and-sum. It is what keeps a whole small loop in one
compiled function, up to 60 times faster than one call per operation. A larger one does
too, behind a barrier: the compiler would otherwise do the sum again in every operation
that reads it.

The rule holds for the CPU. It runs at lowering, when no derivative will follow.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jscan._base.kinds import counted
from jscan._jax.equations import splice
from jscan._jax.names import primitives
from jscan._jax.operations import dot_sizes
from jscan._optimizer.costs.machine import Machine
from jscan._optimizer.record.context import Context
from jscan._optimizer.record.loop import Loop


def run(loop: Loop, context: Context) -> Loop:
    """Write the tiny products left in the loop as sums."""
    machine = context.machine
    tiny = [e for e in loop.equations if machine.small_dot and _is_tiny(e, machine)]
    if not tiny:
        return loop
    loop = loop.exchanged({id(e): _written_out(e, machine) for e in tiny})
    return loop.fired(
        f"{counted(len(tiny), 'tiny product')} written as multiply and sum"
    )


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


def _written_out(equation: Any, machine: Machine) -> list[Any]:
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

    return splice(product, equation.invars, equation)
