"""Which equations compute the same: keys that compare programs by structure.

Two equations are alike if they apply one primitive with one set of parameters to the
same operands. Programs inside parameters compare by what they compute, not by the
names of their variables. What cannot be compared safely (an array, a Python function)
is compared by identity, so that the answer "the same" is never wrong.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jscan.optimize._dependence import reorderable
from jscan.optimize._jaxpr import (
    Atom,
    Literal,
    holds,
    is_jaxpr,
    is_scan,
    is_variable,
    needed,
    open_jaxpr,
)
from jscan.optimize._loop import Loop

# Kept as often as they are written: a barrier, a recomputation, a draw from a
# generator with hidden state.
_NEVER_UNITED = frozenset({"optimization_barrier", "remat2", "rng_uniform"})


def can_be_united(equation: Any) -> bool:
    """Whether doing the equation once instead of twice changes nothing."""
    return reorderable(equation) and not holds(equation, _NEVER_UNITED)


def equation_key(equation: Any, operand: Callable[[Atom], Hashable]) -> Hashable:
    """Equal for equations that compute the same; `operand` gives keys of operands."""
    context = equation.ctx
    surroundings = (
        getattr(context, "compute_type", None),
        getattr(context, "threefry_partitionable", None),
        getattr(context, "xla_metadata", None),
    )
    return (
        equation.primitive,
        _parameter_key(equation.params),
        tuple(map(operand, equation.invars)),
        tuple(v.aval for v in equation.outvars),
        _parameter_key(surroundings),
    )


def value_key(value: Any) -> Hashable:
    """Equal for one array, or for equal numbers; `value` may be an operand."""
    value = value.val if isinstance(value, Literal) else value
    if isinstance(value, jax.Array) or not hasattr(value, "__array__"):
        return _parameter_key(value)
    array = np.asarray(value)
    if array.ndim:
        return ("object", id(value))
    return ("number", str(array.dtype), array.tobytes())


def _parameter_key(value: Any) -> Hashable:
    if is_jaxpr(value):
        return _program_key(value)
    if isinstance(value, tuple | list):
        return (type(value), *map(_parameter_key, value))
    if isinstance(value, dict):
        return (dict, *((k, _parameter_key(v)) for k, v in value.items()))
    if isinstance(value, bool | int | float | complex):
        return (type(value), repr(value))  # 0.0 == -0.0, and nan != nan
    if isinstance(value, jax.Array) or hasattr(value, "__array__"):
        return ("object", id(value))
    try:
        hash(value)
    except TypeError:
        return ("object", id(value))
    return (type(value), value)


def _program_key(jaxpr: Any) -> Hashable:
    opened, constants = open_jaxpr(jaxpr)
    numbers: dict[Any, int] = {}

    def operand(atom: Atom) -> Hashable:
        if not is_variable(atom):
            return (value_key(atom), atom.aval)
        return numbers.setdefault(atom, len(numbers))

    inputs = [*opened.constvars, *opened.invars]
    key: list[Hashable] = [tuple((operand(v), v.aval) for v in inputs)]
    for equation in opened.eqns:
        key.append(equation_key(equation, operand))
        key.append(tuple(map(operand, equation.outvars)))
    key.append(tuple(map(operand, opened.outvars)))
    return (*key, *(id(constant) for constant in constants))


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
        self.first.update(
            zip(variables, self._seen.setdefault(key, variables), strict=True)
        )

    def add_equation(self, equation: Any) -> None:
        """Note what an equation computes."""
        if can_be_united(equation):
            self.add(equation_key(equation, self.operand), equation.outvars)

    def repeats(self) -> dict[Any, Any]:
        """The variables that hold what an earlier one holds, with that one."""
        return {v: first for v, first in self.first.items() if v is not first}


def repeats_before_loops(
    equations: Sequence[Any], same: Mapping[Any, Any]
) -> dict[Any, Any]:
    """Repeated work that loops of a program read, as variable -> first variable.

    Loops themselves are not united here: each keeps its own results, so that each
    result is stored only as far as *its* readers need it.

    Args:
        equations: The program.
        same: Results of loops that are known to be equal to another's.
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
