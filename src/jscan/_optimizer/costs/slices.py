"""The cost model, long rows: which reductions of a step are done slice by slice.

XLA's CPU compiler reduces a row number by number, each waiting for the one before, and
a row of more than 32 in two operations of their own. Slices that are as long as a few
vector registers are added to each other at once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from jscan._jax.jaxprs import is_variable
from jscan._jax.operations import TRANSCENDENTAL, is_elementwise
from jscan._optimizer.costs.tiny import TinyProducts

# Numbers of a slice of one row, and of each of several. More than so many slices cost
# more to compile than they gain.
_SLICE, _SLICE_OF_ROWS, _MOST_SLICES = 16, 32, 32
# Elements above which rows are read from memory all the same.
_LARGEST = 10_000
# Numbers from which a sum of products, and of squares, gains that is all that a step
# reduces: of fewer the compiler vectorises both together.
_PRODUCTS, _SQUARES = 64, 96

SLICED = frozenset({"reduce_sum", "reduce_max", "reduce_min"})
"""The reductions that can be done slice by slice."""


@dataclass(frozen=True)
class SlicedRows(TinyProducts):
    """Which reductions are faster slice by slice.

    Attributes:
        long_row: Numbers of a row from which they are; 0 if never.
        long_functions: The same of a row of functions: few of them are vectorised as
            they are, but not slice by slice. Several rows of them stay.
        long_rows: The same of several rows that are reduced at once, if they are added.
    """

    long_row: int = 0
    long_functions: int = 0
    long_rows: int = 0

    def slices_of(self, step: Sequence[Any]) -> dict[int, int]:
        """How long the slices are, by the `id` of the reductions that gain."""
        sizes = {id(e): self.slice_of(e) for e in step}
        found = [e for e in step if sizes[id(e)]]
        made = {v: equation for equation in step for v in equation.outvars}
        if len(found) == 1:
            found = [e for e in found if _numbers(e) >= _least(e, made)]
        least = lambda e: self.long_functions if _is_row(e) else _LARGEST
        found = [
            e for e in found if _numbers(e) >= least(e) or not _of_functions(e, made)
        ]
        return {id(e): sizes[id(e)] for e in found}

    def slice_of(self, reduction: Any) -> int:
        """The numbers of a slice of its rows; 0 if they stay whole."""
        if not self.long_row or reduction.primitive.name not in SLICED:
            return 0
        (operand,) = reduction.invars
        axis, is_one = long_axis(reduction), _is_row(reduction)
        least = self.long_row if is_one else self.long_rows
        if not is_one and reduction.primitive.name != "reduce_sum":
            least *= 2
        if axis is None or not 0 < least <= _numbers(reduction):
            return 0
        is_float = operand.aval.dtype in (jnp.float32, jnp.float64)
        if not is_float or operand.aval.size > _LARGEST:
            return 0
        size = _SLICE if is_one else _SLICE_OF_ROWS
        while size * _MOST_SLICES < _numbers(reduction):
            size *= 2
        return size


def long_axis(reduction: Any) -> int | None:
    """The only axis that is reduced, if numbers of it lie side by side in memory."""
    shape, axes = reduction.invars[0].aval.shape, reduction.params["axes"]
    long = [axis for axis in range(len(shape)) if shape[axis] > 1]
    reduced = [axis for axis in long if axis in axes]
    return reduced[0] if len(reduced) == 1 and reduced == long[-1:] else None


def _numbers(reduction: Any) -> int:
    operand, result = reduction.invars[0].aval, reduction.outvars[0].aval
    return operand.size // max(1, result.size)


def _is_row(reduction: Any) -> bool:
    return reduction.outvars[0].aval.size == 1


def _least(reduction: Any, made: Mapping[Any, Any]) -> int:
    """Numbers from which a reduction gains that is the only one of a step."""
    equation = made.get(reduction.invars[0])
    if equation is None:
        return 0
    name, operands = equation.primitive.name, equation.invars
    if name == "mul" and operands[0] is not operands[1]:
        return _PRODUCTS
    return _SQUARES if name in ("mul", "square", "integer_pow") else 0


def _of_functions(reduction: Any, made: Mapping[Any, Any]) -> bool:
    """Whether its elements are functions, which the compiler vectorises row by row."""
    waiting = [reduction.invars[0]]
    while waiting:
        equation = made.get(waiting.pop())
        if equation is None:
            continue
        if equation.primitive.name in TRANSCENDENTAL:
            return True
        if is_elementwise(equation):
            waiting += filter(is_variable, equation.invars)
    return False
