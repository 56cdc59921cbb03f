"""Rows that are earlier rows of something else, and need not be handed out as well.

A carry whose next value is ``y`` is ``y`` of the step before. A window that drops its
oldest row and takes in ``y`` holds ``y`` of the last steps, as do carries that pass it
on. The derivative of a loop with lags wants every one of them at each step; a loop that
hands out ``y`` alone has them all, but for the rows before its first step.
"""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from jscan._jax.jaxprs import is_variable
from jscan._jax.names import primitives
from jscan._optimizer.analysis.axes import adds_first_axis, drops_first_axis
from jscan._optimizer.analysis.dependence import Dependence
from jscan._optimizer.record.loop import Carry, Loop, strong


@dataclass(frozen=True)
class Shifted:
    """Rows of a variable: some at first, then those of `source`.

    Attributes:
        source: A variable of the step that changes.
        first: The rows of the first steps ``[k, ...]``, in the order of the steps.
        lone: Whether each is the only row of an array: ``[1, ...]``.
    """

    source: Any
    first: jax.Array
    lone: bool = False

    def rows(self, source: jax.Array, reverse: bool) -> jax.Array:
        """Rows ``[T, ...]``, where the loop goes backwards the first step's last."""
        length = source.shape[0]
        first = self.first[:length]
        rest = length - first.shape[0]
        parts = [first, source[:rest]]
        if reverse:
            parts = [source[length - rest :], first[::-1]]
        rows = jnp.concatenate(parts)
        return jnp.expand_dims(rows, 1) if self.lone else rows


def shifted(loop: Loop, stacked: list[Any]) -> dict[Any, Shifted]:
    """Those of the variables to be handed out whose rows others give.

    Only where that leaves fewer rows to hand out.
    """
    history = _History(loop)
    found = {v: shift for v in stacked if (shift := history.of(v)) is not None}
    sources = [shift.source for shift in found.values()]
    there = {*stacked, *loop.sequences}
    return {
        v: shift
        for v, shift in found.items()
        if shift.source in there or sources.count(shift.source) > 1
    }


class _History:
    """What a loop remembers of earlier steps."""

    def __init__(self, loop: Loop) -> None:
        self._known = loop.constants
        self._carries = {carry.variable: carry for carry in loop.carries}
        self._made = Dependence(loop).producer

    def of(self, variable: Any) -> Shifted | None:
        """The history of a carry, or of one row of a window that is carried."""
        if variable in self._carries:
            return self._of_carry(variable)
        made = self._made(variable)
        if made is not None and drops_first_axis(made):
            return self._of_row(made.invars[0])
        lone = self._of_row(variable)
        return None if lone is None else replace(lone, lone=True)

    def _of_carry(self, variable: Any) -> Shifted | None:
        first, seen = [], set()
        while variable in self._carries:
            carry = self._carries[variable]
            if variable in seen or not is_variable(carry.update):
                return None  # they go round in a circle, or are a number
            seen.add(variable)
            first.append(strong(carry))
            variable = carry.update
        if variable in self._known:
            return None
        return Shifted(variable, jnp.stack(first))

    def _of_row(self, atom: Any) -> Shifted | None:
        """The history of what is one row of a window that is carried."""
        window, row, end = self._rows(atom)
        if window is None or end != row + 1:
            return None
        update = self._made_by(primitives.concatenate_p, window.update)
        if update is None or update.params["dimension"] or len(update.invars) != 2:
            return None
        (old, new), initial = update.invars, strong(window)
        size = len(initial)
        if self._rows(old) == (window, 1, size):  # the newest row is the last
            first = initial[row:]
        elif self._rows(new) == (window, 0, size - 1):  # it is the first
            new, first = old, initial[: row + 1][::-1]
        else:
            return None
        made = self._made(new)
        if made is None or not adds_first_axis(made):
            return None
        source = made.invars[0]
        unchanging = source in self._known or source in self._carries
        return None if unchanging else Shifted(source, first)

    def _rows(self, atom: Any) -> tuple[Carry | None, int, int]:
        """The window that an operand is cut from, from which row, and to which."""
        cut = self._made_by(primitives.slice_p, atom)
        window = None if cut is None else self._carries.get(cut.invars[0])
        if cut is None or window is None:
            return None, 0, 0
        (start, *starts), (end, *ends) = (
            cut.params["start_indices"],
            cut.params["limit_indices"],
        )
        whole = not any(starts) and ends == [*window.variable.aval.shape[1:]]
        steps = set(cut.params["strides"] or (1,))
        return (window if whole and steps == {1} else None), start, end

    def _made_by(self, primitive: Any, atom: Any) -> Any | None:
        made = self._made(atom)
        return made if made is not None and made.primitive is primitive else None
