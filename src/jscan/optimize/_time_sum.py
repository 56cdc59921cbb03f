"""The sum over time of what a step computes, without computing it step by step.

Rules: sums go through linear operations; a product of two changing operands is one
contraction with time among its axes; rows written into zeros are one scatter; what
has no rule is computed for all steps at once and added up. Scaling by a constant does
*not* go through the sum: with an infinite factor or an overflow the result differs.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jscan.optimize._accumulate import ADDITIONS, LINEAR, is_zero
from jscan.optimize._batch import batched
from jscan.optimize._dependence import Dependence, Level
from jscan.optimize._jaxpr import Atom, apply, is_variable
from jscan.optimize._loop import Loop
from jscan.optimize._options import Context


class TimeSum:
    """Sums over time for one loop that has run."""

    def __init__(self, loop: Loop, rows: Mapping[Any, Any], context: Context) -> None:
        """Remember the rows `[T, ...]` the loop handed out."""
        self.loop = loop
        self.context = context
        self.dependence = Dependence(loop)
        self._rows = dict(rows)
        self._sums: dict[Any, Any] = {}

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
        if atom in self._rows:
            return self._rows[atom].sum(0)
        equation = self.dependence.producers[atom]
        name, operands = equation.primitive.name, equation.invars
        if name in ADDITIONS or name == "sub":
            return apply(equation, *map(self, operands))
        if name in LINEAR and self._passes(equation):
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

    def is_zero(self, atom: Atom) -> bool:
        """Whether an operand is known to be all zeros."""
        return is_zero(atom, self.dependence, self.loop)

    def changes(self, atom: Atom) -> bool:
        """Whether an operand differs from step to step."""
        return not self._is_constant(atom)


def _contract(sums: TimeSum, equation: Any) -> Any | None:
    left, right = equation.invars
    numbers = equation.params["dimension_numbers"]
    (left_axes, right_axes), (left_batch, right_batch) = numbers
    # In an outer product, a constant repeated is smaller than the rows of the result.
    outer = not (*left_axes, *left_batch)
    if not outer and not (sums.changes(left) and sums.changes(right)):
        return None

    def behind_time(axes: Any) -> tuple[int, ...]:
        return (0, *(axis + 1 for axis in axes))

    operands = [sums.rows(left), sums.rows(right)]
    contracted = behind_time(left_axes), behind_time(right_axes)
    leading = tuple(range(len(left_axes) + 1))
    if not left_batch and contracted == (leading, leading):
        # One long axis: with several, XLA would copy an operand to transpose it.
        operands = [jax.lax.collapse(rows, 0, len(leading)) for rows in operands]
        contracted = ((0,), (0,))
    return jax.lax.dot_general(
        *operands,
        (contracted, (behind_time(left_batch)[1:], behind_time(right_batch)[1:])),
        precision=equation.params["precision"],
        preferred_element_type=equation.params["preferred_element_type"],
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
    "scatter-add": _scatter,
    "dynamic_update_slice": _write,
}
