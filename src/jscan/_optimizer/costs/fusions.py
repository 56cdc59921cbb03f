"""The cost model, fusions: how many functions does a step call that is none itself?

XLA's CPU compiler makes a function of each group of operations that it fuses, of each
product, of each row that is written into a stack, and of each state that it copies
because something reads it when the next one may be there already. Its executor calls
up to eight of them one after the other; more go through a queue, which takes 0.4 to 3.6
microseconds a step and wakes threads.
"""

from collections.abc import Collection, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from jscan._jax.jaxprs import Atom, is_variable
from jscan._jax.operations import (
    DIVISIONS,
    INDEXED,
    MOVES_DATA,
    RANDOM,
    REDUCTIONS,
    TRANSCENDENTAL,
    dot_sizes,
    is_elementwise,
)

# A sum of more numbers is two operations, of which the second is fused.
_ADDED_AT_ONCE = 32
# The step's number is added to, and copied, as rows are read and written by it.
_COUNTED = 2
_PLACED = frozenset({"pad", "concatenate", "dynamic_update_slice", "scatter", "gather"})


@dataclass(frozen=True)
class Step:
    """What one step of a loop is made of.

    Attributes:
        equations: In order.
        rows: Variables of which it hands out a row, or, in a map, reads one.
        carries: Pairs of the variable of a state and the operand that is its next one.
        constants: Variables that are the same at each step.
    """

    equations: Sequence[Any]
    rows: Sequence[Any] = ()
    carries: Sequence[tuple[Any, Atom]] = ()
    constants: Collection[Any] = ()

    @property
    def outside(self) -> set[Any]:
        """What others read of it."""
        return {*self.rows, *(next_ for _, next_ in self.carries if is_variable(next_))}


def is_fused(equation: Any) -> bool:
    """Whether the compiler fuses an operation with what reads it."""
    name = equation.primitive.name
    if name == "dot_general" and dot_sizes(equation).contracted == 1:
        return True
    known = name in MOVES_DATA or name in RANDOM or name in TRANSCENDENTAL
    return known or is_elementwise(equation)


def number_of_calls(step: Step, sums: Collection[int] = ()) -> int:
    """About how many functions one step calls, if it is no function itself.

    Of its products, those given by `id` will be sums.
    """
    found = _Groups(step, sums)
    return _COUNTED + len(found.reads) + found.copies + found.second_sums


class _Groups:
    """The operations of a step as they are fused, each named by what it ends with."""

    def __init__(self, step: Step, sums: Collection[int]) -> None:
        self.step, self.sums = step, sums
        self.made = {v: e for e in step.equations for v in e.outvars}
        self.second_sums = 0
        self.starts = self._starts()

    @cached_property
    def _arguments(self) -> set[Any]:
        """What is handed to a call that is no fused operation."""
        called = (e for e in self.step.equations if not self._is_part(e))
        return {v for e in called for v in e.invars if is_variable(v)}

    def _starts(self) -> dict[int, Any]:
        """Equations of which the result is stored: no reader works it out again."""
        step, ends = self.step, self._ends
        starts = {id(e): e for e in step.equations if not self._is_part(e)}
        updates = {u for _, u in step.carries if is_variable(u)}
        starts |= {id(e): e for v, e in self.made.items() if v in updates}
        groups: dict[int, set[Hashable]] = {}
        spread: dict[int, bool] = {}
        readers: dict[Any, list[Any]] = {}
        for equation in reversed(step.equations):
            name, made = id(equation), equation.outvars
            found = {end for v in made for end in ends.get(v, ())}
            wide = False
            for reader in (
                r for v in made for r in readers.get(v, ()) if self._is_part(r)
            ):
                wide |= _repeats(equation, reader)
                if id(reader) in starts:
                    found.add(id(reader))
                else:
                    found |= groups[id(reader)]
                    wide |= spread[id(reader)]
            groups[name], spread[name] = found, wide
            is_dear = _is_dear(equation) or name in self.sums
            kept = is_dear and (len(found) > 1 or wide)
            ends_by_it = kept or not updates.isdisjoint(made)
            self.second_sums += ends_by_it and _added(equation) > _ADDED_AT_ONCE
            if kept:
                starts[name] = equation
            for v in filter(is_variable, equation.invars):
                readers.setdefault(v, []).append(equation)
        return starts

    def _is_part(self, equation: Any) -> bool:
        """Whether it is done within a function of several."""
        short = 0 < _added(equation) <= _ADDED_AT_ONCE
        return is_fused(equation) or short or id(equation) in self.sums

    @cached_property
    def _ends(self) -> dict[Any, list[Hashable]]:
        """What is done with values besides, by those values."""
        step, ends = self.step, dict[Any, list[Hashable]]()
        states = {state for state, _ in step.carries}
        for number, row in enumerate(step.rows):
            if row in self.made or row in states:
                ends.setdefault(row, []).append(("row", number))
        there = {*step.constants, *states}
        for argument in self._arguments - there:
            ends.setdefault(argument, []).append(("argument", argument))
        for number, (state, update) in enumerate(step.carries):
            others = is_variable(update) and update not in self.made
            if others and update is not state:
                ends.setdefault(update, []).append(("state", number))
        return ends

    @cached_property
    def reads(self) -> dict[Hashable, dict[Any, bool]]:
        """By each group, the values that are there and that it reads.

        With each, whether all its numbers are read for one number of the result alone.
        """
        found: dict[Hashable, dict[Any, bool]] = {}
        for name, e in self.starts.items():
            arguments = {v: False for v in e.invars if is_variable(v)}
            is_part = self._is_part(e)
            found[name] = self._read(e.invars, _in_place(e)) if is_part else arguments
        for value, ends in self._ends.items():
            stored = value in self.made and id(self.made[value]) in self.starts
            needless = ("argument", value) if stored else None
            found |= {end: self._read([value], True) for end in ends if end != needless}
        return found

    def _read(self, values: Iterable[Any], in_place: bool) -> dict[Any, bool]:
        found: dict[Any, bool] = {}
        left, seen = [(value, in_place) for value in values], set()
        while left:
            value, place = left.pop()
            if not is_variable(value) or (value, place) in seen:
                continue
            seen.add((value, place))
            maker = self.made.get(value)
            if maker is None or id(maker) in self.starts:
                found[value] = place and found.get(value, True)
            else:
                place = place and _in_place(maker)
                left.extend((v, place) for v in maker.invars)
        return found

    @property
    def copies(self) -> int:
        """States that are read when the next one may be there already."""
        readers: dict[Any, set[Hashable]] = {}
        for name, values in self.reads.items():
            for value in values:
                readers.setdefault(value, set()).add(name)
        return sum(
            self._is_copied(number, readers.get(state, set()))
            for number, (state, _) in enumerate(self.step.carries)
        )

    def _is_copied(self, number: int, readers: set[Hashable]) -> bool:
        state, update = self.step.carries[number]
        if update is state or not is_variable(update):
            return False
        own = id(self.made[update]) if update in self.made else ("state", number)
        if not self.reads[own].get(state, True):
            return True
        others = readers - {own}
        return bool(others) and not others.issubset(self._needed(own))

    def _needed(self, name: Hashable) -> Iterator[Hashable]:
        """The groups that are done before one."""
        left, seen = [name], {name}
        while left:
            for value in self.reads.get(left.pop(), ()):
                maker = id(self.made[value]) if value in self.made else None
                for group in (maker, ("argument", value)):
                    if group in self.reads and group not in seen:
                        seen.add(group)
                        left.append(group)
                        yield group


def _in_place(equation: Any) -> bool:
    """Whether it can write where it reads."""
    return is_elementwise(equation) or equation.primitive.name in INDEXED


def _added(equation: Any) -> int:
    """How many numbers each number of a result is the sum of; 0 if it is none."""
    name = equation.primitive.name
    if name in REDUCTIONS:
        return equation.invars[0].aval.size // max(1, equation.outvars[0].aval.size)
    inner = name == "dot_general" and equation.outvars[0].aval.ndim == 0
    return dot_sizes(equation).contracted if inner else 0


def _is_dear(equation: Any) -> bool:
    """Whether it is stored rather than done twice."""
    name = equation.primitive.name
    if name == "integer_pow":
        return equation.params["y"] < 0
    dear = name in TRANSCENDENTAL or name in DIVISIONS or name in RANDOM
    return dear or _added(equation) > 1


def _repeats(equation: Any, reader: Any) -> bool:
    """Whether a reader needs each number of a result several times."""
    if reader.primitive.name in _PLACED or _added(reader) > 0:
        return False
    size = max(v.aval.size for v in equation.outvars)
    return max(v.aval.size for v in reader.outvars) > size
