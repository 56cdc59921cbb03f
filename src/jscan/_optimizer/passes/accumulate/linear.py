"""accumulate, of linear functions: the sum of products with a constant is one product.

A step that computes ``K @ U`` of two weights has a derivative that adds up
``K.T @ d[t]`` for `U`: at each step a product, which is the same of the sum of all
``d[t]``. So those are added up, and the product is taken once, behind the loop.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp

from jscan._base.kinds import counted
from jscan._jax.equations import evaluate, splice
from jscan._jax.jaxprs import Atom, is_variable, variable_like
from jscan._jax.names import primitives
from jscan._jax.operations import dot_sizes
from jscan._optimizer.analysis.dependence import Dependence
from jscan._optimizer.analysis.linearity import is_linear
from jscan._optimizer.analysis.sum_trees import Sums, add_up
from jscan._optimizer.record.cleanup import drop_unused
from jscan._optimizer.record.context import Context
from jscan._optimizer.record.loop import (
    Added,
    Carry,
    Final,
    Known,
    Loop,
    strong,
    with_sources,
)

_CHEAP = 8
"""Elements that may be added for each multiplication less."""


@dataclass(frozen=True)
class _Term:
    """A term of a sum: equations that make it of what changes and of constants."""

    changing: Any
    equations: tuple[Any, ...]


def run(loop: Loop, _: Context) -> Loop:
    """Take products with constants out of the sums that carries are."""
    count = 0
    for carry in loop.carries:
        sums = Sums(Dependence(loop))
        addition = _addition(carry, sums)
        terms = {} if addition is None else dict(_products(addition, sums, carry))
        if terms:
            loop = _taken_out(loop, carry, addition, terms, sums)
            count += len(terms)
    if not count:
        return loop
    text = (
        f"{counted(count, 'product')} with a constant taken of a sum, not in the step"
    )
    return loop.fired(text)


def _addition(carry: Carry, sums: Sums) -> Any | None:
    """The equation that adds to a carry, if nothing else is done with it."""
    dependence = sums.dependence
    made = sums.producer(carry.update)
    if made is None or not any(made is whole for whole in sums.whole):
        return None
    inexact = jnp.issubdtype(carry.variable.aval.dtype, jnp.inexact)
    added = sums.terms(made).count(carry.variable) == 1
    alone = sums.is_read_once(carry.variable)
    updates = [c.update for c in dependence.loop.carries].count(carry.update)
    elsewhere = dependence.users.get(carry.update) or updates > 1
    rows = carry.update in dependence.loop.stacked()
    return made if inexact and added and alone and not elsewhere and not rows else None


def _products(addition: Any, sums: Sums, carry: Carry) -> Iterator[tuple[Any, _Term]]:
    """The terms that are a product with a constant, moved about or not."""
    size, terms = carry.variable.aval.size, sums.terms(addition)
    for atom in (a for a in terms if is_variable(a) and terms.count(a) == 1):
        equations: list[Any] = []
        inner = atom
        while (made := sums.producer(inner)) is not None and sums.is_read_once(inner):
            equations.append(made)
            if not is_linear(made) or len(made.invars) > 1:
                break
            (inner,) = made.invars
        changing = _factor(equations[-1], sums.dependence) if equations else None
        if changing is None:
            continue
        saved = dot_sizes(equations[-1]).multiplications
        if _CHEAP * (changing.aval.size - size) <= saved:
            yield atom, _Term(changing, tuple(reversed(equations)))


def _factor(product: Any, dependence: Dependence) -> Any | None:
    """What a product multiplies by a constant, of the type that it gives."""
    if product.primitive is not primitives.dot_general_p:
        return None
    changing = list(filter(dependence.changes, product.invars))
    types = {atom.aval.dtype for atom in (*product.invars, *product.outvars)}
    return changing[0] if len(changing) == 1 and len(types) == 1 else None


def _taken_out(
    loop: Loop, carry: Carry, addition: Any, terms: dict[Any, _Term], sums: Sums
) -> Loop:
    """The loop that adds up what the products are of, each in a carry of its own."""
    kept: list[Atom] = [a for a in sums.terms(addition) if a not in terms]
    stays = len(kept) > 1
    new = splice(add_up, kept, addition) if stays else []
    result: Any = Final(carry.variable) if stays else Known(strong(carry))
    for atom, term in terms.items():
        total, update = variable_like(term.changing), variable_like(term.changing)
        zeros = jnp.zeros(total.aval.shape, total.aval.dtype)
        loop = replace(loop, carries=(*loop.carries, Carry(total, update, zeros)))
        new += splice(add_up, [total, term.changing], addition, [update])
        result = Added(result, _function(loop, atom, term), Final(total))

    def change(made: Any) -> Any:
        return result if made == Final(carry.variable) else made

    results = {n: with_sources(r, change) for n, r in loop.results.items()}
    loop = loop.exchanged({id(addition): new})
    return drop_unused(replace(loop, results=results))


def _function(loop: Loop, atom: Any, term: _Term) -> Any:
    """What the product and all behind it make of a sum, with the constants' values."""

    def function(total: Any) -> Any:
        values = {**loop.constants, term.changing: total}
        return evaluate(term.equations, values, [atom])[0]

    return function
