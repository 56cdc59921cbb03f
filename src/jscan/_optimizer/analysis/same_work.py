"""Which equations compute the same: keys that compare programs by structure.

Two equations are alike if they apply one primitive with one set of parameters to the
same operands. Programs inside parameters compare by what they compute, not by the
names of their variables. What cannot be compared safely (an array, a Python function)
is compared by identity, so that the answer "the same" is never wrong.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from jscan._jax.equations import needed
from jscan._jax.jaxprs import Atom, holds, is_variable
from jscan._jax.scans import is_scan
from jscan._jax.structure import equation_key, value_key
from jscan._optimizer.analysis.dependence import reorderable
from jscan._optimizer.record.loop import Loop

# Kept as often as they are written: a barrier, a recomputation, a draw from a
# generator with hidden state.
_NEVER_UNITED = frozenset({"optimization_barrier", "remat2", "rng_uniform"})


class Numbering:
    """Gives every variable the first variable that holds the same value."""

    def __init__(self) -> None:
        """Begin with nothing known."""
        self.first: dict[Any, Any] = {}
        self._seen: dict[Hashable, Sequence[Any]] = {}

    def operand(self, atom: Atom) -> Hashable:
        """The key of an operand."""
        if not is_variable(atom):
            return (value_key(atom), atom.aval)
        return id(self.first.get(atom, atom))

    def add(self, key: Hashable, variables: Sequence[Any]) -> None:
        """Note that variables hold what the key describes."""
        first = self._seen.setdefault(key, variables)
        self.first.update(zip(variables, first, strict=True))

    def add_equation(self, equation: Any) -> None:
        """Note what an equation computes."""
        if reorderable(equation) and not holds(equation, _NEVER_UNITED):
            self.add(equation_key(equation, self.operand), equation.outvars)

    def repeats(self) -> dict[Any, Any]:
        """The variables that hold what an earlier one holds, with that one."""
        return {v: first for v, first in self.first.items() if v is not first}


def repeats_before_loops(
    equations: Sequence[Any], same: Mapping[Any, Any]
) -> dict[Any, Any]:
    """Repeated work that loops of a program read, as variable -> first variable.

    Loops themselves are not united here: each keeps its own results, so that each
    result is stored only as far as *its* readers need it. `same` holds those that are
    known to be equal to another loop's.
    """
    read = [atom for e in equations if is_scan(e) for atom in e.invars]
    numbering = Numbering()
    numbering.first.update(same)
    for equation in needed(equations, read):
        if not is_scan(equation):
            numbering.add_equation(equation)
    return numbering.repeats()


def repeats_in_loop(loop: Loop) -> Mapping[Any, Any]:
    """Repeated constants, sequences, carries and work of a step.

    Carries that start alike are first taken to be the same, and parted where their
    updates then differ, until nothing changes: so two copies of one recurrence are
    found, though each copy reads itself alone.
    """
    classes: dict[Any, Hashable] = {
        c.variable: (value_key(c.initial), c.variable.aval) for c in loop.carries
    }
    while True:
        numbering = Numbering()
        for values in (loop.constants, loop.sequences):
            for variable, value in values.items():
                kind = values is loop.sequences
                key = (kind, value_key(value), variable.aval, variable in loop.zeros)
                numbering.add(key, [variable])
        for variable, key in classes.items():
            numbering.add(("carry", key), [variable])
        for equation in loop.equations:
            numbering.add_equation(equation)
        refined = {
            c.variable: (classes[c.variable], numbering.operand(c.update))
            for c in loop.carries
        }
        if len(set(refined.values())) == len(set(classes.values())):
            return numbering.repeats()
        numbers = {key: n for n, key in enumerate(dict.fromkeys(refined.values()))}
        classes = {variable: numbers[key] for variable, key in refined.items()}
