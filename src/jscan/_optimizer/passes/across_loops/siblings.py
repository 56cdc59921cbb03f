"""merge, across loops: loops that do not need each other run as one.

Two loops are siblings if they have the same number of steps and stand in one
straight-line program. If one carries the same state as the other, from the same start,
their recurrence is done once; other loops are only joined where `costs/` knows that
one larger step takes less time than two small ones.

This happens before the walk through the program, which sees one loop at a time:
`run` brings siblings side by side; `join` makes one record of them.
"""

import functools
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import Any

import jax.numpy as jnp

from jscan._jax.equations import needed, reading, renamed
from jscan._jax.jaxprs import Atom, Var, is_variable
from jscan._jax.scans import is_scan
from jscan._optimizer.analysis.dependence import reorderable
from jscan._optimizer.analysis.index import Flat, Group, is_last_row, loop_in
from jscan._optimizer.analysis.same_work import repeats_before_loops, repeats_in_loop
from jscan._optimizer.record.cleanup import drop_unused, substitute
from jscan._optimizer.record.context import Context
from jscan._optimizer.record.loop import Carry, Final, Loop, Note, Stack
from jscan._optimizer.record.names import called


def run(flat: Flat, context: Context) -> Flat:
    """The program with loops that run as one side by side, as its groups."""
    scans = filter(is_scan, flat.equations)
    loops = [e for e in scans if e.params["length"] > 1]
    if len({e.params["length"] for e in loops}) == len(loops):
        return flat
    search = _Search(flat, context)
    for equation in loops:
        search.place(equation)
    if any(len(group) > 1 for group in search.groups):
        flat = flat.with_equations([e for group in search.groups for e in group])
    for equation in loops:
        if id(equation) in search.apart:
            first, why = search.apart[id(equation)]
            text = f"stays apart from {called(first)}: {why}"
            flat = flat.noted(equation, Note(False, text))
    return replace(flat, groups=tuple(search.groups))


class _Search:
    """The groups found so far, while the loops of a program are gone through.

    Attributes:
        groups: The equations, in an order in which they may run.
        apart: For loops that were left alone (by `id`): from which one, and why.
    """

    def __init__(self, flat: Flat, context: Context) -> None:
        self.groups: list[Group] = [(equation,) for equation in flat.equations]
        self.apart: dict[int, tuple[Any, str]] = {}
        self._flat = flat
        self._context = context
        self._read = functools.partial(loop_in, flat)
        self._same: dict[Any, Any] = {}
        self._renumber()

    def _renumber(self) -> None:
        """Two calls of one function make the same start values twice: find those."""
        # In the order of now, so that the first of two equal values stands before.
        equations = [e for group in self.groups for e in group]
        self._names = repeats_before_loops(equations, self._same)

    def place(self, equation: Any) -> None:
        """Join a loop to the first earlier one that it can and should be joined to."""
        here = next(i for i, group in enumerate(self.groups) if group[0] is equation)
        read = reading(equation, self._names)
        upstream = set(map(id, _upstream(read, self.groups[:here])))
        for earlier, others in enumerate(self.groups[:here]):
            first = others[0]
            if not is_scan(first) or not _agree(first, equation, "length"):
                continue
            needs = id(others) in upstream
            if needs and not _agree(first, equation, "reverse"):
                continue  # as a backward loop needs its forward one: no siblings
            if needs:
                self.apart[id(equation)] = first, "one needs the result of the other"
                continue
            members = [*(reading(e, self._names) for e in others), read]
            between = self.groups[earlier + 1 : here]
            why = _structure(members[0], members[-1], between)
            if why is None:
                *before, second = map(self._read, members)
                why = _gain(join(before), second, self._flat, self._context)
            if why is None:
                self._join(earlier, here, members)
                for e in (equation, *others):
                    self.apart.pop(id(e), None)
                return
            self.apart[id(equation)] = first, why

    def _join(self, earlier: int, here: int, members: Sequence[Any]) -> None:
        """Put the later loop beside the earlier, and what it needs before them."""
        groups = self.groups
        between = groups[earlier + 1 : here]
        moved = _upstream(members[-1], between)
        stay = [group for group in between if all(group is not m for m in moved)]
        before, behind = groups[:earlier], groups[here + 1 :]
        self.groups = [*before, *moved, tuple(members), *stay, *behind]
        self._same |= _same_results(join(list(map(self._read, members))))
        self._renumber()


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
    equations = [e for group in groups for e in group]
    rest = [e for e in equations if e.effects or not all(v in known for v in e.outvars)]
    kept = set(map(id, needed(rest, outputs)))
    return [group for group in groups if any(id(e) in kept for e in group)]


def join(loops: Sequence[Loop]) -> Loop:
    """One record of several loops as they are written, of one length and direction."""
    joined = functools.reduce(_joined, loops)
    names = repeats_in_loop(joined)
    double = (e for e in joined.equations if e.outvars and names.keys() >= {*e.outvars})
    kept = replace(
        joined.without(double),
        carries=tuple(c for c in joined.carries if c.variable not in names),
    )
    return replace(drop_unused(substitute(kept, names)), notes=joined.notes)


def _joined(first: Loop, second: Loop) -> Loop:
    # Loops made by one function share the variables of their steps: rename.
    carried = [carry.variable for carry in second.carries]
    inputs = [*second.constants, *second.sequences, *carried]
    names: dict[Any, Any] = {v: Var(v.aval) for v in inputs}
    equations = renamed(second.equations, names, {})
    second = substitute(replace(second, equations=()), names)
    carries = [replace(c, variable=names[c.variable]) for c in second.carries]
    constants = {names[v]: value for v, value in second.constants.items()}
    sequences = {names[v]: value for v, value in second.sequences.items()}
    return replace(
        first,
        constants={**first.constants, **constants},
        sequences={**first.sequences, **sequences},
        carries=(*first.carries, *carries),
        equations=(*first.equations, *equations),
        results={**first.results, **second.results},
        zeros=first.zeros | {names[v] for v in second.zeros},
    )


def _agree(one: Any, other: Any, parameter: str) -> bool:
    return one.params[parameter] == other.params[parameter]


def _structure(first: Any, second: Any, between: Sequence[Group]) -> str | None:
    """Why two loops cannot be one, whatever it would gain."""
    if not _agree(first, second, "reverse"):
        return "they run in opposite directions"
    if not _agree(first, second, "unroll"):
        return "they are unrolled differently"
    if not reorderable(first) or not reorderable(second):
        return "a step has an effect, or communicates, and the order would change"
    if any(e.effects for group in _upstream(second, between) for e in group):
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

    def counts(aval: Any) -> bool:
        return aval.shape == () and jnp.issubdtype(aval.dtype, jnp.integer)

    changing = [c for c in drop_unused(loop).carries if c.update is not c.variable]
    return [c for c in changing if not counts(c.variable.aval)]


def _reads_few_rows(loop: Loop, flat: Flat) -> bool:
    """Whether a loop hands out some rows only; the last alone is not in the way."""
    rows = [name for name, result in loop.results.items() if isinstance(result, Stack)]
    readers = [e for name in rows for e in flat.readers.get(name) or (None,)]
    return all(e is not None and e.primitive.name == "slice" for e in readers) and any(
        not is_last_row(e, loop) for e in readers
    )


def _upstream(equation: Any, between: Sequence[Group]) -> list[Group]:
    """What must run before the equation, in order."""
    read = set(filter(is_variable, equation.invars))
    found = []
    for group in reversed(between):
        if any(v in read for e in group for v in e.outvars):
            found.append(group)
            read.update(a for e in group for a in e.invars if is_variable(a))
    return found[::-1]
