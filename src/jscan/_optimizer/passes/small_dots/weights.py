"""small_dots, products with weights: fewer and larger ones, read in the fast order.

* A product with a transposed constant matrix (every backward loop has one) reads the
  matrix transposed once, before the loop: XLA does not hoist the transpose.
  In a short loop that gains less than it takes.
* Products that share their left operand become one, with the matrices side by side:
  ``h @ A`` and ``h @ B`` are columns of ``h @ [A B]``.
* A sum of products becomes one product of what they read, side by side, with the
  matrices on top of each other: ``a @ A + b @ B`` is ``[a b] @ [A; B]``. Every
  backward loop of a network with gates has one. Where the rows of ``a`` and ``b`` are
  wanted after the loop, those of ``[a b]`` are stored instead (`Loop.joined`).

The rules hold for the CPU. They run at lowering, when no derivative will follow.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax.numpy as jnp

from jscan._jax.equations import splice
from jscan._jax.jaxprs import is_variable, variable_like
from jscan._jax.names import primitives
from jscan._jax.operations import dot_sizes
from jscan._jax.slices import slice_of
from jscan._optimizer.analysis.dependence import Dependence, Level
from jscan._optimizer.analysis.sum_trees import Sums, add_up
from jscan._optimizer.costs.machine import Machine
from jscan._optimizer.record.cleanup import drop_unused
from jscan._optimizer.record.context import Context
from jscan._optimizer.record.loop import Loop, Piece


def store_transposed(loop: Loop, context: Context) -> Loop:
    """Apply the first rule to the products with constant matrices."""
    machine = context.machine
    if machine.transposed_rows or machine.transposed_vector:
        loop = _materialise_transposes(loop, machine)
    return loop


def run(loop: Loop, context: Context) -> Loop:
    """Apply the two others, which put arrays side by side."""
    machine = context.machine
    if machine.merged_dot:
        loop = _merge_products(loop, machine)
        loop = _join_sums(loop, machine)
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
    return loop.fired(f"{len(transposed)} transposed matrix(es) stored before the loop")


# ----------------------------------------------------------------- one left operand


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
        whole = replace(sizes[0], columns=columns)
        if len(group) > 1 and machine.merges(whole):
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
    return loop.fired(f"{len(group)} products with one left operand became one")


# ------------------------------------------------------------------ a sum of products


def _join_sums(loop: Loop, machine: Machine) -> Loop:
    dependence = Dependence(loop)
    sums = Sums(dependence)
    for equation in sums.whole:
        terms = sums.terms(equation)
        products = [t for t in terms if _is_joinable(t, sums, loop)]
        for group in _alike(products, dependence):
            if machine.joins(map(dot_sizes, group)):
                loop = _joined(loop, equation, terms, group)
                break  # of the equation nothing is left to look at
    return loop


def _is_joinable(term: Any, sums: Sums, loop: Loop) -> bool:
    """A product ``state @ constant`` that nothing but the sum reads."""
    product = sums.producer(term)
    if product is None or not _by_constant_matrix(product, sums.dependence):
        return False
    left, right = product.invars
    ((axis,), contracted), _ = product.params["dimension_numbers"]
    return (
        contracted == (0,)
        and axis == left.aval.ndim - 1
        and right in loop.constants
        and sums.is_read_once(term)
    )


def _alike(products: Sequence[Any], dependence: Dependence) -> list[list[Any]]:
    """Groups of two and more products that one product can compute."""
    groups: dict[Any, list[Any]] = {}
    for term in products:
        equation = dependence.producers[term]
        left, right = equation.invars
        how = {k: v for k, v in equation.params.items() if k != "dimension_numbers"}
        types = left.aval.shape[:-1], left.aval.dtype, right.aval.dtype, term.aval.dtype
        groups.setdefault((*types, str(how)), []).append(equation)
    return [group for group in groups.values() if len(group) > 1]


def _joined(loop: Loop, total: Any, terms: list[Any], group: list[Any]) -> Loop:
    gone = {id(e.outvars[0]) for e in group}
    others = [t for t in terms if id(t) not in gone]
    lefts = [e.invars[0] for e in group]
    tall = jnp.concatenate([loop.constants[e.invars[1]] for e in group], axis=0)
    matrix = variable_like(group[0].invars[1], tall.shape)
    *outer, _ = lefts[0].aval.shape
    whole = variable_like(lefts[0], (*outer, tall.shape[0]))
    product = variable_like(group[0].outvars[0]) if others else total.outvars[0]
    new = splice(lambda *parts: jnp.concatenate(parts, -1), lefts, group[0], [whole])
    new.append(group[0].replace(invars=[whole, matrix], outvars=[product]))
    if others:
        new += splice(add_up, [product, *others], total)
    pieces, start = {}, 0
    for left in lefts:
        pieces[left] = Piece(whole, start)
        start += left.aval.shape[-1]
    equations: list[Any] = []
    for equation in loop.equations:
        equations += new if equation is total else [equation]
    loop = replace(
        loop,
        constants={**loop.constants, matrix: tall},
        equations=tuple(equations),
        joined={**loop.joined, **pieces},
    )
    return drop_unused(loop.fired(f"a sum of {len(group)} products became one product"))
