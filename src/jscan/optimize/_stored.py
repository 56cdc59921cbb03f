"""save_memory, across a derivative: what a forward program stores for its linear one.

JAX splits a derivative in two programs. The loop of the first stores rows, and the loop
of the second, whose transpose runs backwards, reads them. Here cheap rows of which the
parts are stored anyway are taken from the first and computed by the second, in front of
its loop. What is written there is linear and stays so; the pass that meets the
transposed loop later moves the work into its step (`_absorb.py`).
"""

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import jax

from jscan.optimize._again import NOTHING, Again, Search
from jscan.optimize._flat import (
    Flat,
    flattened,
    index,
    is_explicitly_sharded,
    loop_in,
)
from jscan.optimize._jaxpr import (
    Atom,
    evaluate,
    free_variables,
    is_scan,
    is_variable,
    program,
    splice,
    variable_like,
)
from jscan.optimize._loop import Loop, has_effects
from jscan.optimize._machines import is_measured
from jscan.optimize._options import Options
from jscan.optimize._pipeline import debugging, enabled
from jscan.optimize._residuals import NAME

Source: TypeAlias = tuple[Literal["input", "output", "residual"], int]


def store_less(
    forward: Any,
    linear: Any,
    sources: Sequence[Source],
    outputs: int,
    options: Options,
    platform: str,
) -> tuple[Any, Any, tuple[Source, ...]] | None:
    """Take rows that are cheap to compute from what a forward program hands out.

    Never raises (but with `JSCAN_DEBUG=1`): what is not understood stays stored.

    Args:
        forward: ``inputs -> outputs + residuals``, an open program.
        linear: ``(known values, tangents) -> tangents``, an open program.
        sources: Where each known value comes from.
        outputs: The number of outputs of `forward` without its residuals.
        options: Whether that is asked for.
        platform: Where it will run, as far as that is known.

    Returns:
        The same three, changed; `None` if there is nothing to gain.
    """
    unknown = options.unasked and not is_measured(platform)
    if unknown or NAME not in options.passes or not enabled():
        return None
    if forward.constvars or linear.constvars or is_explicitly_sharded(forward):
        return None
    try:
        return _store_less(forward, linear, sources, outputs)
    except Exception:
        if debugging():
            raise
        return None


def _store_less(
    forward: Any, linear: Any, sources: Sequence[Source], outputs: int
) -> tuple[Any, Any, tuple[Source, ...]] | None:
    first = flattened(forward)
    second = flattened(linear)
    found = {
        "input": forward.invars,
        "output": first.outputs,
        "residual": first.outputs[outputs:],
    }
    known = [found[kind][position] for kind, position in sources]
    names = dict(zip(linear.invars, known, strict=False))
    tangents = linear.invars[len(known) :]

    def named(atom: Atom) -> Atom:
        return names.get(atom, atom) if is_variable(atom) else atom

    later = [e.replace(invars=[named(a) for a in e.invars]) for e in second.equations]
    results = [named(atom) for atom in second.outputs]
    ends = [*first.outputs[:outputs], *results]
    loops = [e for e in later if is_scan(e)]
    gained = False
    for equation in loops:
        flat = index([*first.equations, *later], ends)
        again = _cheap_rows(equation, flat)
        if again.gone:
            gained = True
            here = later.index(equation)
            later[here : here + 1] = _with_rows(equation, flat, again)
    if not gained:
        return None
    return _cut(forward, first, outputs, later, results, tangents)


def _cheap_rows(equation: Any, flat: Flat) -> Again:
    """What a loop of the linear program reads and can compute."""
    loop = _read(equation, flat)
    if loop.length < 2 or has_effects(loop) or loop.recomputes:
        return NOTHING
    made = (flat.producers.get(v) for v in filter(is_variable, equation.invars))
    earlier = {id(e): e for e in made if e is not None and is_scan(e)}
    again = NOTHING
    for other in earlier.values():
        if other.params["length"] == equation.params["length"]:
            again |= Search(loop, equation, other, flat, lambda e: _read(e, flat)).run()
    return again


def _read(equation: Any, flat: Flat) -> Loop:
    return loop_in(flat, equation, final=False)


def _with_rows(equation: Any, flat: Flat, again: Again) -> list[Any]:
    """The loop behind equations that compute some of its rows, all steps at once."""
    loop = _read(equation, flat)
    rows = {**loop.sequences, **again.read}
    fixed = {**loop.constants, **again.fixed}
    inner = free_variables(again.equations)
    changing = [v for v in inner if v in rows]
    constant = [v for v in inner if v not in rows]

    def compute(*values: Any) -> list[Any]:
        known = dict(zip(constant, values[len(changing) :], strict=True))

        def step(*row: Any) -> list[Any]:
            here = {**known, **dict(zip(changing, row, strict=True))}
            return evaluate(again.equations, here, again.gone)

        return jax.vmap(step)(*values[: len(changing)])

    operands = [rows[v] for v in changing] + [fixed[v] for v in constant]
    new = {loop.sequences[v]: variable_like(loop.sequences[v]) for v in again.gone}
    made = splice(compute, operands, equation, list(new.values()))
    invars = [new.get(a, a) if is_variable(a) else a for a in equation.invars]
    return [*made, equation.replace(invars=invars)]


def _cut(
    forward: Any,
    first: Flat,
    outputs: int,
    later: list[Any],
    results: list[Atom],
    tangents: Sequence[Any],
) -> tuple[Any, Any, tuple[Source, ...]]:
    """The two programs anew, with as few values between them as the second reads."""
    own = {*tangents, *(v for e in later for v in e.outvars)}
    read = [*free_variables(later), *filter(is_variable, results)]
    known = [v for v in dict.fromkeys(read) if v not in own]
    places: dict[Any, Source] = {}
    for position, atom in enumerate(forward.invars):
        places[atom] = ("input", position)
    for position, atom in enumerate(first.outputs[:outputs]):
        if is_variable(atom):
            places.setdefault(atom, ("output", position))
    residuals = [v for v in known if v not in places]
    places |= {v: ("residual", n) for n, v in enumerate(residuals)}
    ends = [*first.outputs[:outputs], *residuals]
    return (
        program(forward.invars, ends, first.equations),
        program([*known, *tangents], results, later),
        tuple(places[v] for v in known),
    )
