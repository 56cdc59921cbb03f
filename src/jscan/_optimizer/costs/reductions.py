"""The cost model, reductions: what rows cost that a step reduces, less all at once."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from jscan._jax.operations import (
    REDUCTIONS,
    SHAPES_ONLY,
    TRANSCENDENTAL,
    is_elementwise,
)
from jscan._optimizer.costs.slices import SlicedRows

# Elements from which a row takes longer to reduce in a loop, and nanoseconds for each
# where many rows are reduced and none of them is a function.
_ROW, _ELEMENT = 32, 0.5
_FEW = 80  # numbers of rows, reduced in slices, below which several cost more
# A step adds up a short row in registers, a batch one row after the other.
# Of one row and of several: the most numbers, and nanoseconds for each row.
_OF_ONE, _OF_SEVERAL = (16, 10.0), (8, 6.0)
_SINES = frozenset({"sin", "cos"})
_NOT_FUSED = frozenset({"select_n", "convert_element_type"})


@dataclass(frozen=True)
class Reductions(SlicedRows):
    """Nanoseconds that a step takes longer to reduce its rows.

    Attributes:
        reduced_element: For each element of rows of functions that are reduced along
            several rows at once.
        reduced_sum: Numbers from which one sum is slower, by how much, and by how much
            for each number.
        reduced_most: For each number of which a step finds the largest.
        several_reduced: If it reduces several rows.
        several_sliced: The same if it does so in slices: of less than 80 numbers, and
            of more.
        fused_sine: For each sine that a batch adds up, or adds to a sum, which it does
            by vector instructions then.
    """

    reduced_element: float = 0.0
    reduced_sum: tuple[int, float, float] = (0, 0.0, 0.0)
    reduced_most: float = 0.0
    several_reduced: float = 0.0
    several_sliced: tuple[float, float] = (0.0, 0.0)
    fused_sine: float = 0.0

    def saved_by_reduction(self, reduction: Any) -> float:
        """What one of them saves."""
        if short := _short_rows(reduction):
            return -short
        numbers = _reduced_in_rows(reduction)
        if elements_of(reduction.outvars) > 1:
            # A sum along rows of a matrix is written as vectors are.
            return min(_ELEMENT, self.reduced_element) * numbers
        is_sliced = self.slice_of(reduction) > 0
        if reduction.primitive.name != "reduce_sum":
            return 0.0 if is_sliced else self.reduced_most * numbers
        least, once, each = self.reduced_sum
        once = 0.0 if is_sliced else once
        return once + each * numbers if numbers >= max(least, 1) else 0.0

    def saved_by_reductions(self, equations: Sequence[Any]) -> float:
        """What they save besides, by what they read and as there are several."""
        reductions = [e for e in equations if e.primitive.name in REDUCTIONS]
        rows = [e for e in reductions if elements_of(e.outvars) == 1]
        saved = self._saved_by_several([e for e in rows if _reduced_in_rows(e)])
        if any(e.primitive.name == "reduce_sum" for e in reductions):
            saved += self.saved_by_fusion(equations)
        functions = (e for e in equations if e.primitive.name in TRANSCENDENTAL)
        if not any(elements_of(e.outvars) >= _ROW for e in functions):
            return saved
        matrices = (e for e in reductions if elements_of(e.outvars) > 1)
        reduced = sum(map(_reduced_in_rows, matrices))
        return saved + max(0.0, self.reduced_element - _ELEMENT) * reduced

    def saved_by_fusion(self, equations: Iterable[Any]) -> float:
        """What sines save that are one operation with a sum in a batch."""
        sines = 0
        for equation in equations:
            name = equation.primitive.name
            sines += elements_of(equation.outvars) if name in _SINES else 0
            fuses = is_elementwise(equation) and name not in _NOT_FUSED
            if not (fuses or name in SHAPES_ONLY or name == "reduce_sum"):
                return 0.0
        return self.fused_sine * sines

    def _saved_by_several(self, rows: Sequence[Any]) -> float:
        """What a step saves that reduces more than one long row."""
        if len(rows) < 2:
            return 0.0
        if not any(map(self.slice_of, rows)):
            return self.several_reduced
        few, many = self.several_sliced
        return few if max(map(_reduced_in_rows, rows)) < _FEW else many


def elements_of(variables: Iterable[Any]) -> int:
    """Elements of all variables together."""
    return sum(variable.aval.size for variable in variables)


def _reduced_in_rows(reduction: Any) -> int:
    """The elements that it reduces, if rows of them are long."""
    elements = elements_of(reduction.invars)
    is_long = elements >= _ROW * elements_of(reduction.outvars)
    return elements if is_long else 0


def _short_rows(reduction: Any) -> float:
    """What a batch takes longer to add up the short rows of a step."""
    rows = elements_of(reduction.outvars)
    if reduction.primitive.name != "reduce_sum":
        return 0.0
    most, each = _OF_ONE if rows == 1 else _OF_SEVERAL
    is_short = elements_of(reduction.invars) <= most * rows
    return each * rows if is_short else 0.0
