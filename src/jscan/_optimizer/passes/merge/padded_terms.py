"""merge, terms padded with zeros: the parts of an array are put side by side.

The derivative of reading ``s[0]``, ``s[1]``, ... in a step is a sum of arrays as large
as `s`, each all zeros but for one row: n rows cost n passes over n rows. Parts that do
not overlap stand side by side in one array instead. If all of them are one operation
on other numbers, as ``w[0] * g``, ``w[1] * g``, ... are, it is done once, as
``w[:, None] * g``.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice, pairwise
from typing import Any

import jax
import jax.numpy as jnp

from jscan._jax.equation_keys import value_key
from jscan._jax.equations import apply, splice
from jscan._jax.jaxprs import Atom
from jscan._jax.names import primitives
from jscan._jax.operations import is_elementwise
from jscan._optimizer.analysis.axes import adds_first_axis
from jscan._optimizer.analysis.dependence import Dependence
from jscan._optimizer.analysis.linearity import is_zero
from jscan._optimizer.analysis.sum_trees import Sums, add_up
from jscan._optimizer.record.cleanup import drop_unused
from jscan._optimizer.record.context import Context
from jscan._optimizer.record.loop import Loop


@dataclass(frozen=True)
class _Part:
    """An operand that covers the places from `start` to `end` of an axis."""

    operand: Any
    axis: int
    start: int
    end: int


def run(loop: Loop, _: Context) -> Loop:
    """Write each sum with two and more padded terms as a sum of fewer arrays."""
    sums = Sums(Dependence(loop))
    new: dict[int, list[Any]] = {}
    before = after = 0
    for addition in sums.whole:
        parts, others = _parts(addition, sums)
        layers = _layers(parts)
        if len(layers) < len(parts):
            new[id(addition)] = _written(addition, layers, others, sums)
            before, after = before + len(parts), after + len(layers)
    if not new:
        return loop
    text = f"{before} terms padded with zeros became {after}, their parts side by side"
    return drop_unused(loop.exchanged(new).fired(text))


def _parts(addition: Any, sums: Sums) -> tuple[list[_Part], list[Any]]:
    """The padded terms along one axis, and all other terms."""
    found = [(term, _part(term, sums)) for term in sums.terms(addition)]
    axes = [part.axis for _, part in found if part is not None]
    axis = max(axes, key=axes.count, default=None)
    parts = [part for _, part in found if part is not None and part.axis == axis]
    others = [term for term, part in found if part is None or part.axis != axis]
    return parts, others


def _part(term: Any, sums: Sums) -> _Part | None:
    """A term as the part of it that is not padding, if it is padded on one axis."""
    pad = sums.producer(term)
    if pad is None or pad.primitive is not primitives.pad_p:
        return None
    operand, filling = pad.invars
    padding = pad.params["padding_config"]
    padded = [axis for axis, sides in enumerate(padding) if any(sides)]
    if len(padded) != 1 or not sums.is_read_once(term):
        return None
    if not is_zero(filling, sums.dependence, sums.dependence.loop):
        return None
    (axis,), shape = padded, operand.aval.shape
    low, high, interior = map(int, padding[axis])
    if min(low, high) < 0 or (interior and shape[axis] > 1) or not operand.aval.size:
        return None
    return _Part(operand, axis, low, low + shape[axis])


def _layers(parts: Sequence[_Part]) -> list[list[_Part]]:
    """The parts in as few groups as it takes for no two of one to overlap.

    Parts of one size come together, which are more often one operation.
    """
    layers: list[list[_Part]] = []
    for part in sorted(parts, key=lambda part: (part.end - part.start, part.start)):
        for layer in layers:
            if all(p.end <= part.start or part.end <= p.start for p in layer):
                layer.append(part)
                break
        else:
            layers.append([part])
    return [sorted(layer, key=lambda part: part.start) for layer in layers]


def _written(
    addition: Any,
    layers: Sequence[Sequence[_Part]],
    others: Sequence[Atom],
    sums: Sums,
) -> list[Any]:
    """Equations for the sum of the layers and of all other terms."""
    size = addition.outvars[0].aval.shape[layers[0][0].axis]
    makers = [_maker(layer, size, sums) for layer in layers]
    operands = [*others, *(atom for maker in makers for atom in maker.operands)]

    def total(*values: jax.Array) -> jax.Array:
        rest = iter(values)
        terms = list(islice(rest, len(others)))
        arrays = [maker.make(*islice(rest, len(maker.operands))) for maker in makers]
        return add_up(*terms, *arrays)

    return splice(total, operands, addition)


@dataclass(frozen=True)
class _Maker:
    """How the array of one layer is made of operands of the step."""

    operands: list[Atom]
    make: Callable[..., jax.Array]


def _maker(layer: Sequence[_Part], size: int, sums: Sums) -> _Maker:
    parts = _one_operation(layer, sums) or _parts_in_order(layer)

    def make(*values: jax.Array) -> jax.Array:
        (start, axis), end = (layer[0].start, layer[0].axis), layer[-1].end
        whole = parts.make(*values)
        padding = [(0, 0, 0)] * whole.ndim
        padding[axis] = (start, size - end, 0)
        zero = jnp.zeros((), whole.dtype)
        return jax.lax.pad(whole, zero, padding) if any(padding[axis]) else whole

    return replace(parts, make=make)


def _parts_in_order(layer: Sequence[_Part]) -> _Maker:
    """The parts one after the other, with zeros between them."""

    def make(*values: jax.Array) -> jax.Array:
        rows: list[jax.Array] = []
        axis, end = layer[0].axis, layer[0].start
        for part, value in zip(layer, values, strict=True):
            if part.start > end:
                shape = list(value.shape)
                shape[axis] = part.start - end
                rows.append(jnp.zeros(shape, value.dtype))
            rows.append(value)
            end = part.end
        return jax.lax.concatenate(rows, axis) if len(rows) > 1 else rows[0]

    return _Maker([part.operand for part in layer], make)


def _one_operation(layer: Sequence[_Part], sums: Sums) -> _Maker | None:
    """Rows ``operation(number, row)`` that differ in constant numbers alone."""
    made = [_row_made(part, sums) for part in layer]
    rows = [row for row in made if row is not None]
    adjacent = all(a.end == b.start for a, b in pairwise(layer))
    if len(rows) < len(layer) or len(rows) < 2 or not adjacent:
        return None
    first = rows[0]
    if len(set(map(_kind, rows))) > 1:
        return None
    columns = list(zip(*(row.invars for row in rows), strict=True))
    # What all rows share, or one number for each of them.
    groups = [c[:1] if all(atom is c[0] for atom in c) else c for c in columns]
    numbers = [atom for group in groups if len(group) > 1 for atom in group]
    if any(atom.aval.shape or sums.dependence.changes(atom) for atom in numbers):
        return None
    shape = (len(rows), *first.outvars[0].aval.shape)

    def make(*values: jax.Array) -> jax.Array:
        rest, whole = iter(values), []
        for group in groups:
            value, *others = islice(rest, len(group))
            if others:
                value = jnp.stack([value, *others])
                value = value.reshape(-1, *[1] * (len(shape) - 1))
            whole.append(jnp.broadcast_to(value, shape))
        return apply(first, *whole)

    return _Maker(list(chain(*groups)), make)


def _row_made(part: _Part, sums: Sums) -> Any | None:
    """The elementwise operation that makes a part of one row, read by nothing else."""
    row = sums.producer(part.operand)
    if part.axis != 0 or row is None or not adds_first_axis(row):
        return None
    inner = row.invars[0]
    operation = sums.producer(inner)
    if operation is None or not is_elementwise(operation):
        return None
    once = sums.is_read_once(inner) and sums.is_read_once(part.operand)
    return operation if once else None


def _kind(operation: Any) -> Hashable:
    types = tuple(atom.aval.dtype for atom in operation.invars)
    return operation.primitive, value_key(operation.params), types
