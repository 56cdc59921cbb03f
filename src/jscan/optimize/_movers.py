"""Slices of a loop's rows, in front of what only moves their axes.

A batch-major network writes `ys.swapaxes(0, 1)[:, -1]`. Here that becomes the same
operation on `ys[-1]`, so that the passes see that one row is read.
"""

from collections.abc import Sequence
from typing import Any

from jax.extend.core import primitives

from jscan.optimize._jaxpr import Atom, is_scan, is_variable, needed, variable_like

_Axes = tuple[int | None, ...]


def slices_first(equations: Sequence[Any], outputs: Sequence[Atom]) -> list[Any]:
    """The equations of a program with slices pushed towards the loops they read.

    A slice takes as many rounds as things move its rows.
    """
    current, changed = list(equations), True
    while changed:
        pushed = _push_once(current, outputs)
        changed = len(pushed) > len(current)
        current = needed(pushed, outputs)  # without what moved all rows
    return current


def _push_once(equations: Sequence[Any], outputs: Sequence[Atom]) -> list[Any]:
    movers = _movers_of_rows(equations)
    for equation in equations:
        if equation.primitive is not primitives.slice_p:
            for atom in filter(is_variable, equation.invars):
                movers.pop(atom, None)
    for atom in filter(is_variable, outputs):
        movers.pop(atom, None)
    result: list[Any] = []
    for equation in equations:
        pushed = None
        if equation.primitive is primitives.slice_p and equation.invars[0] in movers:
            mover, axis = movers[equation.invars[0]]
            pushed = _pushed(mover, equation) if _is_few(equation, axis) else None
        result += pushed or [equation]
    return result


def _movers_of_rows(equations: Sequence[Any]) -> dict[Any, tuple[Any, int]]:
    """By result: what moves a loop's rows, and which axis of the result is time."""
    time: dict[Any, int] = {}
    movers: dict[Any, tuple[Any, int]] = {}
    for equation in equations:
        if is_scan(equation):
            time.update(dict.fromkeys(equation.outvars, 0))
            continue
        operand = next(filter(is_variable, equation.invars), None)
        axes = moved_axes(equation) if operand in time else None
        if axes is not None and time[operand] in axes:
            result, axis = equation.outvars[0], axes.index(time[operand])
            movers[result], time[result] = (equation, axis), axis
    return movers


def _is_few(cut: Any, axis: int) -> bool:
    """Whether a slice leaves out half of the rows or more: else little is gained."""
    (operand,), (part,) = cut.invars, cut.outvars
    return 2 * part.aval.shape[axis] <= operand.aval.shape[axis]


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
    axes = moved_axes(equation)
    return axes is not None and axes == (None, *range(len(axes) - 1))


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


def _pushed(mover: Any, cut: Any) -> list[Any] | None:
    """`slice(move(x))` as `move(slice(x))`: two equations."""
    axes = moved_axes(mover)
    strides = cut.params["strides"] or (1,) * len(axes or ())
    operand = mover.invars[0]
    starts, limits = [0] * operand.aval.ndim, list(operand.aval.shape)
    steps, shape = [1] * operand.aval.ndim, list(operand.aval.shape)
    sizes = cut.outvars[0].aval.shape
    for to, at in enumerate(axes or ()):
        if at is not None:
            starts[at] = cut.params["start_indices"][to]
            limits[at] = cut.params["limit_indices"][to]
            steps[at], shape[at] = strides[to], sizes[to]
        elif sizes[to] != 1:
            return None  # nothing is left of a new axis
    part = variable_like(operand, shape)
    first = cut.replace(
        invars=[operand],
        outvars=[part],
        params={
            "start_indices": tuple(starts),
            "limit_indices": tuple(limits),
            "strides": None if set(steps) == {1} else tuple(steps),
        },
    )
    parameters = dict(mover.params)
    for name in ("new_sizes", "shape"):
        if name in parameters:
            parameters[name] = tuple(sizes)
    return [first, mover.replace(invars=[part], outvars=cut.outvars, params=parameters)]
