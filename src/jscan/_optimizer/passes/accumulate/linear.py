"""accumulate, of linear functions: the function of a sum, not the sum of functions.

Of weights that a step works on alone, ``K @ U`` or ``softmax(A)``, a derivative adds up
a linear function of what changes: ``K.T @ d[t]``, or what makes of ``outer(a, d)[t]``
the derivative by `A`. It is the same function of the sum of all ``d[t]``. So those are
added up, and the function is taken once, behind the loop. What was not finite stays so,
though what added up to NaN may become an infinity. What was finite stays so if the sum
is: types of 16 bits, whose range is soon left, are not touched.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp

from jscan._base.kinds import counted
from jscan._jax.equations import evaluate, splice
from jscan._jax.jaxprs import Atom, is_variable, variable_like
from jscan._jax.operations import MOVES_DATA, dot_sizes
from jscan._optimizer.analysis.dependence import Dependence
from jscan._optimizer.analysis.linearity import WIDE_TYPES, is_linear
from jscan._optimizer.analysis.sum_trees import ADDITIONS, Sums, add_up
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

_ELEMENT = 4
"""Multiplications of a product that take as long as an element that is worked on."""


@dataclass(frozen=True)
class _Term:
    """A term of a sum: a linear function of what changes, and what it saves."""

    changing: Any
    equations: tuple[Any, ...]
    saved: int


def run(loop: Loop, _: Context) -> Loop:
    """Take linear functions out of the sums that carries are."""
    count, totals = 0, dict[Any, Any]()
    for carry in loop.carries:
        sums = Sums(Dependence(loop))
        addition = _addition(carry, sums)
        terms = {} if addition is None else dict(_terms(addition, sums, carry))
        if terms:
            loop = _taken_out(loop, carry, addition, terms, sums, totals)
            count += len(terms)
    if not count:
        return loop
    text = f"{counted(count, 'linear function')} taken of a sum, not in each step"
    return loop.fired(text)


def _addition(carry: Carry, sums: Sums) -> Any | None:
    """The equation that adds to a carry, if nothing else is done with it."""
    dependence = sums.dependence
    made = sums.producer(carry.update)
    if made is None or not any(made is whole for whole in sums.whole):
        return None
    wide = carry.variable.aval.dtype in WIDE_TYPES
    added = sums.terms(made).count(carry.variable) == 1
    alone = sums.is_read_once(carry.variable)
    updates = [c.update for c in dependence.loop.carries].count(carry.update)
    elsewhere = dependence.users.get(carry.update) or updates > 1
    rows = carry.update in dependence.loop.stacked()
    return made if wide and added and alone and not elsewhere and not rows else None


def _terms(addition: Any, sums: Sums, carry: Carry) -> Iterator[tuple[Any, _Term]]:
    """The terms that are linear functions of something else, where that pays."""
    size, terms = carry.variable.aval.size, sums.terms(addition)
    place = {id(e): n for n, e in enumerate(sums.dependence.loop.equations)}
    outside, count = sums.dependence.read_outside(), Counter(map(id, terms))
    for atom in (a for a in terms if is_variable(a) and count[id(a)] == 1):
        if not sums.is_read_once(atom):
            continue
        found = list(_functions(atom, sums.dependence, size, place, outside))
        best = max(found, key=lambda term: term.saved, default=None)
        if best is not None and best.saved > _ELEMENT * size:
            yield atom, best


def _functions(
    atom: Any,
    dependence: Dependence,
    size: int,
    place: Mapping[int, int],
    outside: Collection[Any],
) -> Iterator[_Term]:
    """What a term is a linear function of, from the last of its equations backwards.

    Other equations that read what is between would need it still, so there it ends.
    `place` says where equations stand in the step, `outside` what is read behind it.
    """
    taken: list[Any] = []
    inside: set[int] = set()
    open_ends, work = {atom}, 0
    while True:
        made = [dependence.producer(v) for v in open_ends]
        last = max(made, key=lambda e: -1 if e is None else place[id(e)])
        if last is None or not _is_linear(last, dependence):
            return
        (variable,) = last.outvars
        users = dependence.users.get(variable, ())
        if taken and (variable in outside or any(id(u) not in inside for u in users)):
            return
        taken.append(last)
        inside.add(id(last))
        work += _work(last)
        open_ends = (open_ends - {variable}) | set(_changing(last, dependence))
        if len(open_ends) == 1:
            (changing,) = open_ends
            saved = work - 2 * _ELEMENT * (changing.aval.size - size)
            yield _Term(changing, tuple(reversed(taken)), saved)


def _changing(equation: Any, dependence: Dependence) -> list[Any]:
    return list(filter(dependence.changes, equation.invars))


def _is_linear(equation: Any, dependence: Dependence) -> bool:
    """Whether an equation is linear in what changes, of one type throughout."""
    name, inputs = equation.primitive.name, equation.invars
    types = {atom.aval.dtype for atom in (*inputs, *equation.outvars)}
    changing = len(_changing(equation, dependence))
    if len(types) > 1 or len(equation.outvars) > 1:
        return False
    if name in ADDITIONS or name == "sub":
        return changing == 2
    if name == "div":
        return changing == 1 and not dependence.changes(inputs[1])
    one_of_two = name in ("mul", "dot_general") and changing == 1
    return one_of_two or (is_linear(equation) and len(inputs) == 1)


def _work(equation: Any) -> int:
    """About how long an equation takes, in multiplications of a product."""
    name = equation.primitive.name
    if name == "dot_general":
        return dot_sizes(equation).multiplications
    if name in MOVES_DATA:
        return 0
    return _ELEMENT * max(a.aval.size for a in (*equation.invars, *equation.outvars))


def _taken_out(
    loop: Loop,
    carry: Carry,
    addition: Any,
    terms: dict[Any, _Term],
    sums: Sums,
    totals: dict[Any, Any],
) -> Loop:
    """The loop that adds up what is changing, each in one carry of `totals`."""
    kept: list[Atom] = [a for a in sums.terms(addition) if a not in terms]
    # What changes may be a term itself, which the same carry is the sum of.
    itself = {t.changing for t in terms.values() if kept.count(t.changing) == 1}
    kept = [a for a in kept if a not in itself]
    stays = len(kept) > 1
    new = splice(add_up, kept, addition) if stays else []
    result: Any = Final(carry.variable) if stays else Known(strong(carry))
    for changing in {t.changing: None for t in terms.values()}:
        if changing not in totals:
            total, update = variable_like(changing), variable_like(changing)
            zeros = jnp.zeros(total.aval.shape, total.aval.dtype)
            loop = replace(loop, carries=(*loop.carries, Carry(total, update, zeros)))
            new += splice(add_up, [total, changing], addition, [update])
            totals[changing] = total
        if changing in itself:
            result = Added(result, lambda total: total, Final(totals[changing]))
    for atom, term in terms.items():
        result = Added(
            result, _function(loop, atom, term), Final(totals[term.changing])
        )

    def change(made: Any) -> Any:
        return result if made == Final(carry.variable) else made

    results = {n: with_sources(r, change) for n, r in loop.results.items()}
    loop = loop.exchanged({id(addition): new})
    return drop_unused(replace(loop, results=results))


def _function(loop: Loop, atom: Any, term: _Term) -> Any:
    """What the equations of a term make of a sum, with the values of constants."""

    def function(total: Any) -> Any:
        values = {**loop.constants, term.changing: total}
        return evaluate(term.equations, values, [atom])[0]

    return function
