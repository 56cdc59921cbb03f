"""small_dots, products written as sums: ``(W * h).sum(1)`` is ``W @ h``.

XLA's CPU compiler adds up one number after the other where it has to run such a sum;
the product is 2 to 6 times as fast, and one of all steps much more.
A product of what is spread along different axes, as `jnp.outer` writes it, becomes one
where a carry adds it up: over all steps that is one product of matrices, too.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jscan._base.kinds import counted
from jscan._jax.equations import splice
from jscan._jax.jaxprs import Atom, is_variable
from jscan._jax.names import primitives
from jscan._optimizer.analysis.dependence import Dependence, Level
from jscan._optimizer.analysis.sum_trees import Sums
from jscan._optimizer.costs.tiny import AS_EXACT
from jscan._optimizer.record.cleanup import drop_unused
from jscan._optimizer.record.context import Context
from jscan._optimizer.record.loop import Loop

_OF_SEQUENCES = 2
"""How much smaller a product may be that can be done for all steps at once."""


@dataclass(frozen=True)
class _Factor:
    """An array, and along which axes of the product its own (but those of 1) lie."""

    array: Atom
    axes: tuple[int, ...]


def run(loop: Loop, context: Context) -> Loop:
    """Write sums of products, and products that are added up, as products."""
    if not context.machine.smallest_side or context.is_split:
        return loop
    found = dict(_products(loop, context.machine.smallest_side))
    if not found:
        return loop
    text = f"{counted(len(found), 'product')} written with * and sum became one"
    return drop_unused(loop.exchanged(found)).fired(text)


def _products(loop: Loop, least: int) -> Iterator[tuple[int, list[Any]]]:
    """What is exchanged, by its `id`, for which equations."""
    sums = Sums(Dependence(loop))
    added = _added_up(loop, sums)
    for equation in loop.equations:
        new = None
        if equation.primitive is primitives.mul_p:
            if equation.outvars[0] in added:
                new = _product(equation, equation, (), sums, least)
        elif equation.primitive is primitives.reduce_sum_p:
            (operand,) = equation.invars
            product = sums.producer(operand)
            is_product = product is not None and product.primitive is primitives.mul_p
            if is_product and sums.is_read_once(operand):
                axes = equation.params["axes"]
                new = _product(equation, product, axes, sums, least)
        if new:
            yield id(equation), new


def _added_up(loop: Loop, sums: Sums) -> set[Any]:
    """What carries add to themselves, and nothing else reads."""
    carried = {c.update: c.variable for c in loop.carries if is_variable(c.update)}
    terms: set[Any] = set()
    for addition in sums.whole:
        found = sums.terms(addition)
        if carried.get(addition.outvars[0]) in [a for a in found if is_variable(a)]:
            terms.update(a for a in found if is_variable(a) and sums.is_read_once(a))
    return terms


def _product(
    equation: Any, product: Any, summed: tuple[int, ...], sums: Sums, least: int
) -> list[Any] | None:
    """The sum along some axes of a product as a product of matrices, if it is one."""
    if equation.outvars[0].aval.dtype not in (jnp.float32, jnp.float64):
        return None
    left, right = (_factor(atom, sums) for atom in product.invars)
    shape = product.outvars[0].aval.shape
    axes = {axis for axis, size in enumerate(shape) if size != 1}
    both = {*left.axes} & {*right.axes}
    if {*left.axes} | {*right.axes} != axes or both != {*summed} & axes:
        return None
    free = [[a for a in one.axes if a not in both] for one in (left, right)]
    added = sorted(both)
    rows, columns, between = (
        math.prod(shape[axis] for axis in side) for side in (*free, added)
    )
    if sums.dependence.level_of(product) is Level.SEQUENCE:
        least //= _OF_SEQUENCES
    is_large = min(between, rows * columns) >= least
    # With several rows and columns, as in the lanes of a batch, sums are as fast.
    is_of_vector = not all(free) and is_large
    if not (is_of_vector if summed else min(rows, columns) > 1):
        return None
    order = np.argsort([*free[0], *free[1]])

    def value(x: jax.Array, y: jax.Array) -> jax.Array:
        x, y = (a.reshape([n for n in a.shape if n != 1]) for a in (x, y))
        inner = [tuple(map(one.axes.index, added)) for one in (left, right)]
        how = (inner[0], inner[1]), ((), ())
        total = jax.lax.dot_general(x, y, how, precision=AS_EXACT)
        return total.transpose(order).reshape(equation.outvars[0].aval.shape)

    return splice(value, [left.array, right.array], equation)


def _factor(atom: Atom, sums: Sums) -> _Factor:
    """What an operand of a product was before it was spread along more axes."""
    axes = tuple(range(atom.aval.ndim))
    while (made := sums.producer(atom)) is not None:
        if made.primitive is not primitives.broadcast_in_dim_p or len(made.invars) > 1:
            break
        axes = tuple(axes[i] for i in made.params["broadcast_dimensions"])
        (atom,) = made.invars
    sizes = zip(axes, atom.aval.shape, strict=True)
    return _Factor(atom, tuple(axis for axis, size in sizes if size != 1))
