"""Write a loop record as a JAX program: the only place that calls ``jax.lax.scan``."""

import functools
import operator
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jscan._jax.equations import (
    apply,
    evaluate,
    free_variables,
    needed,
    program,
    unique_variables,
)
from jscan._jax.jaxprs import Atom, holds, is_variable
from jscan._optimizer.analysis.lagged_rows import shifted
from jscan._optimizer.record.context import Context
from jscan._optimizer.record.loop import (
    Applied,
    Carry,
    Final,
    Known,
    Loop,
    Result,
    Row,
    Stack,
    Total,
    strong,
)
from jscan._optimizer.writing.batches import batched
from jscan._optimizer.writing.time_sums import TimeSum

_LOOPS = frozenset({"scan"})


def emit(loop: Loop, context: Context) -> dict[Any, Any]:
    """Run the loop and return the value of each result, by outer variable."""
    with context.inside(loop.scope):
        return _emitted(loop, context)


def _emitted(loop: Loop, context: Context) -> dict[Any, Any]:
    finals, rows = _run(loop, context)
    rows = {**loop.sequences, **rows}
    wanted = [
        v for v in loop.wanted_rows() if v not in rows and v not in loop.constants
    ]
    direct = [v for v in wanted if any(_reads(r, v) for r in loop.results.values())]
    if direct:
        values = batched(
            loop.after,
            direct,
            loop.constants,
            rows,
            loop.length,
            context,
            loop.chunk,
        )
        rows.update(zip(direct, values, strict=True))
    reader = _Reader(loop, finals, rows, context)
    return {name: reader.value(result) for name, result in loop.results.items()}


def _reads(result: Result, variable: Any) -> bool:
    """Whether a result is rows of the variable (not their sum)."""
    while isinstance(result, Applied | Row):
        result = result.operand
    return isinstance(result, Stack) and result.atom is variable


def _run(loop: Loop, context: Context) -> tuple[dict[Any, Any], dict[Any, Any]]:
    """Last values of the carries and rows of what the loop stacks."""
    stacked = loop.stacked()
    if not loop.carries and not loop.equations and not stacked:
        return {}, {}
    shifts = shifted(loop, stacked)
    sources = [s.source for s in shifts.values() if s.source not in loop.sequences]
    stacked = list(dict.fromkeys([*(v for v in stacked if v not in shifts), *sources]))
    pieces = _pieces(loop, stacked)
    stacked = [v for v in stacked if v not in pieces]
    stacked += dict.fromkeys(loop.joined[v].whole for v in pieces)
    carries = [*loop.carries, *_counters_in_use(loop, stacked)]
    updates = [carry.update for carry in carries[: len(loop.carries)]]
    outputs = [*updates, *stacked]
    body = needed(loop.equations, outputs)
    read = unique_variables([*free_variables(body), *outputs])
    counting = {c.variable for c in carries[len(loop.carries) :]}
    streamed = [v for v in read if v in loop.sequences and v not in counting]
    fixed = {v: loop.constants[v] for v in read if v in loop.constants}
    run = functools.partial(_evaluate_body, context, body)

    def step(state: list[Any], row: list[Any]) -> tuple[list[Any], list[Any]]:
        names = [carry.variable for carry in carries] + streamed
        here = {**fixed, **dict(zip(names, [*state, *row], strict=True))}
        values = run(here, outputs)
        state_out = values[: len(updates)]
        counted = zip(carries[len(updates) :], state[len(updates) :], strict=True)
        state_out += [v + jnp.asarray(c.update, v.dtype) for c, v in counted]
        return state_out, values[len(updates) :]

    state, stacks = jax.lax.scan(
        step,
        [strong(carry) for carry in carries],
        [loop.sequences[v] for v in streamed],
        length=loop.length,
        reverse=loop.reverse,
        unroll=loop.unroll,
    )
    rows = dict(zip(stacked, stacks, strict=True))
    for variable in pieces:
        piece, size = loop.joined[variable], variable.aval.shape[-1]
        rows[variable] = jax.lax.slice_in_dim(
            rows[piece.whole], piece.start, piece.start + size, axis=-1
        )
    known = {**loop.sequences, **rows}
    for variable, shift in shifts.items():
        rows[variable] = shift.rows(known[shift.source], loop.reverse)
    finals = {c.variable: v for c, v in zip(carries, state, strict=True)}
    return finals, rows


def _evaluate_body(
    context: Context, body: list[Any], here: Mapping[Any, Any], outputs: list[Atom]
) -> list[Any]:
    if context.run is None or not any(holds(e, _LOOPS) for e in body):
        return evaluate(body, here, outputs)
    read = {*free_variables(body), *unique_variables(outputs)}
    inputs = [v for v in here if v in read]
    return context.run(program(inputs, outputs, body), [], [here[v] for v in inputs])


def _pieces(loop: Loop, stacked: list[Any]) -> list[Any]:
    """Variables whose rows are cut from those of the one that joins them.

    That is so where all it joins are wanted, but none as a result: the rows of a result
    would have to be copied.
    """
    stay = {v for v in stacked if any(_reads(r, v) for r in loop.results.values())}
    found = {v for v in stacked if v in loop.joined} - stay
    apart = {loop.joined[v].whole for v in loop.joined.keys() - found}
    return [v for v in stacked if v in found and loop.joined[v].whole not in apart]


def _counters_in_use(loop: Loop, stacked: list[Any]) -> list[Carry]:
    """Counters the body still reads, as carries whose update is the increment."""
    read = {*free_variables(loop.equations), *stacked}
    read.update(unique_variables(c.update for c in loop.carries))
    return [
        Carry(variable, counter.increment, counter.initial)
        for variable, counter in (loop.counters or {}).items()
        if variable in read and variable in loop.sequences
    ]


class _Reader:
    """Turns results into values once the loop has run."""

    def __init__(
        self, loop: Loop, finals: dict[Any, Any], rows: dict[Any, Any], context: Context
    ) -> None:
        self.loop = loop
        self.finals = finals
        self.rows = rows
        self.sums = TimeSum(loop, rows, context)

    def value(self, result: Result) -> Any:
        match result:
            case Known(value):
                return value
            case Final(variable):
                return self.finals[variable]
            case Stack(atom):
                return self._stack(atom)
            case Total(initial, terms):
                total = functools.reduce(operator.add, map(self.sums, terms))
                start = jax.lax.convert_element_type(initial, total.dtype)
                return start + total
            case Row(operand):
                return self.value(operand)[None]
            case Applied(equation, operand):
                return apply(equation, self.value(operand))

    def _stack(self, atom: Atom) -> Any:
        if is_variable(atom) and atom in self.rows:
            return self.rows[atom]
        value = jnp.asarray(self.loop.value(atom), atom.aval.dtype)
        return jnp.broadcast_to(value, (self.loop.length, *value.shape))
