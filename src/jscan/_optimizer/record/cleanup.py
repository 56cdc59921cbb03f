"""Keep a record tidy: drop what nobody reads, put one variable for another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from jscan._jax.equations import free_variables, needed, unique_variables
from jscan._jax.jaxprs import Atom, is_variable
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
    live = {v for result in loop.results.values() for v in final_variables(result)}
    stacked = loop.stacked()
    while True:
        roots = [c.update for c in loop.carries if c.variable in live] + stacked
        equations = needed(loop.equations, roots)
        read = {*free_variables(equations), *unique_variables(roots)}
        more = live | {c.variable for c in loop.carries if c.variable in read}
        if more == live:
            break
        live = more
    carries = tuple(c for c in loop.carries if c.variable in live)
    known = loop.constants.keys() | loop.sequences.keys()
    after = needed(unknown(loop.after, known), loop.wanted_rows())
    read.update(free_variables(after), loop.wanted_rows())
    return replace(
        loop,
        carries=carries,
        equations=tuple(equations),
        after=tuple(after),
        sequences={v: x for v, x in loop.sequences.items() if v in read},
        counters={v: c for v, c in loop.counters.items() if v in read},
    )


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
        return equation.replace(invars=[new(atom) for atom in equation.invars])

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
