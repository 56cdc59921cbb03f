"""calls: what loops start from is worked out by one call, where threads would be woken.

XLA's CPU executor hands functions of a program to other threads as soon as more than
eight of them wait for nothing, however small they are: a program of 20 microseconds
then takes 80. What is called together waits as one.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jscan._base.kinds import counted
from jscan._jax.calls import call_of
from jscan._jax.equations import in_order, needed, reading
from jscan._jax.jaxprs import is_variable, variable_like
from jscan._jax.operations import (
    MOVES_DATA,
    REDUCTIONS,
    TRANSCENDENTAL,
    is_elementwise,
)
from jscan._jax.scans import is_scan, read_scan
from jscan._optimizer.analysis.index import Flat
from jscan._optimizer.analysis.ready import BITCASTS, is_filled, most_ready
from jscan._optimizer.record.context import Context
from jscan._optimizer.record.notes import Note

# Elements of an array from which making it may be worth a thread.
_LARGE = 2**14
# The same of all that loops read and write.
_MOST = 2**16
# Functions fewer that have to be ready at once for calls to pay.
_GAINED = 2


def run(flat: Flat, context: Context) -> Flat:
    """Call together what waits for nothing, if that is more than one thread does."""
    most, loops = context.machine.ready_calls, list(filter(is_scan, flat.equations))
    if not most or not loops or context.is_split or not all(map(_is_short, loops)):
        return flat
    before = most_ready(flat)
    if before <= most:
        return flat
    found = _Before.of(flat, loops)
    if found.count > most * most:
        return flat  # as many calls are ready at once
    after = _called(flat, found, most - 1)
    if most_ready(after) > before - _GAINED:
        return flat
    count = counted(found.count, "function")
    text = f"{count} that wait for nothing called together, which wakes no thread"
    first = next(filter(is_scan, after.equations))
    return after.noted(first, Note(True, text))


def _called(flat: Flat, found: "_Before", most: int) -> Flat:
    """The program with calls for what was found, so many functions in each."""
    calls, new = [], {}
    for results in found.parts(most):
        renamed = [variable_like(v) for v in results]
        new.update(zip(results, renamed, strict=True))
        calls.append(call_of(found.equations_of(results), results, renamed))
    kept = [_reading(e, new, found.initial) for e in flat.equations]
    return flat.with_equations(in_order(needed([*calls, *kept], flat.outputs)))


@dataclass(frozen=True)
class _Before:
    """What a program does before its loops, and for them.

    Attributes:
        equations: What waits for no loop and no large work.
        results: Variables that loops read, made by it.
        initial: Inputs of the program that loops start from: they copy them.
    """

    equations: tuple[Any, ...]
    results: tuple[Any, ...]
    initial: tuple[Any, ...]

    @classmethod
    def of(cls, flat: Flat, loops: Sequence[Any]) -> "_Before":
        """Those of a program."""
        filled: set[Any] = set()
        early: set[Any] = set()
        equations = []
        for equation in flat.equations:
            operands = set(filter(is_variable, equation.invars))
            inputs = {v for v in operands if v not in flat.producers}
            if not _is_small(equation) or not operands <= inputs | filled | early:
                continue
            made = filled if is_filled(equation, filled) else early
            made.update(equation.outvars)
            equations.append(equation)
        results, initial = {}, {}
        for loop in loops:
            for variable in filter(is_variable, loop.invars):
                made = _made_as(variable, flat)
                if made in early:
                    results[made] = None
            for variable in _initial(loop):
                if variable not in flat.producers:
                    initial[variable] = None
        return cls(tuple(equations), tuple(results), tuple(initial))

    @property
    def count(self) -> int:
        """How many functions make the results, and copy what loops start from."""
        return len(self.results) + len(self.initial)

    def equations_of(self, results: Sequence[Any]) -> list[Any]:
        """What is done for some of the results."""
        return needed(self.equations, results)

    def parts(self, most: int) -> Iterator[list[Any]]:
        """All results, so many at a time."""
        every = [*self.results, *self.initial]
        for start in range(0, len(every), most):
            yield every[start : start + most]


def _is_small(equation: Any) -> bool:
    """Whether an equation is done by one function that needs no thread of its own."""
    name = equation.primitive.name
    known = name in MOVES_DATA or name in TRANSCENDENTAL or name in REDUCTIONS
    if equation.effects or not (known or is_elementwise(equation)):
        return False
    return all(a.aval.size <= _LARGE for a in (*equation.invars, *equation.outvars))


def _made_as(variable: Any, flat: Flat) -> Any:
    """What a variable is in another shape."""
    equation = flat.producers.get(variable)
    while equation is not None and equation.primitive.name in BITCASTS:
        (variable,) = equation.invars
        equation = flat.producers.get(variable)
    return variable


def _initial(loop: Any) -> list[Any]:
    read = read_scan(loop)
    start = read.num_constants
    return list(filter(is_variable, loop.invars[start : start + read.num_carry]))


def _is_short(loop: Any) -> bool:
    """Whether what a loop reads and writes is so little that threads do not pay."""
    return sum(atom.aval.size for atom in (*loop.invars, *loop.outvars)) <= _MOST


def _reading(equation: Any, new: Mapping[Any, Any], initial: Collection[Any]) -> Any:
    """An equation that reads what was called for; what is initial, as a start only."""
    names = {v: name for v, name in new.items() if v not in initial}
    changed = reading(equation, names)
    if not is_scan(equation):
        return changed
    read, operands = read_scan(equation), list(changed.invars)
    for number in range(read.num_constants, read.num_constants + read.num_carry):
        atom = operands[number]
        operands[number] = new.get(atom, atom) if is_variable(atom) else atom
    return changed.replace(invars=operands)
