"""The sum over time of what a step computes, without computing it step by step.

Rules: sums go through linear operations; a product of two changing operands is one
contraction with time among its axes; rows written into zeros are one scatter; what
has no rule is computed for all steps at once and added up. Scaling by a constant does
*not* go through the sum: with an infinite factor or an overflow the result differs.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jscan._jax.equations import apply
from jscan._jax.jaxprs import Atom, is_variable
from jscan._optimizer.analysis.dependence import Dependence, Level
from jscan._optimizer.analysis.linearity import inner_product, is_linear, is_zero
from jscan._optimizer.analysis.sum_trees import ADDITIONS
from jscan._optimizer.record.context import Context
from jscan._optimizer.record.loop import Loop
from jscan._optimizer.writing.batches import batched


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
        """The sum over all steps of an operand."""
        if not is_variable(atom):
            shape = atom.aval.shape
            value = jnp.asarray(atom.val, atom.aval.dtype)
            return self._repeated(jnp.broadcast_to(value, shape))
        if atom not in self._sums:
            self._sums[atom] = self._sum(atom)
        return self._sums[atom]

    def _sum(self, atom: Any) -> Any:
        if self._is_constant(atom):
            return self._repeated(self._constant(atom))
        piece = self.loop.joined.get(atom)
        if piece is not None and piece.whole in self._rows:
            end = piece.start + atom.aval.shape[-1]
            return jax.lax.slice_in_dim(self(piece.whole), piece.start, end, axis=-1)
        if atom in self._rows:
            return self._rows[atom].sum(0)
        equation = self.dependence.producers[atom]
        name, operands = equation.primitive.name, equation.invars
        if name in ADDITIONS or name in ("sub", "concatenate"):
            return apply(equation, *map(self, operands))
        if is_linear(equation) and self._passes(equation):
            return apply(
                equation, self(operands[0]), *map(self._constant, operands[1:])
            )
        rule = _RULES.get(name)
        found = None if rule is None else rule(self, equation)
        return self.rows(atom).sum(0) if found is None else found

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

    def _is_constant(self, atom: Atom) -> bool:
        return self.dependence.level(atom) is Level.CONSTANT

    def _constant(self, atom: Atom) -> Any:
        if not is_variable(atom) or atom in self.loop.constants:
            return self.loop.value(atom)
        return self.rows(atom)[0]

    def _repeated(self, value: Any) -> Any:
        return value * jnp.asarray(self.loop.length, value.dtype)

    def rows(self, atom: Atom) -> Any:
        """Rows `[T, ...]` of an operand."""
        if not is_variable(atom) or atom in self.loop.constants:
            return jnp.broadcast_to(
                jnp.asarray(self.loop.value(atom), atom.aval.dtype),
                (self.loop.length, *atom.aval.shape),
            )
        if atom not in self._rows:
            (self._rows[atom],) = batched(
                self.loop.after,
                [atom],
                self.loop.constants,
                self._rows,
                self.loop.length,
                self.context,
            )
        return self._rows[atom]

    def whole(self, equation: Any, side: int) -> Any | None:
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
        key = (piece.whole, other, side, str(equation.params))
        if key not in self._wholes:
            rows = [self.rows(other)] * 2
            rows[side] = self._rows[piece.whole]
            self._wholes[key] = self.contraction(equation, *rows)
        total = self._wholes[key]
        right_free = 0 if side else other.aval.ndim - len(axes) - len(batch)
        axis = equation.outvars[0].aval.ndim - 1 - right_free
        return total.cut(axis, piece.start, atom.aval.shape[-1])

    def contraction(self, equation: Any, left: Any, right: Any) -> "_Contraction":
        """The sum over time of a product, given the rows of both operands."""
        folds = not self.context.is_split
        return _contraction(equation.params, left, right, folds=folds)

    def is_zero(self, atom: Atom) -> bool:
        """Whether an operand is known to be all zeros."""
        return is_zero(atom, self.dependence, self.loop)

    def changes(self, atom: Atom) -> bool:
        """Whether an operand differs from step to step."""
        return not self._is_constant(atom)


def _contract(sums: TimeSum, equation: Any) -> Any | None:
    left, right = equation.invars
    (left_axes, _), (left_batch, _) = equation.params["dimension_numbers"]
    # In an outer product, a constant repeated is smaller than the rows of the result.
    outer = not (*left_axes, *left_batch)
    if not outer and not (sums.changes(left) and sums.changes(right)):
        return None
    for side in (0, 1):
        whole = sums.whole(equation, side)
        if whole is not None:
            return whole
    return sums.contraction(equation, sums.rows(left), sums.rows(right)).value()


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


def _contraction(
    parameters: Mapping[str, Any], left: Any, right: Any, *, folds: bool
) -> _Contraction:
    """The sum over time of products of rows `[T, ...]`.

    Args:
        parameters: How a step multiplies them.
        left: Rows of one operand.
        right: Rows of the other.
        folds: Whether time may become one axis with others.
    """
    (left_axes, right_axes), batch = parameters["dimension_numbers"]
    precision = parameters["precision"]

    def behind_time(axes: Any) -> tuple[int, ...]:
        return tuple(axis + 1 for axis in axes)

    contracted = (0, *behind_time(left_axes)), (0, *behind_time(right_axes))
    leading = tuple(range(len(left_axes) + 1))
    if folds and not batch[0] and contracted == (leading, leading):
        # One long axis: with several, XLA would copy an operand to transpose it.
        left, right = (jax.lax.collapse(x, 0, len(leading)) for x in (left, right))
        contracted = ((0,), (0,))
    # The narrower operand comes first: the other order took up to 1.6 times as long.
    swapped = left.ndim == right.ndim == 2 and left.shape[1] > right.shape[1]
    if swapped:
        left, right = right, left
        precision = precision[::-1] if isinstance(precision, tuple) else precision
    total = jax.lax.dot_general(
        left,
        right,
        (contracted, (behind_time(batch[0]), behind_time(batch[1]))),
        precision=precision,
        preferred_element_type=parameters["preferred_element_type"],
    )
    return _Contraction(total, swapped)


def _reduce(sums: TimeSum, equation: Any) -> Any | None:
    """An inner product a step: one of all steps."""
    product = inner_product(equation, sums.dependence)
    if product is None:
        return None
    left, right = map(sums.rows, product.invars)
    if not sums.context.is_split:
        left, right = left.reshape(-1), right.reshape(-1)
    every = tuple(range(left.ndim))
    # As exact as the elementwise product it replaces, on every device.
    return jax.lax.dot_general(
        left,
        right,
        ((every, every), ((), ())),
        precision=jax.lax.Precision.HIGHEST,
    )


def _scatter(sums: TimeSum, equation: Any) -> Any | None:
    """Each step's updates are one more window of a single scatter."""
    base, indices, updates = equation.invars
    numbers = equation.params["dimension_numbers"]
    if not sums.is_zero(base) or not sums.changes(indices):
        return None
    if numbers.operand_batching_dims:
        return None
    return jax.lax.scatter_add(
        jnp.zeros(base.aval.shape, base.aval.dtype),
        sums.rows(indices),
        sums.rows(updates),
        jax.lax.ScatterDimensionNumbers(
            update_window_dims=tuple(d + 1 for d in numbers.update_window_dims),
            inserted_window_dims=numbers.inserted_window_dims,
            scatter_dims_to_operand_dims=numbers.scatter_dims_to_operand_dims,
        ),
        mode=equation.params["mode"],
    )


def _write(sums: TimeSum, equation: Any) -> Any | None:
    base, update, *starts = equation.invars
    if not sums.is_zero(base):
        return None
    sizes, window = base.aval.shape, update.aval.shape
    # Starts are clamped as dynamic_update_slice clamps them.
    clamped = [
        jnp.clip(sums.rows(start), 0, size - width)
        for start, size, width in zip(starts, sizes, window, strict=True)
    ]
    if not clamped:
        return None
    return jax.lax.scatter_add(
        jnp.zeros(sizes, base.aval.dtype),
        jnp.stack(clamped, -1),
        sums.rows(update),
        jax.lax.ScatterDimensionNumbers(
            update_window_dims=tuple(range(1, len(window) + 1)),
            inserted_window_dims=(),
            scatter_dims_to_operand_dims=tuple(range(len(window))),
        ),
        mode="promise_in_bounds",
    )


_RULES: dict[str, Callable[[TimeSum, Any], Any | None]] = {
    "dot_general": _contract,
    "reduce_sum": _reduce,
    "scatter-add": _scatter,
    "dynamic_update_slice": _write,
}
