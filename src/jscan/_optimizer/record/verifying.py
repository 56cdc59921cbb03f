"""Is a record sound? Asked after every rule, with `JSCAN_DEBUG=1`."""

from collections.abc import Iterable
from typing import Any

from jscan._jax.jaxprs import Atom, is_variable
from jscan._optimizer.record.loop import Loop, final_variables


def verify(loop: Loop, rule: str) -> None:
    """Raise unless all that a record reads is there, once, and of the right type."""
    carried = [carry.variable for carry in loop.carries]
    given = [*loop.constants, *loop.sequences, *carried]
    made = [v for equation in loop.equations for v in equation.outvars]
    behind = [v for equation in loop.after for v in equation.outvars]
    counted = loop.counters.keys()
    for names, what in ((given, "given"), (made, "computed"), (behind, "computed")):
        if len(set(names)) < len(names):
            raise AssertionError(f"{rule}: a variable is {what} twice")
    known = {*given, *counted, *loop.joined}
    for equation in loop.equations:
        _check(equation.invars, known, rule, f"{equation.primitive.name} in the step")
        known.update(equation.outvars)
    for carry in loop.carries:
        _check([carry.update], known, rule, "the next value of a state")
        have, need = carry.update.aval, carry.variable.aval
        if (have.shape, have.dtype) != (need.shape, need.dtype):
            raise AssertionError(f"{rule}: a state {need} continues as {have}")
    for equation in loop.after:
        _check(equation.invars, known, rule, f"{equation.primitive.name} behind it")
        known.update(equation.outvars)
    _check(loop.wanted_rows(), known, rule, "a result")
    for result in loop.results.values():
        _check(final_variables(result), {*carried, *counted}, rule, "a last value")


def _check(atoms: Iterable[Atom], known: set[Any], rule: str, reader: str) -> None:
    for atom in atoms:
        if is_variable(atom) and atom not in known:
            raise AssertionError(f"{rule}: {reader} reads {atom}, which nothing gives")
