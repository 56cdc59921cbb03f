"""accumulate, in the loop: rows are added where they belong, not by way of zeros.

The derivative of reading ``s[i]`` writes one row into an array of zeros as large as
`s`, and adds all of it: T steps cost T times the size of `s`, which makes the gradient
of a loop that fills an array step by step quadratic (JAX issue 10197). Adding the row
in place costs one row. For XLA to do so, what reads the array must come before what
writes it: a barrier says so (JAX before 0.12 copies the array even then).
"""

from dataclasses import replace
from typing import Any

import jax

from jscan._base.kinds import counted
from jscan._jax.equations import in_order, splice
from jscan._jax.jaxprs import Atom, number_of_bytes, variable_like
from jscan._jax.operations import is_elementwise
from jscan._optimizer.analysis.dependence import Dependence, Level
from jscan._optimizer.analysis.linearity import is_zero
from jscan._optimizer.analysis.sum_trees import ADDITIONS, Sums
from jscan._optimizer.record.cleanup import drop_unused, substitute
from jscan._optimizer.record.context import Context
from jscan._optimizer.record.loop import Loop


def run(loop: Loop, context: Context) -> Loop:
    """Rewrite each sum of an array of the state and a row written into zeros."""
    loop = _rows_in_place(loop)
    for carry in loop.carries:
        loop = _reads_first(loop, context, carry.variable)
    return loop


def _rows_in_place(loop: Loop) -> Loop:
    sums = Sums(Dependence(loop))
    new: dict[int, list[Any]] = {}
    for equation in loop.equations:
        found = _written_rows(equation, sums)
        if found is not None:
            new[id(equation)] = _added_in_place(equation, *found)
    if not new:
        return loop
    if len(new) > _MOST:
        text = f"{len(new)} rows a step stay sums: XLA compiles more than {_MOST}"
        return loop.refused(f"{text} in place too slowly")
    text = f"{counted(len(new), 'row')} a step added in place"
    return drop_unused(loop.exchanged(new).fired(text))


def _written_rows(equation: Any, sums: Sums) -> tuple[Any, Atom] | None:
    """What a sum adds that is zero but for a few rows, if so, and to what."""
    if equation.primitive.name not in ADDITIONS:
        return None
    for operand, other in (equation.invars, equation.invars[::-1]):
        write = sums.producer(operand)
        if (
            write is not None
            and write.primitive.name in _WRITES
            and sums.is_read_once(operand)
            and other.aval == operand.aval
            and _is_stored(other, sums.dependence)
            and is_zero(write.invars[0], sums.dependence)
        ):
            return write, other
    return None


def _is_stored(atom: Atom, dependence: Dependence) -> bool:
    """Whether an operand is an array of the state that XLA may update in place."""
    if dependence.level(atom) is not Level.STATE:
        return False
    made = dependence.producer(atom)
    # Elementwise work makes a new array anyway, and takes the addition along.
    return made is None or not is_elementwise(made) or made.primitive.name in ADDITIONS


def _added_in_place(equation: Any, write: Any, total: Atom) -> list[Any]:
    operands = [total, *write.invars[1:]]
    if write.primitive.name == "scatter-add":
        return [write.replace(invars=operands, outvars=equation.outvars)]
    return splice(_add_window, operands, equation)


def _add_window(total: jax.Array, rows: jax.Array, *starts: jax.Array) -> jax.Array:
    # Both operations clamp the starts in the same way.
    old = jax.lax.dynamic_slice(total, starts, rows.shape)
    return jax.lax.dynamic_update_slice(total, old + rows, starts)


def _reads_first(loop: Loop, context: Context, array: Any) -> Loop:
    """Order the reads of a large array before the one write to it."""
    dependence = Dependence(loop)
    users = dependence.users.get(array, [])
    writes = [e for e in users if e.primitive.name in _OVERWRITES]
    reads = [e for e in users if e.primitive.name in _READS]
    others = len(users) - len(writes) - len(reads)
    if number_of_bytes(array) < _LARGE or len(writes) != 1 or others:
        return loop
    if any(e.invars[0] is not array for e in users):
        return loop
    late = {id(e) for e in dependence.downstream(writes, loop.equations)}
    early = {id(e) for e in dependence.upstream(writes, loop.equations)}
    unordered = [e for e in reads if id(e) not in early]
    if not unordered or any(id(e) in late for e in reads):
        return loop
    if not context.machine.orders_reads:
        text = "JAX before 0.12 copies the array at each step, whatever reads it first"
        return loop.refused(text)
    return _with_barrier(loop, array, writes[0], unordered)


def _with_barrier(loop: Loop, array: Any, write: Any, reads: list[Any]) -> Loop:
    before = [array, *(e.outvars[0] for e in reads)]
    ordered = [variable_like(v) for v in before]
    barrier = splice(
        lambda *values: jax.lax.optimization_barrier(values), before, write, ordered
    )
    late = write.replace(invars=[ordered[0], *write.invars[1:]])
    names = dict(zip(before[1:], ordered[1:], strict=True))
    changed = substitute(loop.exchanged({id(write): [late]}), names)
    equations = in_order([*changed.equations, *barrier])
    return replace(loop, equations=tuple(equations)).fired(
        "rows are read before the array they belong to is changed in place"
    )


_LARGE = 4096
# Rows a step: 128 took XLA a quarter longer to compile than their sums, 192 thrice.
_MOST = 96
_READS = frozenset({"gather", "dynamic_slice"})
_OVERWRITES = frozenset({"scatter", "scatter-add", "dynamic_update_slice"})
_WRITES = frozenset({"dynamic_update_slice", "scatter-add"})
