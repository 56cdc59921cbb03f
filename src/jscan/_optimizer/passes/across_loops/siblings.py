"""merge, across loops: loops that do not need each other run as one.

Two loops are siblings if they have the same number of steps and stand in one
straight-line program. If one carries the same state as the other, from the same start,
their recurrence is done once; other loops are only joined where `_cost.py` knows that
one larger step takes less time than two small ones.

This happens before the walk through the program, which sees one loop at a time:
`run` brings siblings side by side, and `join` makes one record of them.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax.numpy as jnp

from jscan._jax.equations import needed, renamed
from jscan._jax.jaxprs import Atom, NotUnderstoodError, Var, is_variable
from jscan._jax.scans import is_scan
from jscan._optimizer.analysis.dependence import reorderable
from jscan._optimizer.analysis.index import Flat, Group, loop_in
from jscan._optimizer.analysis.readers import is_last_row
from jscan._optimizer.analysis.same_work import repeats_before_loops, repeats_in_loop
from jscan._optimizer.record.cleanup import drop_unused, substitute
from jscan._optimizer.record.context import Context
from jscan._optimizer.record.loop import Carry, Final, Loop, Note, Result, Stack
from jscan._optimizer.record.names import called


def run(flat: Flat, context: Context) -> Flat:
    """The program with loops that run as one side by side, as its groups."""
    loops = [e for e in flat.equations if _is_candidate(e)]
    if len({e.params["length"] for e in loops}) == len(loops):
        return flat
    search = _Search(flat, context)
    for equation in loops:
        search.place(equation)
    if any(len(group) > 1 for group in search.groups):
        flat = flat.with_equations([e for group in search.groups for e in group])
    for equation in loops:
        if id(equation) in search.apart:
            flat = flat.noted(equation, Note(False, search.apart[id(equation)]))
    return replace(flat, groups=tuple(search.groups))


class _Search:
    """The groups found so far, while the loops of a program are gone through.

    Attributes:
        groups: The equations, in an order in which they may run.
        apart: For loops that were left alone (by `id`): why, in a sentence.
    """

    def __init__(self, flat: Flat, context: Context) -> None:
        self.groups: list[Group] = [(equation,) for equation in flat.equations]
        self.apart: dict[int, str] = {}
        self._flat = flat
        self._context = context
        self._same: dict[Any, Any] = {}
        self._renumber()

    def _read(self, equation: Any) -> Loop:
        return loop_in(self._flat, equation)

    def _renumber(self) -> None:
        """Two calls of one function make the same start values twice: find those."""
        # In the order of now, so that the first of two equal values stands before.
        equations = [e for part in self.groups for e in part]
        self._names = repeats_before_loops(equations, self._same)

    def place(self, equation: Any) -> None:
        """Join a loop to the first earlier one that it can and should be joined to."""
        here = next(i for i, part in enumerate(self.groups) if part[0] is equation)
        for earlier, others in enumerate(self.groups[:here]):
            alike = is_scan(others[0]) and _same_length(equation, others[0])
            if not alike:
                continue
            members = [_reading(e, self._names) for e in (*others, equation)]
            between = self.groups[earlier + 1 : here]
            needs = _needs(members[-1], _made_after(others, between))
            if needs and _reversed(equation) != _reversed(others[0]):
                continue  # as a backward loop needs its forward one: no siblings
            why = _structure(needs, members[0], members[-1], between)
            if why is None:
                *first, second = map(self._read, members)
                why = _gain(join(first), second, self._flat, self._context)
            if why is None:
                self._join(earlier, here, members)
                self._same |= _same_results(join([*map(self._read, members)]))
                self._renumber()
                for e in (equation, *others):
                    self.apart.pop(id(e), None)
                return
            why = f"stays apart from {called(others[0])}: {why}"
            self.apart[id(equation)] = why

    def _join(self, earlier: int, here: int, members: Sequence[Any]) -> None:
        """Put the later loop beside the earlier, and what it needs before them."""
        groups = self.groups
        between = groups[earlier + 1 : here]
        moved = _upstream(members[-1], between)
        stay = [part for part in between if not any(part is other for other in moved)]
        self.groups = [
            *groups[:earlier],
            *moved,
            tuple(members),
            *stay,
            *groups[here + 1 :],
        ]


def _reading(equation: Any, names: Mapping[Any, Any]) -> Any:
    """The equation, reading other variables where they hold the same."""
    new = [names.get(a, a) if is_variable(a) else a for a in equation.invars]
    return equation.replace(invars=new)


def _same_results(loop: Loop) -> dict[Any, Any]:
    """Results that are equal to an earlier one, with that one."""
    first: dict[Any, Any] = {}
    same = {}
    for name, result in loop.results.items():
        atom = result.variable if isinstance(result, Final) else result.atom  # pyright: ignore
        kept = first.setdefault((type(result), id(atom), name.aval), name)
        if kept is not name:
            same[name] = kept
    return same


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
    return [part for part in groups if any(id(e) in kept for e in part)]


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


def _is_candidate(equation: Any) -> bool:
    return is_scan(equation) and equation.params["length"] > 1


def _same_length(one: Any, other: Any) -> bool:
    return one.params["length"] == other.params["length"]


def _reversed(equation: Any) -> bool:
    return bool(equation.params["reverse"])


def _structure(
    needs: bool, first: Any, second: Any, between: Sequence[Group]
) -> str | None:
    """Why two loops cannot be one, whatever it would gain."""
    if needs:
        return "one needs the result of the other"
    if _reversed(first) != _reversed(second):
        return "they run in opposite directions"
    if first.params["unroll"] != second.params["unroll"]:
        return "they are unrolled differently"
    if not reorderable(first) or not reorderable(second):
        return "a step has an effect, or communicates, and the order would change"
    if any(e.effects for g in _upstream(second, between) for e in g):
        return "an effect stands between them"
    return None


def _gain(first: Loop, second: Loop, flat: Flat, context: Context) -> str | None:
    """Why loops are better left alone although they could be one, if so."""
    joined = join([first, second])
    if _covers(joined, first, second) or _covers(joined, second, first):
        return None
    if not _state(first) or not _state(second):
        return "one of them has no state, so it needs no loop"
    if _reads_few_rows(first, flat) or _reads_few_rows(second, flat):
        return "only some rows of one of them are read, and the other needs all steps"
    return context.machine.keeps_apart(
        joined.equations, [c.variable for c in joined.carries], joined.stacked()
    )


def _covers(joined: Loop, larger: Loop, smaller: Loop) -> bool:
    """Whether one loop does what the other does for its state anyway."""
    if _state(smaller):
        return len(_state(joined)) == len(_state(larger))
    # Loops without state are batched over time: only whole repetitions pay there.
    return len(joined.equations) == len(join([larger]).equations)


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


def _reads_few_rows(loop: Loop, flat: Flat) -> bool:
    """Whether a loop hands out some rows only; the last alone is not in the way."""
    rows = [name for name, result in loop.results.items() if isinstance(result, Stack)]
    readers = [e for name in rows for e in flat.readers.get(name) or (None,)]
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
