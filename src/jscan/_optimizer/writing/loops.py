"""Write a loop record as a JAX program: the only place that writes loops over steps."""

import functools
import operator
from typing import Any

import jax
import jax.numpy as jnp

from jscan._jax.equations import (
    apply,
    free_variables,
    needed,
    program,
    unique_variables,
)
from jscan._jax.jaxprs import is_variable
from jscan._jax.scans import holds_loop
from jscan._jax.written import run_written
from jscan._optimizer.analysis.lagged_rows import shifted
from jscan._optimizer.record.context import Context
from jscan._optimizer.record.loop import (
    Added,
    Applied,
    Carry,
    Final,
    Known,
    Loop,
    Result,
    Row,
    Stack,
    Total,
    sources,
    strong,
)
from jscan._optimizer.writing.batches import batched
from jscan._optimizer.writing.time_sums import TimeSum

_FEW_NUMBERS = 1024


def emit(loop: Loop, context: Context) -> dict[Any, Any]:
    """Run the loop and return the value of each result, by outer variable."""
    with context.inside(loop.scope):
        finals, rows = _run(loop, context)
        rows = {**loop.sequences, **rows}
        known = {*rows, *loop.constants}
        late = [v for v in _result_rows(loop) if v not in known]
        if late:
            values = batched(loop, loop.after, late, context, rows, loop.chunk)
            rows.update(zip(late, values, strict=True))
        sums = TimeSum(loop, rows, context)
        return {name: _value(r, finals, sums) for name, r in loop.results.items()}


def _result_rows(loop: Loop) -> list[Any]:
    """Variables whose rows (not their sum) are results."""
    made = (m for result in loop.results.values() for m in sources(result))
    return unique_variables(each.atom for each in made if isinstance(each, Stack))


def _value(result: Result, finals: dict[Any, Any], sums: TimeSum) -> Any:
    """What a result is worth once the loop has run."""
    match result:
        case Known(value):
            return value
        case Final(variable):
            return finals[variable]
        case Stack(atom):
            rows = sums.rows(atom)
            is_fixed = not is_variable(atom) or atom in sums.loop.constants
            return _apart(rows) if is_fixed else rows
        case Total(initial, terms):
            total = functools.reduce(operator.add, map(sums, terms))
            total = jax.lax.convert_element_type(initial, total.dtype) + total
            return jax.lax.convert_element_type(total, terms[0].aval.dtype)
        case Row(operand):
            return _value(operand, finals, sums)[None]
        case Applied(equation, operand):
            return apply(equation, _value(operand, finals, sums))
        case Added(first, function, second):
            total = _value(first, finals, sums)
            return total + function(_value(second, finals, sums))


def _apart(rows: Any) -> Any:
    """Rows of one number, stored, if they are few.

    What is done with them would be done with the number, by functions that the compiler
    cuts it into and that are all ready at once: for up to a thousand it takes longer.
    """
    few = rows.ndim == 1 and rows.size <= _FEW_NUMBERS
    return jax.lax.optimization_barrier(rows) if few else rows


def _run(loop: Loop, context: Context) -> tuple[dict[Any, Any], dict[Any, Any]]:
    """Last values of the carries and rows of what the loop stacks."""
    stacked = loop.stacked()
    if not loop.carries and not loop.equations and not stacked:
        return {}, {}
    shifts = shifted(loop, stacked)
    sources = [s.source for s in shifts.values() if s.source not in loop.sequences]
    stacked = list(dict.fromkeys([*(v for v in stacked if v not in shifts), *sources]))
    pieces = _pieces(loop, stacked)
    stored = [v for v in stacked if v not in pieces]
    stored += dict.fromkeys(loop.joined[v].whole for v in pieces)
    finals, rows = _scan(loop, stored, context)
    for variable in pieces:
        piece, size = loop.joined[variable], variable.aval.shape[-1]
        rows[variable] = jax.lax.slice_in_dim(
            rows[piece.whole], piece.start, piece.start + size, axis=-1
        )
    known = {**loop.sequences, **rows}
    for variable, shift in shifts.items():
        rows[variable] = shift.rows(known[shift.source], loop.reverse)
    return finals, rows


def _scan(
    loop: Loop, stored: list[Any], context: Context
) -> tuple[dict[Any, Any], dict[Any, Any]]:
    """Last values of the carries and rows of the variables to be stored."""
    updates = [carry.update for carry in loop.carries]
    outputs = [*updates, *stored]
    body = needed(loop.equations, outputs)
    read = dict.fromkeys(unique_variables([*free_variables(body), *outputs]))
    kept = loop.sequences.keys() & read.keys()
    counters = {v: c for v, c in loop.counters.items() if v in kept}
    streamed = [v for v in read if v in loop.sequences and v not in counters]
    fixed = {v: loop.constants[v] for v in read if v in loop.constants}
    names = [*(carry.variable for carry in loop.carries), *counters, *streamed]
    inputs = [v for v in (*fixed, *names) if v in read]
    inner = program(inputs, outputs, body)
    run = context.run if any(map(holds_loop, body)) else None

    def step(state: list[Any], row: list[Any]) -> tuple[list[Any], list[Any]]:
        here = {**fixed, **dict(zip(names, [*state, *row], strict=True))}
        given = [here[v] for v in inputs]
        # The optimizer is to see the loops inside.
        values = run(inner, [], given) if run else run_written(inner, given)
        state, row = values[: len(updates)], values[len(updates) :]
        for v, counter in counters.items():
            state.append(here[v] + jnp.asarray(counter.increment, v.aval.dtype))
        return state, row

    states = list(loop.carries)
    states += [Carry(v, c.increment, c.initial) for v, c in counters.items()]
    state, stacks = jax.lax.scan(
        step,
        list(map(strong, states)),
        [loop.sequences[v] for v in streamed],
        length=loop.length,
        reverse=loop.reverse,
        unroll=loop.unroll,
    )
    finals = {carry.variable: v for carry, v in zip(states, state, strict=True)}
    return finals, dict(zip(stored, stacks, strict=True))


def _pieces(loop: Loop, stacked: list[Any]) -> list[Any]:
    """Variables whose rows are cut from those of the one that joins them.

    That is so where all it joins are wanted, but none as a result: the rows of a result
    would have to be copied.
    """
    found = {v for v in stacked if v in loop.joined} - {*_result_rows(loop)}
    apart = {loop.joined[v].whole for v in loop.joined.keys() - found}
    return [v for v in stacked if v in found and loop.joined[v].whole not in apart]
