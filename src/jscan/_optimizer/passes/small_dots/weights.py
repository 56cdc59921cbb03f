"""small_dots, products with weights: fewer and larger ones, read in the fast order.

* A product with a transposed constant matrix (every backward loop has one) reads the
  matrix transposed once, before the loop: XLA does not hoist the transpose.
  In a short loop that gains less than it takes; what is best for the long rows that a
  single vector is multiplied by, `layouts.py` finds.
* Products that share their left operand become one, with the matrices side by side:
  ``h @ A`` and ``h @ B`` are columns of ``h @ [A B]``.
* A sum of products becomes one product of what they read, side by side, with the
  matrices on top of each other: ``a @ A + b @ B`` is ``[a b] @ [A; B]``. Every
  backward loop of a network with gates has one. Where the rows of ``a`` and ``b`` are
  wanted after the loop, those of ``[a b]`` are stored instead (`Loop.joined`). Where
  ``a`` and ``b`` are states, the loop carries ``[a b]`` instead of either.

The rules hold for the CPU. They run at lowering, when no derivative will follow.
"""

from collections.abc import Hashable, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

import jax.numpy as jnp

from jscan._base.kinds import counted
from jscan._jax.equations import splice
from jscan._jax.jaxprs import variable_like
from jscan._jax.names import primitives
from jscan._jax.operations import dot_sizes
from jscan._jax.slices import parts_of
from jscan._jax.structure import value_key
from jscan._optimizer.analysis.dependence import Dependence, Level
from jscan._optimizer.analysis.sum_trees import Sums, add_up
from jscan._optimizer.costs.machine import Machine
from jscan._optimizer.record.cleanup import drop_unused, without_carries
from jscan._optimizer.record.context import Context
from jscan._optimizer.record.loop import (
    Applied,
    Carry,
    Final,
    Loop,
    Piece,
    strong,
)


def store_transposed(loop: Loop, context: Context) -> Loop:
    """Apply the first rule to the products with constant matrices."""
    machine, dependence = context.machine, Dependence(loop)
    if not (machine.transposed_rows or machine.transposed_vector):
        return loop
    transposed: dict[Any, Any] = {}
    new: dict[int, list[Any]] = {}
    found = [e for e in loop.equations if _contracts(e, dependence) == 1]
    for equation in found:
        if not machine.stores_transposed(equation, loop.length, len(found) == 1):
            continue
        left, right = equation.invars
        if right not in transposed:
            transposed[right] = variable_like(right, right.aval.shape[::-1])
        (axes, _), batch = equation.params["dimension_numbers"]
        params = {**equation.params, "dimension_numbers": ((axes, (0,)), batch)}
        changed = equation.replace(invars=[left, transposed[right]], params=params)
        new[id(equation)] = [changed]
    if not new:
        return loop
    values = {mirror: loop.constants[v].T for v, mirror in transposed.items()}
    loop = replace(loop.exchanged(new), constants={**loop.constants, **values})
    return loop.fired(
        f"{counted(len(transposed), 'transposed matrix')} stored before the loop"
    )


def run(loop: Loop, context: Context) -> Loop:
    """Apply the two others, which put arrays side by side."""
    machine = context.machine
    if not machine.merged_dot:
        return loop
    return _join_sums(_merge_products(loop, machine), machine)


def _contracts(equation: Any, dependence: Dependence) -> int | None:
    """Which axis of a constant matrix a product of the state with it contracts.

    `None` for all other equations, and for products with batch axes.
    """
    if equation.primitive is not primitives.dot_general_p:
        return None
    left, right = equation.invars
    (_, contracted), (batch, _) = equation.params["dimension_numbers"]
    fits = (
        not batch
        and len(contracted) == 1
        and right.aval.ndim == 2
        and right in dependence.loop.constants
        and dependence.level(left) is Level.STATE
    )
    return contracted[0] if fits else None


def _kind(product: Any) -> Hashable:
    """How a product is done, and of which types: others are not put together."""
    how = {k: v for k, v in product.params.items() if k != "dimension_numbers"}
    atoms = (*product.invars, *product.outvars)
    return value_key(how), tuple(atom.aval.dtype for atom in atoms)


def _merge_products(loop: Loop, machine: Machine) -> Loop:
    dependence = Dependence(loop)
    groups: dict[Any, list[Any]] = {}
    for equation in loop.equations:
        if _contracts(equation, dependence) == 0:
            (left_axes, _), _ = equation.params["dimension_numbers"]
            key = equation.invars[0], left_axes, _kind(equation)
            groups.setdefault(key, []).append(equation)
    for group in groups.values():
        sizes = list(map(dot_sizes, group))
        if len(group) > 1 and machine.merges(sizes, loop.length):
            loop = _merged(loop, group)
    return loop


def _merged(loop: Loop, group: list[Any]) -> Loop:
    first = group[0]
    matrices = [e.invars[1] for e in group]
    wide = jnp.concatenate([loop.constants[m] for m in matrices], axis=1)
    matrix = variable_like(matrices[0], wide.shape)
    *outer, _ = first.outvars[0].aval.shape
    product = variable_like(first.outvars[0], (*outer, wide.shape[1]))
    whole = first.replace(invars=[first.invars[0], matrix], outvars=[product])
    columns = [m.aval.shape[1] for m in matrices]
    cuts = parts_of(product, len(outer), columns, first)
    parts = [c.replace(outvars=e.outvars) for c, e in zip(cuts, group, strict=True)]
    # All of them read the same left operand, so all may stand where the first did.
    loop = replace(
        loop.without(group[1:]).exchanged({id(first): [whole, *parts]}),
        constants={**loop.constants, matrix: wide},
    )
    return loop.fired(f"{len(group)} products with one left operand became one")


def _join_sums(loop: Loop, machine: Machine) -> Loop:
    sums = Sums(Dependence(loop))
    for equation in sums.whole:
        terms = sums.terms(equation)
        products = [sums.producer(t) for t in terms if _is_joinable(t, sums)]
        for group in _alike(products):
            sizes, carried = list(map(dot_sizes, group)), _are_carried(loop, group)
            if machine.joins(sizes, loop.length, carried):
                loop = _joined(loop, equation, terms, group)
                break  # of the equation nothing is left to look at
    return loop


def _is_joinable(term: Any, sums: Sums) -> bool:
    """A product ``state @ constant`` that nothing but the sum reads."""
    product = sums.producer(term)
    if product is None or _contracts(product, sums.dependence) != 0:
        return False
    ((axis,), _), _ = product.params["dimension_numbers"]
    return axis == product.invars[0].aval.ndim - 1 and sums.is_read_once(term)


def _alike(products: Sequence[Any]) -> list[list[Any]]:
    """Groups of two and more products that one product can compute."""
    groups: dict[Any, list[Any]] = {}
    for equation in products:
        key = equation.invars[0].aval.shape[:-1], _kind(equation)
        groups.setdefault(key, []).append(equation)
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
    carried = _are_carried(loop, group)
    join = splice(lambda *parts: jnp.concatenate(parts, -1), lefts, group[0], [whole])
    new = [] if carried else join
    new.append(group[0].replace(invars=[whole, matrix], outvars=[product]))
    if others:
        new += splice(add_up, [product, *others], total)
    starts = accumulate((left.aval.shape[-1] for left in lefts), initial=0)
    pieces = {left: Piece(whole, at) for left, at in zip(lefts, starts, strict=False)}
    loop = replace(
        loop.exchanged({id(total): new}),
        constants={**loop.constants, matrix: tall},
        joined={**loop.joined, **pieces},
    )
    if carried:
        loop = _carried_as_one(loop, lefts, whole, group[0])
    return drop_unused(loop.fired(f"a sum of {len(group)} products became one product"))


def _are_carried(loop: Loop, group: Sequence[Any]) -> bool:
    """Whether the left operands of products are states, each another one."""
    lefts = {e.invars[0] for e in group}
    return len(lefts) == len(group) and lefts <= {c.variable for c in loop.carries}


def _carried_as_one(loop: Loop, lefts: list[Any], whole: Any, like: Any) -> Loop:
    """The loop that carries some states side by side."""
    of = {carry.variable: carry for carry in loop.carries}
    carries = [of[left] for left in lefts]
    sizes = [left.aval.shape[-1] for left in lefts]
    cuts = [
        cut.replace(outvars=[left])
        for cut, left in zip(
            parts_of(whole, whole.aval.ndim - 1, sizes, like), lefts, strict=True
        )
    ]
    update = variable_like(whole)
    join = splice(
        lambda *parts: jnp.concatenate(parts, -1),
        [carry.update for carry in carries],
        like,
        [update],
    )
    initial = jnp.concatenate(list(map(strong, carries)), -1)
    ends = {cut.outvars[0]: Applied(cut, Final(whole)) for cut in cuts}
    loop = without_carries(loop, ends)
    return replace(
        loop,
        carries=(*loop.carries, Carry(whole, update, initial)),
        equations=(*cuts, *loop.equations, *join),
    )
