"""merge, terms padded with zeros: the parts of an array are put side by side.

The derivative of reading ``s[0]``, ``s[1]``, ... in a step is a sum of arrays as large
as `s`, each all zeros but for one row: n rows cost n passes over n rows. Parts that do
not overlap stand side by side in one array instead. If all of them are one operation
on other numbers, as ``w[0] * g``, ``w[1] * g``, ... are, it is done once, as
``w[:, None] * g``.
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from jscan._jax.equations import apply, splice
from jscan._jax.jaxprs import Atom
from jscan._jax.names import primitives
from jscan._jax.operations import is_elementwise
from jscan._jax.structure import value_key
from jscan._optimizer.analysis.axes import adds_first_axis
from jscan._optimizer.analysis.dependence import Dependence
from jscan._optimizer.analysis.linearity import is_zero
from jscan._optimizer.analysis.sum_trees import Sums, add_up
from jscan._optimizer.record.context import Context
from jscan._optimizer.record.loop import Loop


@dataclass(frozen=True)
class _Part:
    """An operand that covers the places from `start` to `end` of an axis."""

    operand: Any
    axis: int
    start: int
    end: int

    @property
    def is_number(self) -> bool:
        """Whether the array has no other axis."""
        return self.operand.aval.size == self.end - self.start

    @property
    def is_block(self) -> bool:
        """Whether it has several rows of several numbers."""
        return not self.is_number and self.end - self.start > 1


_Layer: TypeAlias = Sequence[_Part]

_Values: TypeAlias = Callable[[Iterable[Atom]], list[jax.Array]]


def run(loop: Loop, context: Context) -> Loop:
    """Write each sum with two and more padded terms as a sum of fewer arrays."""
    sums = Sums(Dependence(loop))
    new: dict[int, list[Any]] = {}
    before = after = 0
    for addition in sums.whole:
        parts, others = _parts(addition, sums)
        layers = _layers(parts)
        if not context.machine.pads_between:
            layers = [new for old in layers for new in _without_wide_gaps(old)]
        if len(layers) < len(parts):
            new[id(addition)] = _written(addition, layers, others, sums)
            before, after = before + len(parts), after + len(layers)
    if not new:
        return loop
    text = f"{before} terms padded with zeros became {after}, their parts side by side"
    return loop.exchanged(new).fired(text)


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
    if not is_zero(filling, sums.dependence):
        return None
    (axis,), shape = padded, operand.aval.shape
    low, high, interior = map(int, padding[axis])
    if min(low, high) < 0 or (interior and shape[axis] > 1) or not operand.aval.size:
        return None
    return _Part(operand, axis, low, low + shape[axis])


def _layers(parts: Sequence[_Part]) -> list[_Layer]:
    """The parts in as few groups as it takes for no two of one to overlap.

    Parts of one size come together, which are more often one operation. Rows with zeros
    between them, and blocks of rows that are not the whole, take longer to put side by
    side than to add up.
    """
    layers: list[list[_Part]] = []
    for part in sorted(parts, key=lambda part: (part.end - part.start, part.start)):
        for layer in layers:
            if all(_goes_beside(part, p) for p in layer) and (
                part.is_number or any(p.end == part.start for p in layer)
            ):
                layer.append(part)
                break
        else:
            layers.append([part])
    if len(layers) > 1:
        apart = [layer for layer in layers if any(part.is_block for part in layer)]
        layers = [layer for layer in layers if layer not in apart]
        layers += [[part] for layer in apart for part in layer]
    return [sorted(layer, key=lambda part: part.start) for layer in layers]


def _without_wide_gaps(layer: _Layer) -> list[_Layer]:
    """The parts each by itself if they would be more zeros than numbers.

    So are the two ends of a row, which the derivative of `jnp.roll` pads.
    """
    starts, ends = (part.start for part in layer), (part.end for part in layer)
    numbers = sum(part.end - part.start for part in layer)
    is_dense = max(ends) - min(starts) <= 2 * numbers
    return [layer] if is_dense else [[part] for part in layer]


def _goes_beside(part: _Part, other: _Part) -> bool:
    return other.end <= part.start or part.end <= other.start


def _written(
    addition: Any, layers: Sequence[_Layer], others: Sequence[Atom], sums: Sums
) -> list[Any]:
    """Equations for the sum of the layers and of all other terms."""
    size = addition.outvars[0].aval.shape[layers[0][0].axis]
    rows = [_one_operation(layer, sums) for layer in layers]
    operands = [*others, *(atom for ops in rows for op in ops for atom in op.invars)]
    operands += [part.operand for layer in layers for part in layer]

    def total(*values: jax.Array) -> jax.Array:
        value = dict(zip(map(id, operands), values, strict=True))

        def of(atoms: Iterable[Atom]) -> list[jax.Array]:
            return [value[id(atom)] for atom in atoms]

        arrays = []
        for layer, operations in zip(layers, rows, strict=True):
            whole = _at_once(operations, of) if operations else _in_order(layer, of)
            sides = (layer[0].start, size - layer[-1].end, 0)
            if any(sides):
                padding = [(0, 0, 0)] * whole.ndim
                padding[layer[0].axis] = sides
                whole = jax.lax.pad(whole, jnp.zeros((), whole.dtype), padding)
            arrays.append(whole)
        return add_up(*of(others), *arrays)

    return splice(total, operands, addition)


def _in_order(layer: _Layer, of: _Values) -> jax.Array:
    """The parts one after the other, with zeros between them."""
    rows: list[jax.Array] = []
    axis, end = layer[0].axis, layer[0].start
    for part, value in zip(layer, of(part.operand for part in layer), strict=True):
        if part.start > end:
            shape = list(value.shape)
            shape[axis] = part.start - end
            rows.append(jnp.zeros(shape, value.dtype))
        rows.append(value)
        end = part.end
    return jax.lax.concatenate(rows, axis) if len(rows) > 1 else rows[0]


def _at_once(rows: Sequence[Any], of: _Values) -> jax.Array:
    """The results of one operation on several operands, as rows."""
    shape = (len(rows), *rows[0].outvars[0].aval.shape)
    operands = []
    for column in zip(*(row.invars for row in rows), strict=True):
        value, *others = of(column)
        if not _is_shared(column):
            value = jnp.stack([value, *others])
            value = value.reshape(-1, *[1] * (len(shape) - 1))
        operands.append(jnp.broadcast_to(value, shape))
    return apply(rows[0], *operands)


def _one_operation(layer: _Layer, sums: Sums) -> list[Any]:
    """Rows ``operation(number, row)`` that differ in constant numbers alone, if so."""
    made = [_row_made(part, sums) for part in layer]
    rows = [row for row in made if row is not None]
    adjacent = all(a.end == b.start for a, b in pairwise(layer))
    if len(rows) < len(layer) or len(rows) < 2 or not adjacent:
        return []
    if len(set(map(_kind, rows))) > 1:
        return []
    columns = zip(*(row.invars for row in rows), strict=True)
    apart = [atom for c in columns if not _is_shared(c) for atom in c]
    numbers = all(not a.aval.shape and not sums.dependence.changes(a) for a in apart)
    return rows if numbers else []


def _is_shared(column: Sequence[Atom]) -> bool:
    return all(atom is column[0] for atom in column)


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
