"""Slices of a loop's rows, in front of what only moves their axes.

A batch-major network writes `ys.swapaxes(0, 1)[:, -1]`. Here that becomes the same
operation on `ys[-1]`, so that the rules see that one row is read. The same goes for
what joins the rows of a loop in chunks (`chunk_slices.py`).
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from jscan._jax.equations import exchanged
from jscan._jax.jaxprs import is_variable, variable_like
from jscan._jax.names import primitives
from jscan._jax.scans import is_scan
from jscan._optimizer.analysis.axes import moved_axes
from jscan._optimizer.analysis.index import Flat
from jscan._optimizer.passes.across_loops.chunk_slices import cut_before, joins_chunks
from jscan._optimizer.record.context import Context

_Axes: TypeAlias = tuple[int | None, ...]

_Push: TypeAlias = Callable[[Any], list[Any] | None]
"""From a slice to the equations that cut first, unless that cannot be."""


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
    for mover, axis, push in _movers_of_rows(flat.equations):
        readers = flat.readers.get(mover.outvars[0]) or ()
        if any(e.primitive is not primitives.slice_p for e in readers):
            continue
        for cut in readers:
            pushed = push(cut) if _is_few(cut, axis) else None
            if pushed is not None:
                new[id(cut)] = pushed
    return new


def _movers_of_rows(equations: Sequence[Any]) -> list[tuple[Any, int, _Push]]:
    """What moves a loop's rows, which axis of the result is time, how to cut before."""
    time: dict[Any, int] = {}
    movers: list[tuple[Any, int, _Push]] = []
    for equation in equations:
        if is_scan(equation):
            time.update(dict.fromkeys(equation.outvars, 0))
            continue
        operand = next(
            (a for a in equation.invars if is_variable(a) and a in time), None
        )
        if operand is None:
            continue
        axes = moved_axes(equation)
        if axes is not None and time[operand] in axes:
            axis = time[equation.outvars[0]] = axes.index(time[operand])
            push = functools.partial(_pushed, equation, axes)
        elif time[operand] == 0 and joins_chunks(equation):
            axis = time[equation.outvars[0]] = 0
            push = functools.partial(cut_before, equation)
        else:
            continue
        movers.append((equation, axis, push))
    return movers


def _is_few(cut: Any, axis: int) -> bool:
    """Whether a slice leaves out half of the rows or more: else little is gained."""
    (operand,), (part,) = cut.invars, cut.outvars
    return 2 * part.aval.shape[axis] <= operand.aval.shape[axis]


def _pushed(mover: Any, axes: _Axes, cut: Any) -> list[Any] | None:
    """`slice(move(x))` as `move(slice(x))`: two equations."""
    operand, sizes = mover.invars[0], cut.outvars[0].aval.shape
    if any(at is None and size != 1 for at, size in zip(axes, sizes, strict=True)):
        return None  # nothing is left of a new axis

    def of_operand(values: Sequence[int], otherwise: Sequence[int]) -> tuple[int, ...]:
        by_axis = dict(zip(axes, values, strict=True))
        return tuple(by_axis.get(at, value) for at, value in enumerate(otherwise))

    whole, ones = operand.aval.shape, (1,) * operand.aval.ndim
    steps = of_operand(cut.params["strides"] or (1,) * len(axes), ones)
    part = variable_like(operand, of_operand(sizes, whole))
    parameters = {
        "start_indices": of_operand(cut.params["start_indices"], (0,) * len(whole)),
        "limit_indices": of_operand(cut.params["limit_indices"], whole),
        "strides": None if set(steps) == {1} else steps,
    }
    shapes = dict.fromkeys(("new_sizes", "shape"), tuple(sizes))
    moved = {name: shapes.get(name, value) for name, value in mover.params.items()}
    return [
        cut.replace(invars=[operand], outvars=[part], params=parameters),
        mover.replace(invars=[part], outvars=cut.outvars, params=moved),
    ]
