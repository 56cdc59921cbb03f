"""Which operations are linear in an operand, and which are inner products."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from jscan._jax.jaxprs import Atom, fills_with_zero, is_variable, is_zero_literal
from jscan._optimizer.analysis.dependence import Dependence, Level
from jscan._optimizer.analysis.sum_trees import ADDITIONS

_LINEAR = frozenset(
    {
        *("neg", "transpose", "reshape", "squeeze", "broadcast_in_dim"),
        *("reduce_sum", "slice", "rev", "copy"),
    }
)
"""Operations that only move and add: of a sum they give the sum of what they give."""

ADDED_UP = ADDITIONS | {"sub", "concatenate"}
"""Operations of which the sum over time is that of the sums of all operands."""

WIDE_TYPES = frozenset(
    map(jnp.dtype, ("float32", "float64", "complex64", "complex128"))
)
"""Types with room for what was scaled, or multiplied, in another order.

A sum of numbers of half the width overflows before it is scaled down, and a product of
such numbers is rounded to a few digits.
"""

EXCHANGES = frozenset({"psum", "psum_invariant"})
"""Sums over devices, which are the same once for all steps as at each of them."""


def is_linear(equation: Any) -> bool:
    """Whether an equation can as well be done after a sum."""
    name = equation.primitive.name
    # JAX converts to the same type where a number has none of its own.
    if name == "convert_element_type":
        return equation.invars[0].aval.dtype == equation.outvars[0].aval.dtype
    return name in _LINEAR or (name in EXCHANGES and len(equation.invars) == 1)


def is_zero(atom: Atom, dependence: Dependence) -> bool:
    """Whether an operand is known to be all zeros."""
    if not is_variable(atom):
        return is_zero_literal(atom)
    if atom in dependence.loop.zeros:
        return True
    equation = dependence.producer(atom)
    return equation is not None and fills_with_zero(equation)


def inner_product(equation: Any, dependence: Dependence) -> Any | None:
    """The product of two changing operands all of whose elements a sum adds up."""
    if equation.primitive.name != "reduce_sum":
        return None
    (operand,) = equation.invars
    product = dependence.producer(operand)
    whole = len(equation.params["axes"]) == operand.aval.ndim > 0
    if not whole or product is None or product.primitive.name != "mul":
        return None
    changing = all(
        is_variable(atom)
        and dependence.level(atom) > Level.CONSTANT
        and atom.aval.shape == operand.aval.shape
        for atom in product.invars
    )
    return product if changing else None


def writes_into_zeros(equation: Any, dependence: Dependence) -> bool:
    """A table of zeros with some rows set: the derivative of reading a row."""
    name, operands = equation.primitive.name, equation.invars
    if name == "scatter-add":
        batching = equation.params["dimension_numbers"].operand_batching_dims
        if batching or dependence.level(operands[1]) is Level.CONSTANT:
            return False
    elif name != "dynamic_update_slice" or len(operands) < 3:  # a number has no rows
        return False
    return is_zero(operands[0], dependence)
