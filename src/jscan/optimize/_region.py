"""The part of a program that its loops are rewritten in.

A rewrite needs the loops, what lies between them, and what reads their results in a
simple way (the last row, a sum). The layers before and after, which may be many,
need not be looked at: they are traced once, as the user's function, and left alone.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from jax.extend.core import primitives

from jscan.optimize._absorb import is_cheap_row
from jscan.optimize._flat import Flat, flattened, holds_loop
from jscan.optimize._jaxpr import (
    Atom,
    fills_with_number,
    free_variables,
    is_variable,
    needed,
    program,
)
from jscan.optimize._movers import moved_axes
from jscan.optimize._numbering import repeats_before_loops
from jscan.optimize._work import is_elementwise

_READERS = frozenset(
    {
        *(primitives.slice_p, primitives.rev_p, primitives.reduce_sum_p),
        *(primitives.reduce_max_p, primitives.reduce_min_p),
    }
)


@dataclass(frozen=True)
class Parts:
    """A program cut in three, each of which needs only those before it.

    Attributes:
        before: What depends on no loop.
        core: The loops, what lies between them, and what reads them.
        after: The rest.
        results: The operands that the whole program returns.
    """

    before: Any
    core: Any
    after: Any
    results: tuple[Atom, ...]


def split(jaxpr: Any) -> Parts:
    """Cut a plain program without effects around its loops."""
    flat = flattened(jaxpr)
    equations, results = flat.equations, flat.outputs
    leads = _leads_to_loop(equations)
    late: set[Any] = set()  # variables that depend on a loop
    made: set[Any] = set()  # those of them that the core computes
    before, core, after = [], [], []
    for equation in equations:
        operands = {v for v in equation.invars if is_variable(v) and v in late}
        is_loop = holds_loop(equation)
        if not operands and not is_loop:
            before.append(equation)
            continue
        late.update(equation.outvars)
        reads = operands <= made and _is_reader(equation)
        if is_loop or id(equation) in leads or reads:
            core.append(equation)
            made.update(equation.outvars)
        else:
            after.append(equation)
    fills = _made_for_loops(before, core, flat)
    core = _reading_once(core, equations)
    wanted = {*free_variables([*fills, *core]), *free_variables(after)}
    wanted.update(filter(is_variable, results))
    return Parts(
        before=_part(before, wanted),
        core=_part(core, wanted, fills),
        after=_part(after, wanted),
        results=tuple(results),
    )


def _part(equations: list[Any], wanted: set[Any], repeated: Sequence[Any] = ()) -> Any:
    """A program of the equations that returns what is wanted of them."""
    outputs = [v for e in equations for v in e.outvars if v in wanted]
    equations = needed([*repeated, *equations], outputs)
    return program(free_variables(equations), outputs, equations)


def _reading_once(core: list[Any], equations: Sequence[Any]) -> list[Any]:
    """The core, reading one of several equal values: or equal loops would differ."""
    names = repeats_before_loops(equations, {})
    return [
        equation.replace(
            invars=[names.get(a, a) if is_variable(a) else a for a in equation.invars]
        )
        for equation in core
    ]


def _leads_to_loop(equations: Iterable[Any]) -> set[int]:
    """The equations that a loop depends on."""
    wanted: set[Any] = set()
    found = set()
    for equation in reversed(list(equations)):
        if holds_loop(equation) or any(v in wanted for v in equation.outvars):
            found.add(id(equation))
            wanted.update(filter(is_variable, equation.invars))
    return found


def _is_reader(equation: Any) -> bool:
    reads = equation.primitive in _READERS or is_elementwise(equation)
    return reads or moved_axes(equation) is not None


def _made_for_loops(
    before: Sequence[Any], core: Iterable[Any], flat: Flat
) -> list[Any]:
    """What the core makes itself: arrays of one number, and cheap rows for its loops.

    To know the first, and to make the second in the step that reads them.
    """
    inside = {id(e) for e in core}
    taken = []
    for equation in reversed(before):
        if not (fills_with_number(equation) or is_cheap_row(equation)):
            continue
        readers = [flat.readers.get(v, ()) for v in equation.outvars]
        alone = all(
            found is not None and all(id(e) in inside for e in found)
            for found in readers
        )
        if alone or fills_with_number(equation):
            taken.append(equation)
            inside.add(id(equation))
    return taken[::-1]
