"""accumulate, in the loop: rows are added where they belong, not by way of zeros.

The derivative of reading ``s[i]`` writes one row into an array of zeros as large as
`s`, and adds all of it: T steps cost T times the size of `s`, which makes the gradient
of a loop that fills an array step by step quadratic (JAX issue 10197). Adding the row
in place costs one row. For XLA to do so, what reads the array must come before what
writes it: a barrier says so (JAX 0.10's CPU compiler copies the array even then).
"""

from dataclasses import replace
from typing import Any

import jax

from jscan._jax.equations import in_order, splice
from jscan._jax.jaxprs import Atom, is_variable, number_of_bytes, variable_like
from jscan._jax.operations import is_elementwise
from jscan._optimizer.analysis.dependence import Dependence, Level
from jscan._optimizer.analysis.linearity import is_zero
from jscan._optimizer.analysis.sum_trees import ADDITIONS
from jscan._optimizer.record.cleanup import drop_unused
from jscan._optimizer.record.context import Context
from jscan._optimizer.record.loop import Loop


def run(loop: Loop, context: Context) -> Loop:
    """Rewrite each sum of an array of the state and a row written into zeros."""
    loop = _rows_in_place(loop)
    for carry in loop.carries:
        loop = _reads_first(loop, context, carry.variable)
    return loop


def _rows_in_place(loop: Loop) -> Loop:
    dependence = Dependence(loop)
    outside = dependence.read_outside()
    equations: list[Any] = []
    count = 0
    for equation in loop.equations:
        sparse = _sparse_side(equation, dependence, loop, outside)
        if sparse is None:
            equations.append(equation)
            continue
        total = equation.invars[1 - sparse]
        write = dependence.producers[equation.invars[sparse]]
        equations += _added_in_place(equation, total, write)
        count += 1
    if not count:
        return loop
    loop = replace(loop, equations=tuple(equations))
    return drop_unused(loop.fired(f"{count} row(s) a step are added in place"))


def _sparse_side(
    equation: Any, dependence: Dependence, loop: Loop, outside: set[Any]
) -> int | None:
    """Which operand of a sum is zero but for a few rows, if one is."""
    if equation.primitive.name not in ADDITIONS:
        return None
    for side in (0, 1):
        operand, other = equation.invars[side], equation.invars[1 - side]
        write = dependence.producers.get(operand) if is_variable(operand) else None
        if write is None or write.primitive.name not in _WRITES:
            continue
        if len(dependence.users.get(operand, [])) != 1 or operand in outside:
            continue
        if other.aval != operand.aval or not _is_stored(other, dependence):
            continue
        if is_zero(write.invars[0], dependence, loop):
            return side
    return None


def _is_stored(atom: Atom, dependence: Dependence) -> bool:
    """Whether an operand is an array of the state that XLA may update in place."""
    if not is_variable(atom) or dependence.level(atom) is not Level.STATE:
        return False
    producer = dependence.producers.get(atom)
    # Elementwise work makes a new array anyway, and takes the addition along.
    return (
        producer is None
        or not is_elementwise(producer)
        or (producer.primitive.name in ADDITIONS)
    )


def _added_in_place(equation: Any, total: Atom, write: Any) -> list[Any]:
    _, *operands = write.invars
    function = _WRITES[write.primitive.name](write)
    return splice(function, [total, *operands], equation)


def _dynamic_update(write: Any) -> Any:
    def add_window(total: jax.Array, rows: jax.Array, *starts: jax.Array) -> jax.Array:
        # Both operations clamp the starts in the same way.
        old = jax.lax.dynamic_slice(total, starts, rows.shape)
        return jax.lax.dynamic_update_slice(total, old + rows, starts)

    return add_window


def _scatter(write: Any) -> Any:
    parameters = write.params

    def add_rows(total: jax.Array, indices: jax.Array, rows: jax.Array) -> jax.Array:
        return jax.lax.scatter_add(
            total,
            indices,
            rows,
            parameters["dimension_numbers"],
            indices_are_sorted=parameters["indices_are_sorted"],
            unique_indices=parameters["unique_indices"],
            mode=parameters["mode"],
        )

    return add_rows


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
        text = "JAX 0.10 copies the array at each step, however its use is ordered"
        return loop.refused(text)
    return _with_barrier(loop, array, writes[0], unordered)


def _with_barrier(loop: Loop, array: Any, write: Any, reads: list[Any]) -> Loop:
    before = [array, *(e.outvars[0] for e in reads)]
    ordered = [variable_like(v) for v in before]
    barrier = splice(
        lambda *values: jax.lax.optimization_barrier(values),
        before,
        write.replace(outvars=ordered),
    )
    names = dict(zip(before[1:], ordered[1:], strict=True))
    equations: list[Any] = []
    for equation in loop.equations:
        if equation is write:
            equation = equation.replace(invars=[ordered[0], *equation.invars[1:]])
        inputs = [names.get(a, a) if is_variable(a) else a for a in equation.invars]
        equations.append(equation.replace(invars=inputs))
    return replace(loop, equations=tuple(in_order([*equations, *barrier]))).fired(
        "rows are read before the array they belong to is changed in place"
    )


_LARGE = 4096

_READS = frozenset({"gather", "dynamic_slice"})

_OVERWRITES = frozenset({"scatter", "scatter-add", "dynamic_update_slice"})

_WRITES = {"dynamic_update_slice": _dynamic_update, "scatter-add": _scatter}
