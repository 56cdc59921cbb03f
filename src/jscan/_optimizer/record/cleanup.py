"""Keep a record tidy: drop what nobody reads, put one variable for another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from jscan._jax.equations import free_variables, needed, reading
from jscan._jax.jaxprs import Atom, Literal, is_variable
from jscan._optimizer.record.loop import (
    Final,
    Loop,
    Result,
    Stack,
    Total,
    final_variables,
    unknown,
    with_sources,
)


def drop_unused(loop: Loop) -> Loop:
    """Drop carries, sequences and equations that no result needs."""
    finals = {v for result in loop.results.values() for v in final_variables(result)}
    read, made = _reached(loop, [*finals, *loop.stacked()])
    known = loop.constants.keys() | loop.sequences.keys()
    after = needed(unknown(loop.after, known), loop.wanted_rows())
    read.update(free_variables(after), loop.wanted_rows())
    parts: dict[str, Any] = dict(
        carries=tuple(c for c in loop.carries if c.variable in read),
        equations=tuple(e for e in loop.equations if id(e) in made),
        after=tuple(after),
        sequences={v: x for v, x in loop.sequences.items() if v in read},
        counters={v: c for v, c in loop.counters.items() if v in read},
    )
    # What is known of parts (`Dependence`) is known of those very parts.
    gone = {name: p for name, p in parts.items() if len(p) < len(getattr(loop, name))}
    return replace(loop, **gone) if gone else loop


def _reached(loop: Loop, roots: list[Any]) -> tuple[set[Any], set[int]]:
    """The variables that are needed, and (by `id`) the equations that make them."""
    producers = {v: e for e in loop.equations for v in e.outvars}
    updates = {carry.variable: carry.update for carry in loop.carries}
    made = {id(e): e for e in loop.equations if e.effects}
    read: set[Any] = set()
    pending = [*roots, *(a for e in made.values() for a in e.invars)]
    while pending:
        atom = pending.pop()
        if isinstance(atom, Literal) or atom in read:
            continue
        read.add(atom)
        if atom in updates:
            pending.append(updates[atom])
        elif atom in producers and id(producers[atom]) not in made:
            made[id(producers[atom])] = producers[atom]
            pending += producers[atom].invars
    return read, set(made)


def without_carries(loop: Loop, ends: Mapping[Any, Result]) -> Loop:
    """The loop without carries of which something else gives the last values."""

    def resolve(made: Result) -> Result:
        match made:
            case Final(variable) if variable in ends:
                return ends[variable]
        return made

    return replace(
        loop,
        carries=tuple(c for c in loop.carries if c.variable not in ends),
        results={n: with_sources(r, resolve) for n, r in loop.results.items()},
    )


def substitute(loop: Loop, names: Mapping[Any, Atom]) -> Loop:
    """Replace variables by other operands wherever the loop reads them."""
    if not names:
        return loop

    def new(atom: Atom) -> Atom:
        return names.get(atom, atom) if is_variable(atom) else atom

    def change(equation: Any) -> Any:
        return reading(equation, names)

    def change_source(made: Result) -> Result:
        match made:
            case Final(variable):
                return Final(new(variable))
            case Stack(atom):
                return Stack(new(atom))
            case Total(initial, terms):
                return Total(initial, tuple(map(new, terms)))
        return made

    return replace(
        loop,
        carries=tuple(replace(c, update=new(c.update)) for c in loop.carries),
        equations=tuple(map(change, loop.equations)),
        after=tuple(map(change, loop.after)),
        results={n: with_sources(r, change_source) for n, r in loop.results.items()},
    )
