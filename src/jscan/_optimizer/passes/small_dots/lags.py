"""small_dots, lags: numbers times rows of one array, added up, are one product.

A step that is given its last rows one by one writes ``w[0] * s[0] + w[1] * s[1]`` and
so on. With many rows ``w @ s`` is faster: one operation instead of two a row.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp

from jscan._jax.equations import splice
from jscan._jax.jaxprs import Atom
from jscan._jax.names import primitives
from jscan._optimizer.analysis.axes import drops_first_axis
from jscan._optimizer.analysis.dependence import Dependence
from jscan._optimizer.analysis.sum_trees import Sums, add_up
from jscan._optimizer.record.context import Context
from jscan._optimizer.record.loop import Loop


@dataclass(frozen=True)
class _Lag:
    """A term ``number * array[place]`` of a sum."""

    term: Atom
    number: Atom
    array: Any
    place: int


def run(loop: Loop, context: Context) -> Loop:
    """Write each sum with enough such terms as a product."""
    least = context.machine.fewest_lags
    if not least:
        return loop
    sums = Sums(Dependence(loop))
    new: dict[int, list[Any]] = {}
    for addition in sums.whole:
        terms = sums.terms(addition)
        lags = _longest(terms, sums)
        if len(lags) >= least:
            new[id(addition)] = _product(addition, terms, lags)
            loop = loop.fired(f"{len(lags)} numbers times rows became a product")
    return loop.exchanged(new)


def _longest(terms: list[Atom], sums: Sums) -> list[_Lag]:
    """The terms that read rows of one array, each row once, without a gap."""
    groups: dict[Any, list[_Lag]] = {}
    for term in terms:
        lag = _lag(term, sums)
        if lag is not None:
            groups.setdefault(lag.array, []).append(lag)
    lags = max(groups.values(), key=len, default=[])
    lags = sorted(lags, key=lambda lag: lag.place)
    adjacent = all(b.place == a.place + 1 for a, b in pairwise(lags))
    return lags if adjacent else []


def _lag(term: Atom, sums: Sums) -> _Lag | None:
    product = sums.producer(term)
    if product is None or product.primitive is not primitives.mul_p:
        return None
    if not sums.is_read_once(term):
        return None
    for number, row in (product.invars, product.invars[::-1]):
        found = _row(row, sums)
        if found is None or sums.dependence.changes(number) or number.aval.shape:
            continue
        array, place = found
        types = {a.aval.dtype for a in (number, array, term)}
        return _Lag(term, number, array, place) if len(types) == 1 else None
    return None


def _row(atom: Atom, sums: Sums) -> tuple[Any, int] | None:
    """The array of which an operand is a row, and which."""
    row = sums.producer(atom)
    cut = sums.producer(row.invars[0]) if row and drops_first_axis(row) else None
    if cut is None or cut.primitive is not primitives.slice_p:
        return None
    (array,), (part,) = cut.invars, cut.outvars
    if part.aval.shape != (1, *array.aval.shape[1:]):
        return None
    return array, cut.params["start_indices"][0]


def _product(addition: Any, terms: list[Atom], lags: list[_Lag]) -> list[Any]:
    gone = {id(lag.term) for lag in lags}
    others = [term for term in terms if id(term) not in gone]
    start, end = lags[0].place, lags[-1].place + 1

    def total(array: jax.Array, *rest: jax.Array) -> jax.Array:
        numbers = jnp.stack(rest[: len(lags)])
        rows = jax.lax.slice_in_dim(array, start, end)
        # As exact as the elementwise products it replaces, on every device.
        how, exact = (((0,), (0,)), ((), ())), jax.lax.Precision.HIGHEST
        product = jax.lax.dot_general(numbers, rows, how, precision=exact)
        return add_up(product, *rest[len(lags) :])

    operands = [lags[0].array, *(lag.number for lag in lags), *others]
    return splice(total, operands, addition)
