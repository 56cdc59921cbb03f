"""Push slices of a value towards what it is computed from.

A value that slices alone read is computed slice by slice instead: elementwise work on
slices of its operands, a product with slices of its constant weights.
"""

from typing import Any

from jscan._jax.jaxprs import Atom, is_variable
from jscan._jax.names import primitives
from jscan._jax.operations import is_cut, is_elementwise
from jscan._jax.slices import part_of, slice_of
from jscan._optimizer.analysis.dependence import Dependence, Level
from jscan._optimizer.record.cleanup import drop_unused
from jscan._optimizer.record.loop import Loop


def pushed(loop: Loop, *, columns: bool = True) -> Loop:
    """The loop with its slices as far up as they go; itself if they stay.

    Args:
        loop: One whose splits are slices.
        columns: Whether products of sequences are taken apart as well.
    """
    original = loop
    while (further := _push_once(loop, columns)) is not loop:
        loop = further
    return loop if loop is original else drop_unused(loop)


def _push_once(loop: Loop, columns: bool) -> Loop:
    """One walk: each value read by slices alone is computed slice by slice."""
    dependence = Dependence(loop)
    outside = dependence.read_outside()
    new: dict[int, list[Any]] = {}
    for equation in loop.equations:
        cuts = _slices_of(equation, dependence)
        if not cuts or equation.outvars[0] in outside:
            continue
        if _cuts_elementwise(equation):
            slicer = _sliced_operands
        elif columns and _cuts_columns(equation, cuts, dependence):
            slicer = _sliced_columns
        else:
            continue
        new |= {id(e): [] for e in (equation, *cuts)}
        for cut in cuts:
            made, operands = slicer(equation, cut)
            part = equation.replace(invars=operands, outvars=cut.outvars)
            new[id(equation)] += [*made, part]
    return loop.exchanged(new)


def _slices_of(equation: Any, dependence: Dependence) -> list[Any]:
    """The readers of an equation's one result, if all of them slice it."""
    if len(equation.outvars) != 1:
        return []
    readers = dependence.users.get(equation.outvars[0], [])
    return readers if all(map(is_cut, readers)) else []


def _cuts_elementwise(equation: Any) -> bool:
    shape = equation.outvars[0].aval.shape
    return is_elementwise(equation) and all(
        atom.aval.shape == ()
        or (
            atom.aval.ndim == len(shape)
            and all(d in (1, n) for d, n in zip(atom.aval.shape, shape, strict=True))
        )
        for atom in equation.invars
    )


def _cuts_columns(equation: Any, cuts: list[Any], dependence: Dependence) -> bool:
    """Whether a product with constant weights may be cut into their columns."""
    if equation.primitive is not primitives.dot_general_p:
        return False
    right = equation.invars[1]
    _, (batch, _) = equation.params["dimension_numbers"]
    if batch or not is_variable(right) or right.aval.ndim != 2:
        return False
    shape = equation.outvars[0].aval.shape
    whole_rows = all(
        not any(cut.params["start_indices"][:-1])
        and tuple(cut.params["limit_indices"][:-1]) == shape[:-1]
        for cut in cuts
    )
    # A product of the state is not taken apart: one wide product is faster.
    is_of_sequence = dependence.level_of(equation) is Level.SEQUENCE
    return whole_rows and is_of_sequence and not dependence.changes(right)


def _sliced_operands(equation: Any, cut: Any) -> tuple[list[Any], list[Atom]]:
    made: list[Any] = []
    operands: list[Atom] = []
    starts, limits = cut.params["start_indices"], cut.params["limit_indices"]
    sizes = equation.outvars[0].aval.shape
    for atom in equation.invars:
        if atom.aval.shape != () and is_variable(atom):
            edges = zip(atom.aval.shape, sizes, starts, limits, strict=True)
            # An axis of size one is broadcast by some primitives: keep it whole.
            kept = [edge if size == n else (0, 1) for size, n, *edge in edges]
            first, last = zip(*kept, strict=True)
            made.append(slice_of(atom, first, last, cut))
            (atom,) = made[-1].outvars
        operands.append(atom)
    return made, operands


def _sliced_columns(equation: Any, cut: Any) -> tuple[list[Any], list[Atom]]:
    left, right = equation.invars
    (_, (contracted,)), _ = equation.params["dimension_numbers"]
    start, limit = cut.params["start_indices"][-1], cut.params["limit_indices"][-1]
    new = part_of(right, 1 - contracted, start, limit, cut)
    return [new], [left, *new.outvars]
