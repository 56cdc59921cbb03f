"""Slices of a loop's rows, in front of what only moves their axes.

A batch-major network writes `ys.swapaxes(0, 1)[:, -1]`. Here that becomes the same
operation on `ys[-1]`, so that the rules see that one row is read.
"""

from collections.abc import Sequence
from typing import Any

from jscan._jax.equations import exchanged
from jscan._jax.jaxprs import is_variable, variable_like
from jscan._jax.names import primitives
from jscan._jax.scans import is_scan
from jscan._optimizer.analysis.axes import moved_axes
from jscan._optimizer.analysis.index import Flat
from jscan._optimizer.record.context import Context


def run(flat: Flat, _: Context) -> Flat:
    """The program with slices pushed towards the loops whose rows they cut.

    A slice takes as many rounds as things move its rows.
    """
    while new := _pushed_slices(flat):
        # What moved all rows is gone then.
        flat = flat.with_equations(exchanged(flat.equations, new))
    return flat


def _pushed_slices(flat: Flat) -> dict[int, list[Any]]:
    """By slice (its `id`): what takes its place."""
    new: dict[int, list[Any]] = {}
    for mover, axis in _movers_of_rows(flat.equations):
        readers = flat.readers.get(mover.outvars[0]) or ()
        if any(e.primitive is not primitives.slice_p for e in readers):
            continue
        for cut in readers:
            pushed = _pushed(mover, cut) if _is_few(cut, axis) else None
            if pushed is not None:
                new[id(cut)] = pushed
    return new


def _movers_of_rows(equations: Sequence[Any]) -> list[tuple[Any, int]]:
    """What moves a loop's rows, and which axis of the result is time."""
    time: dict[Any, int] = {}
    movers: list[tuple[Any, int]] = []
    for equation in equations:
        if is_scan(equation):
            time.update(dict.fromkeys(equation.outvars, 0))
            continue
        operand = next(filter(is_variable, equation.invars), None)
        axes = moved_axes(equation) if operand in time else None
        if axes is not None and time[operand] in axes:
            axis = time[equation.outvars[0]] = axes.index(time[operand])
            movers.append((equation, axis))
    return movers


def _is_few(cut: Any, axis: int) -> bool:
    """Whether a slice leaves out half of the rows or more: else little is gained."""
    (operand,), (part,) = cut.invars, cut.outvars
    return 2 * part.aval.shape[axis] <= operand.aval.shape[axis]


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
