"""merge, across loops: loops that do not need each other run as one.

Two loops are siblings if they have the same number of steps and stand in one
straight-line program. If one carries the same state as the other, from the same start,
their recurrence is done once; other loops are only joined where `_cost.py` knows that
one larger step takes less time than two small ones.

This happens before the walk through the program, which sees one loop at a time:
`group` brings siblings side by side, and `join` makes one record of them.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import jax.numpy as jnp

from jscan.optimize._dependence import reorderable
from jscan.optimize._jaxpr import (
    Atom,
    NotUnderstoodError,
    Var,
    is_scan,
    is_variable,
    needed,
    read_scan,
    renamed,
)
from jscan.optimize._loop import Carry, Final, Loop, Result, Stack
from jscan.optimize._merge import NAME, drop_unused, substitute
from jscan.optimize._numbering import repeats_before_loops, repeats_in_loop
from jscan.optimize._options import Context
from jscan.optimize._save_memory import is_last_row

Group: TypeAlias = tuple[Any, ...]
"""Loops to run as one; or one equation of any kind."""


@dataclass(frozen=True)
class Siblings:
    """A program's equations with sibling loops side by side.

    Attributes:
        groups: The equations, in an order in which they may run.
        apart: For loops that were left alone (by `id`): why, in a sentence.
    """

    groups: tuple[Group, ...]
    apart: dict[int, str]


def group(
    equations: Sequence[Any],
    read: Callable[[Any], Loop],
    name: Callable[[Any], str],
    context: Context,
) -> Siblings:
    """Find the loops of a program that run as one.

    Args:
        equations: The equations, in order; repeated work is best united before.
        read: Gives the record of a loop, with operands in place of values.
        name: What to call a loop in a sentence.
        context: Options, platform and stage.
    """
    groups: list[Group] = [(equation,) for equation in equations]
    apart: dict[int, str] = {}
    if NAME not in context.options.passes:
        return Siblings(tuple(groups), apart)
    for equation in [e for e in equations if _is_candidate(e)]:
        here = next(i for i, g in enumerate(groups) if g[0] is equation)
        for earlier, others in enumerate(groups[:here]):
            if not is_scan(others[0]) or not _same_length(equation, others[0]):
                continue
            why = _structure(groups, earlier, here) or _gain(
                [*map(read, others), read(equation)], context
            )
            if why is None:
                groups = _side_by_side(groups, earlier, here)
                apart.pop(id(equation), None)
                break
            apart[id(equation)] = f"stays apart from {name(others[0])}: {why}"
    return Siblings(tuple(groups), apart)


def without_repeats(
    equations: Sequence[Any],
) -> tuple[list[Any], dict[Any, Any]]:
    """The equations without repeated work that loops read.

    Two calls of one function build the same start values twice: only when these are
    one are the loops that read them seen to be the same.

    Returns:
        The equations, and what to read instead of the variables that are gone.
    """
    if not _any_candidates(equations):
        return list(equations), {}
    names = repeats_before_loops(equations)
    kept = [
        e.replace(invars=[names.get(a, a) if is_variable(a) else a for a in e.invars])
        for e in equations
        if e.effects or not e.outvars or not all(v in names for v in e.outvars)
    ]
    return kept, names


def without_unneeded(
    groups: Sequence[Group], known: Collection[Any], outputs: Iterable[Atom]
) -> list[Group]:
    """The groups that give what is not known yet, and is needed, or have effects."""
    rest = [
        e
        for part in groups
        for e in part
        if e.effects or not all(v in known for v in e.outvars)
    ]
    kept = {id(e) for e in needed(rest, outputs)}
    left = [tuple(e for e in part if id(e) in kept) for part in groups]
    return [part for part in left if part]


def join(loops: Sequence[Loop]) -> Loop:
    """One record of several loops of the same length and direction."""
    joined = loops[0]
    for other in loops[1:]:
        joined = _join(joined, other)
    names = repeats_in_loop(joined)
    kept = replace(
        joined,
        carries=tuple(c for c in joined.carries if c.variable not in names),
        equations=tuple(
            e
            for e in joined.equations
            if not e.outvars or not all(v in names for v in e.outvars)
        ),
    )
    return replace(drop_unused(substitute(kept, names)), notes=joined.notes)


def _join(first: Loop, second: Loop) -> Loop:
    # Loops made by one function share the variables of their steps: rename.
    inputs = [*second.constants, *second.sequences]
    inputs += [carry.variable for carry in second.carries]
    names: dict[Any, Atom] = {v: Var(v.aval) for v in inputs}
    equations = renamed(second.equations, names, {})

    def new(atom: Atom) -> Atom:
        return names.get(atom, atom) if is_variable(atom) else atom

    def result(old: Result) -> Result:
        match old:
            case Final(variable):
                return Final(new(variable))
            case Stack(atom):
                return Stack(new(atom))
        raise NotUnderstoodError("only loops as they are written can be joined")

    carries = [Carry(new(c.variable), new(c.update), c.initial) for c in second.carries]
    return replace(
        first,
        constants={
            **first.constants,
            **{new(v): value for v, value in second.constants.items()},
        },
        sequences={
            **first.sequences,
            **{new(v): value for v, value in second.sequences.items()},
        },
        carries=(*first.carries, *carries),
        equations=(*first.equations, *equations),
        results={
            **first.results,
            **{name: result(old) for name, old in second.results.items()},
        },
        zeros=first.zeros | {new(v) for v in second.zeros},
    )


def _any_candidates(equations: Sequence[Any]) -> bool:
    loops = [e for e in equations if _is_candidate(e)]
    lengths = {e.params["length"] for e in loops}
    return len(lengths) < len(loops)


def _is_candidate(equation: Any) -> bool:
    return is_scan(equation) and equation.params["length"] > 1


def _same_length(one: Any, other: Any) -> bool:
    return one.params["length"] == other.params["length"]


def _structure(groups: Sequence[Group], earlier: int, later: int) -> str | None:
    """Why two loops cannot be one, whatever it would gain."""
    first, second = groups[earlier][0], groups[later][0]
    one, other = read_scan(first), read_scan(second)
    if one.reverse != other.reverse:
        return "they run in opposite directions"
    if one.unroll != other.unroll:
        return "they are unrolled differently"
    if not reorderable(first) or not reorderable(second):
        return "a step has an effect, or communicates, and the order would change"
    between = groups[earlier + 1 : later]
    if _needs(second, _made_after(groups[earlier], between)):
        return "one needs the result of the other"
    if any(e.effects for g in _upstream(second, between) for e in g):
        return "an effect stands between them"
    return None


def _gain(loops: Sequence[Loop], context: Context) -> str | None:
    """Why loops are better left alone although they could be one, if so."""
    joined = join(loops)
    if any(_adds_no_state(joined, loops, part) for part in (loops[0], loops[-1])):
        return None
    if context.stage == "trace":
        return "a derivative may follow, whose loops may be faster apart"
    if not all(map(_state, loops)):
        return "one of them has no state, so it needs no loop"
    if any(_reads_few_rows(loop, context) for loop in loops):
        return "only some rows of one of them are read, and the others need all steps"
    return context.machine.keeps_apart(
        joined.equations, [c.variable for c in joined.carries], joined.stacked()
    )


def _adds_no_state(joined: Loop, loops: Sequence[Loop], part: Loop) -> bool:
    """Whether the others already carry what one of the loops carries."""
    rest = join([loop for loop in loops if loop is not part])
    if _state(part):
        return len(_state(joined)) == len(_state(rest))
    # Loops without state are batched over time: only whole repetitions pay there.
    return len(joined.equations) == len(rest.equations)


def _state(loop: Loop) -> list[Carry]:
    """The carries that are neither constant nor (probably) counters."""
    return [
        c
        for c in drop_unused(loop).carries
        if c.update is not c.variable
        and not (
            c.variable.aval.shape == ()
            and jnp.issubdtype(c.variable.aval.dtype, jnp.integer)
        )
    ]


def _reads_few_rows(loop: Loop, context: Context) -> bool:
    """Whether a loop hands out some rows only; the last alone is not in the way."""
    rows = [name for name, result in loop.results.items() if isinstance(result, Stack)]
    readers = [e for name in rows for e in context.consumers.get(name) or (None,)]
    return all(e is not None and e.primitive.name == "slice" for e in readers) and any(
        not is_last_row(e, loop) for e in readers
    )


def _made_after(loop: Group, between: Iterable[Group]) -> set[Any]:
    """What the loop computes, and what is computed from it."""
    made = {v for e in loop for v in e.outvars}
    for part in between:
        if any(_needs(e, made) for e in part):
            made.update(v for e in part for v in e.outvars)
    return made


def _needs(equation: Any, variables: set[Any]) -> bool:
    return any(is_variable(a) and a in variables for a in equation.invars)


def _upstream(equation: Any, between: Sequence[Group]) -> list[Group]:
    """What must run before the equation, in order."""
    read = set(filter(is_variable, equation.invars))
    found = []
    for part in reversed(between):
        if any(v in read for e in part for v in e.outvars):
            found.append(part)
            read.update(a for e in part for a in e.invars if is_variable(a))
    return found[::-1]


def _side_by_side(groups: list[Group], earlier: int, later: int) -> list[Group]:
    """The groups with a later one joined to an earlier, and what it needs before."""
    between = groups[earlier + 1 : later]
    moved = _upstream(groups[later][0], between)
    stay = [part for part in between if not any(part is other for other in moved)]
    joined = (*groups[earlier], *groups[later])
    return [*groups[:earlier], *moved, joined, *stay, *groups[later + 1 :]]
