"""The cost model, a vector times a matrix: how the matrix is read fastest.

Stored by columns, numbers of the vector are multiplied by as many columns at once as a
vector register holds; what is left over is done one by one. Stored by rows, each
row is multiplied by the vector and added up.
"""

from __future__ import annotations

from dataclasses import dataclass

# Nanoseconds of a step, measured on a CPU: of each number that is added up, and of its
# column; of such a number if columns are left over; of each row, and of its number.
_ADDED, _COLUMN, _LEFT_OVER = 2.0, 0.035, 2.7
_ROW, _NUMBER = 3.0, 0.045
# Before the loop: of an element that is stored, and at least of the operation.
_STORED, _STORING = 1.0, 1000.0
# Multiplications, up to which columns of zeros have to be few: this part of a register.
_SMALL, _FEW = 400, 0.45
_TINY = 48

NARROW = 0.4
"""Columns, for each number that is added up, up to which rows are as fast."""


@dataclass(frozen=True)
class Layout:
    """How a matrix is stored that a vector is multiplied by.

    Attributes:
        by_rows: Whether each number of the result is a row of it, not a column.
        columns: How many there are, with those that nobody reads.
    """

    by_rows: bool
    columns: int


def faster_layout(
    now: Layout, added: int, lanes: int, length: int, handed: int = 0
) -> Layout | None:
    """A layout that takes less time than the present one, if it is worth storing it.

    Args:
        now: The present one.
        added: How many numbers are added up for each of the result.
        lanes: Numbers that a vector register holds.
        length: Steps of the loop.
        handed: Nanoseconds that it takes if another thread runs the program for it.
    """
    columns = now.columns
    if columns == 1 or added * columns < _TINY:
        return None
    more = -columns % lanes
    is_small = added * columns < _SMALL
    is_whole = columns % lanes < 2 or (is_small and more > _FEW * lanes)
    best = Layout(False, columns if is_whole else columns + more)
    rows = Layout(True, columns)
    cut = not is_whole and _takes(rows, added, True) < _takes(best, added, True)
    if cut or columns <= NARROW * added:
        best = rows
    if best == now or (now.by_rows and (is_small or columns < added)):
        return None
    saved = _takes(now, added, is_whole) - _takes(best, added, True)
    storing = handed + max(_STORING, _STORED * added * best.columns)
    return best if saved * length > storing else None


def _takes(layout: Layout, added: int, is_whole: bool) -> float:
    """Nanoseconds of one product."""
    if layout.by_rows:
        return layout.columns * (_ROW + _NUMBER * added)
    rest = 0.0 if is_whole else _LEFT_OVER
    return added * (_ADDED + _COLUMN * layout.columns + rest)
