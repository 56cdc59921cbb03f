"""The sum over time of what a step computes, without computing it step by step.

Sums go through linear operations; a product of two changing operands is one
contraction with time among its axes; rows written into zeros are one scatter; all else
is computed for all steps at once and added up. Scaling by a constant does *not* go
through the sum: with an infinite factor or an overflow the result differs. The sum of
a part may be larger than the whole, or the number of steps than a type of 16 bits can
tell: such types are added up with 32.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jscan._jax.equations import apply
from jscan._jax.jaxprs import Atom, is_variable
from jscan._jax.structure import value_key
from jscan._optimizer.analysis.dependence import Dependence, Level
from jscan._optimizer.analysis.linearity import (
    ADDED_UP,
    WIDE_TYPES,
    inner_product,
    is_linear,
    writes_into_zeros,
)
from jscan._optimizer.record.context import Context
from jscan._optimizer.record.loop import Loop
from jscan._optimizer.writing.batches import batched, repeated


class TimeSum:
    """Sums over time for one loop that has run."""

    def __init__(self, loop: Loop, rows: Mapping[Any, Any], context: Context) -> None:
        """Remember the rows `[T, ...]` the loop handed out."""
        self.loop = loop
        self.context = context
        self.dependence = Dependence(loop)
        self._rows = dict(rows)
        self._sums: dict[Any, Any] = {}
        self._wholes: dict[Any, Any] = {}

    def __call__(self, atom: Atom) -> Any:
        """The sum over all steps of an operand, in a type with room for it."""
        if not is_variable(atom):
            shape = atom.aval.shape
            value = jnp.asarray(atom.val, atom.aval.dtype)
            return self._repeated(jnp.broadcast_to(value, shape))
        if atom not in self._sums:
            self._sums[atom] = _wide(self._sum(atom))
        return self._sums[atom]

    def _sum(self, atom: Any) -> Any:
        if self._is_constant(atom):
            return self._repeated(self._constant(atom))
        piece = self.loop.joined.get(atom)
        if piece is not None and piece.whole in self._rows:
            end = piece.start + atom.aval.shape[-1]
            return jax.lax.slice_in_dim(self(piece.whole), piece.start, end, axis=-1)
        if atom in self._rows:
            return _wide(self._rows[atom]).sum(0)
        equation = self.dependence.producers[atom]
        name, operands = equation.primitive.name, equation.invars
        if name in ADDED_UP:
            return apply(equation, *map(self, operands))
        if is_linear(equation) and self._passes(equation):
            return apply(
                equation, self(operands[0]), *map(self._constant, operands[1:])
            )
        product = inner_product(equation, self.dependence)
        if product is not None:
            return self._inner_product(product)
        if name == "dot_general" and self._contracts(equation):
            wholes = (self._part_of_whole(equation, side) for side in (0, 1))
            found = next((whole for whole in wholes if whole is not None), None)
            if found is not None:
                return found
            return self._contraction(equation, *map(self.rows, operands)).value()
        if writes_into_zeros(equation, self.dependence):
            return self._scatter(equation)
        return _wide(self.rows(atom)).sum(0)

    def _passes(self, equation: Any) -> bool:
        # A reduced product is better computed and reduced in one go.
        operand = equation.invars[0]
        producer = self.dependence.producers.get(operand)
        reduced_product = (
            equation.primitive.name == "reduce_sum"
            and operand not in self._rows
            and producer is not None
            and producer.primitive.name == "mul"
        )
        return not reduced_product and all(map(self._is_constant, equation.invars[1:]))

    def _contracts(self, equation: Any) -> bool:
        # In an outer product, a repeated constant is smaller than rows of the result.
        (axes, _), (batch, _) = equation.params["dimension_numbers"]
        return not (*axes, *batch) or not any(map(self._is_constant, equation.invars))

    def _is_constant(self, atom: Atom) -> bool:
        return self.dependence.level(atom) is Level.CONSTANT

    def _constant(self, atom: Atom) -> Any:
        if not is_variable(atom) or atom in self.loop.constants:
            return self.loop.value(atom)
        return self.rows(atom)[0]

    def _repeated(self, value: Any) -> Any:
        return _wide(value) * self.loop.length

    def rows(self, atom: Atom) -> Any:
        """Rows `[T, ...]` of an operand."""
        loop = self.loop
        if not is_variable(atom) or atom in loop.constants:
            value = jnp.asarray(loop.value(atom), atom.aval.dtype)
            return repeated(value, loop.length)
        if atom not in self._rows:
            (value,) = batched(loop, loop.after, [atom], self.context, self._rows)
            self._rows[atom] = value
        return self._rows[atom]

    def _part_of_whole(self, equation: Any, side: int) -> Any | None:
        """The sum of a product of a piece, cut from the one sum for all its pieces.

        `None` unless every piece of the operand is multiplied by the same rows.
        """
        atom, other = equation.invars[side], equation.invars[1 - side]
        piece = self.loop.joined.get(atom) if is_variable(atom) else None
        if piece is None or piece.whole not in self._rows:
            return None
        axes, batch = (pair[side] for pair in equation.params["dimension_numbers"])
        if atom.aval.ndim - 1 in (*axes, *batch):
            return None
        pieces = {v for v, p in self.loop.joined.items() if p.whole is piece.whole}
        multiplied = {
            e.invars[side]
            for e in self.loop.after
            if e.primitive is equation.primitive
            and e.invars[1 - side] is other
            and e.params == equation.params
        }
        if not pieces <= multiplied:
            return None
        key = (piece.whole, other, side, value_key(equation.params))
        if key not in self._wholes:
            rows = [self.rows(other)] * 2
            rows[side] = self._rows[piece.whole]
            self._wholes[key] = self._contraction(equation, *rows)
        right_free = 0 if side else other.aval.ndim - len(axes) - len(batch)
        axis = equation.outvars[0].aval.ndim - 1 - right_free
        return self._wholes[key].cut(axis, piece.start, atom.aval.shape[-1])

    def _contraction(self, equation: Any, left: Any, right: Any) -> "_Contraction":
        """The sum over time of products of rows `[T, ...]`."""
        (left_axes, right_axes), batch = equation.params["dimension_numbers"]
        precision = equation.params["precision"]

        def behind_time(axes: Any) -> tuple[int, ...]:
            return tuple(axis + 1 for axis in axes)

        contracted = (0, *behind_time(left_axes)), (0, *behind_time(right_axes))
        leading = tuple(range(len(left_axes) + 1))
        may_fold = not self.context.is_split and not batch[0]
        if may_fold and contracted == (leading, leading):
            # One long axis: with several, XLA would copy an operand to transpose it.
            left, right = (jax.lax.collapse(x, 0, len(leading)) for x in (left, right))
            contracted = ((0,), (0,))
        # The narrower operand first: the other order took up to 1.6 times as long.
        swapped = left.ndim == right.ndim == 2 and left.shape[1] > right.shape[1]
        if swapped:
            left, right = right, left
            precision = precision[::-1] if isinstance(precision, tuple) else precision
        total = jax.lax.dot_general(
            left,
            right,
            (contracted, (behind_time(batch[0]), behind_time(batch[1]))),
            precision=precision,
            preferred_element_type=_room(equation.outvars[0].aval.dtype),
        )
        return _Contraction(total, swapped)

    def _inner_product(self, product: Any) -> Any:
        """An inner product a step: one of all steps."""
        left, right = map(self.rows, product.invars)
        if not self.context.is_split:
            left, right = left.reshape(-1), right.reshape(-1)
        every = tuple(range(left.ndim))
        # As exact as the elementwise product it replaces, on every device.
        exact, room = jax.lax.Precision.HIGHEST, _room(left.dtype)
        return jax.lax.dot_general(
            left, right, ((every, every), ((), ())), exact, preferred_element_type=room
        )

    def _scatter(self, equation: Any) -> Any:
        """Each step's rows are one more window of a single scatter."""
        base, *operands = equation.invars
        if equation.primitive.name == "scatter-add":
            indices, rows = map(self.rows, operands)
            numbers = equation.params["dimension_numbers"]
            mode = equation.params["mode"]
            window, inserted = numbers.update_window_dims, numbers.inserted_window_dims
            places = numbers.scatter_dims_to_operand_dims
        else:
            rows, *starts = map(self.rows, operands)
            # Starts are clamped as dynamic_update_slice clamps them.
            sizes = zip(starts, base.aval.shape, rows.shape[1:], strict=True)
            clamped = [jnp.clip(start, 0, n - width) for start, n, width in sizes]
            indices, mode = jnp.stack(clamped, -1), "promise_in_bounds"
            window = places = tuple(range(len(starts)))
            inserted = ()
        numbers = jax.lax.ScatterDimensionNumbers(
            update_window_dims=tuple(axis + 1 for axis in window),
            inserted_window_dims=inserted,
            scatter_dims_to_operand_dims=places,
        )
        zeros = jnp.zeros(base.aval.shape, _room(base.aval.dtype))
        return jax.lax.scatter_add(zeros, indices, _wide(rows), numbers, mode=mode)


def _room(dtype: Any) -> Any:
    """The type in which sums of many numbers of a type are taken."""
    return dtype if dtype in WIDE_TYPES else jnp.dtype("float32")


def _wide(value: Any) -> Any:
    return jax.lax.convert_element_type(value, _room(value.dtype))


@dataclass(frozen=True)
class _Contraction:
    """A sum over time of products, and whether it came out transposed."""

    total: Any
    transposed: bool

    def value(self) -> Any:
        return self.total.T if self.transposed else self.total

    def cut(self, axis: int, start: int, size: int) -> Any:
        """A part of it; cut first, or XLA would turn the product around again."""
        axis = 1 - axis if self.transposed else axis
        part = jax.lax.slice_in_dim(self.total, start, start + size, axis=axis)
        return part.T if self.transposed else part
