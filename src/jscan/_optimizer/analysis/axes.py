"""Equations that only move axes, or add and drop those of one element."""

from __future__ import annotations

from typing import Any

from jscan._jax.jaxprs import is_variable
from jscan._jax.names import primitives

_Axes = tuple[int | None, ...]


def moved_axes(equation: Any) -> _Axes | None:
    """For each axis of the result the operand's axis it is; `None` for a new one.

    An axis that is new, or of which nothing becomes, has length one.

    Returns:
        `None` if the equation does anything else than to move axes.
    """
    parameters = equation.params
    if equation.primitive is primitives.transpose_p:
        return tuple(parameters["permutation"])
    if equation.primitive is primitives.squeeze_p:
        gone = parameters["dimensions"]
        return tuple(a for a in range(equation.invars[0].aval.ndim) if a not in gone)
    if equation.primitive is primitives.broadcast_in_dim_p:
        return _only_new_axes(equation)
    if equation.primitive is primitives.reshape_p:
        return _only_unit_axes(equation)
    return None


def drops_first_axis(equation: Any) -> bool:
    """Whether an equation does nothing but take a first axis of length one away."""
    shape = equation.outvars[0].aval.shape
    if not equation.invars or equation.invars[0].aval.shape != (1, *shape):
        return False
    return moved_axes(equation) == tuple(range(1, len(shape) + 1))


def adds_first_axis(equation: Any) -> bool:
    """Whether an equation does nothing but make its operand the only row of one."""
    shape = equation.outvars[0].aval.shape
    if not equation.invars or shape != (1, *equation.invars[0].aval.shape):
        return False
    return moved_axes(equation) == (None, *range(len(shape) - 1))


def _only_new_axes(equation: Any) -> _Axes | None:
    if len(equation.invars) != 1 or not is_variable(equation.invars[0]):
        return None
    old, new = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
    places = {to: at for at, to in enumerate(equation.params["broadcast_dimensions"])}
    same = all(old[at] == new[to] for to, at in places.items())
    added = all(new[axis] == 1 for axis in range(len(new)) if axis not in places)
    return tuple(map(places.get, range(len(new)))) if same and added else None


def _only_unit_axes(equation: Any) -> _Axes | None:
    """A reshape that takes axes of length one away, or adds some."""
    old, new = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
    kept = [axis for axis, size in enumerate(old) if size != 1]
    if equation.params["dimensions"] is not None or len(equation.invars) != 1:
        return None
    if [old[axis] for axis in kept] != [size for size in new if size != 1]:
        return None
    source = iter(kept)
    return tuple(None if size == 1 else next(source) for size in new)
