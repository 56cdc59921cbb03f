"""save_memory: rows that nobody reads are not stored.

An output read only at its last row, or only through its sum, maximum or minimum over
time, is kept in the carry: the memory no longer grows with the number of steps.
"""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from jscan._jax.equations import new_equation
from jscan._jax.jaxprs import is_variable, stack_bytes, variable_like
from jscan._jax.names import primitives
from jscan._jax.operations import is_expensive
from jscan._jax.scans import holds_loop
from jscan._jax.slices import of_rows, slice_of
from jscan._optimizer.analysis.dependence import Dependence, Level, batchable
from jscan._optimizer.analysis.index import is_last_row
from jscan._optimizer.analysis.linearity import WIDE_TYPES
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
)
from jscan._optimizer.writing.batches import batched

_REDUCTIONS = {
    "reduce_sum": (primitives.add_p, jax.lax.reduce_sum),
    "reduce_max": (primitives.max_p, jax.lax.reduce_max),
    "reduce_min": (primitives.min_p, jax.lax.reduce_min),
}
"""What a step does for a reduction over all steps."""


def run(loop: Loop, context: Context) -> Loop:
    """Replace stacked outputs that are read in a reduced form."""
    for name, result in list(loop.results.items()):
        readers = context.consumers.get(name)
        if not isinstance(result, Stack) or not readers:
            continue
        if all(is_last_row(reader, loop) for reader in readers):
            loop = _keep_last(loop, name, result.atom, readers, context)
        elif all(
            e.primitive.name in _REDUCTIONS and 0 in e.params["axes"] for e in readers
        ):
            loop = _reduce(loop, name, result.atom, readers, context)
    return loop


def _keep_last(
    loop: Loop, name: Any, atom: Any, readers: tuple[Any, ...], context: Context
) -> Loop:
    row, cut = _last_row_alone(loop, atom, context), None
    row_type = atom.aval.str_short()
    if row is None:
        carry = next((c for c in loop.carries if c.update is atom), None)
        if carry is None:
            cut = _one_cut(loop, atom, readers)
            if cut is not None:
                loop = replace(loop, equations=(*loop.equations, cut))
                (atom,) = cut.outvars
            shape, dtype = atom.aval.shape, atom.aval.dtype
            # The start value is never read: there is at least one step.
            carry = Carry(variable_like(atom), atom, jnp.zeros(shape, dtype))
            loop = replace(loop, carries=(*loop.carries, carry))
        row = Final(carry.variable)
    last = Row(row)
    results: dict[Any, Result] = {
        e.outvars[0]: last if cut else Applied(of_rows(e, 0, 1, 1), last)
        for e in readers
    }
    loop = loop.with_results(name, results)
    return loop.fired(f"only the last of {loop.length} rows of {row_type} is kept")


def _one_cut(loop: Loop, atom: Any, readers: tuple[Any, ...]) -> Any | None:
    """What all readers cut from the last row, if a loop in the step can make less."""
    edges = {
        (e.params["start_indices"][1:], e.params["limit_indices"][1:]) for e in readers
    }
    strided = any(e.params["strides"] is not None for e in readers)
    if len(edges) > 1 or strided or not any(map(holds_loop, loop.equations)):
        return None
    ((starts, limits),) = edges
    whole = tuple(limits) == atom.aval.shape and not any(starts)
    return None if whole else slice_of(atom, starts, limits, readers[0])


def _last_row_alone(loop: Loop, atom: Any, context: Context) -> Result | None:
    """The last row, where it depends on the last row of the sequences alone."""
    dependence = Dependence(loop)
    if not is_variable(atom) or dependence.level(atom) is Level.STATE:
        return None
    upstream = dependence.upstream([dependence.producer(atom)], loop.equations)
    if not all(batchable(e, 1) for e in upstream):
        return None
    last = slice(0, 1) if loop.reverse else slice(loop.length - 1, loop.length)
    rows = {v: x[last] for v, x in loop.sequences.items()}
    step = replace(loop, length=1, sequences=rows)
    (value,) = batched(step, upstream, [atom], context)
    return Known(value[0])


def _reduce(
    loop: Loop, name: Any, atom: Any, readers: tuple[Any, ...], context: Context
) -> Loop:
    why = stays_stacked(loop, atom, context)
    if why:
        return loop.refused(why)
    dtype, row_type = atom.aval.dtype, atom.aval.str_short()
    sums = any(reader.primitive.name == "reduce_sum" for reader in readers)
    if sums and jnp.issubdtype(dtype, jnp.inexact) and dtype not in WIDE_TYPES:
        text = f"a sum of {loop.length} rows of {row_type} needs more room than a row"
        return loop.refused(text)
    kinds: dict[str, Any] = {}
    results: dict[Any, Result] = {}
    for reader in readers:
        kind = reader.primitive.name
        if kind not in kinds:
            primitive, over_time = _REDUCTIONS[kind]
            variable, update = variable_like(atom), variable_like(atom)
            equation = new_equation(
                primitive, [variable, atom], update, reader.source_info
            )
            no_rows = jnp.zeros((0, *atom.aval.shape), atom.aval.dtype)
            carry = Carry(variable, update, over_time(no_rows, (0,)))
            loop = replace(
                loop,
                carries=(*loop.carries, carry),
                equations=(*loop.equations, equation),
            )
            kinds[kind] = variable
        # The other reduced axes, if any, are reduced after the loop.
        results[reader.outvars[0]] = Applied(reader, Row(Final(kinds[kind])))
    text = f"{', '.join(kinds)} of {row_type} over time is kept, not its rows"
    return loop.with_results(name, results).fired(text)


def stays_stacked(loop: Loop, atom: Any, context: Context) -> str | None:
    """Why rows are better computed after the loop and reduced there, if so."""
    dependence = Dependence(loop)
    fits = stack_bytes([atom], loop.length) <= context.budget
    without_state = not is_variable(atom) or not loop.carries
    if without_state or (fits and dependence.level(atom) < Level.STATE):
        return "a reduction of rows that need no state is done at once"
    core = set(map(id, dependence.core()))
    outputs = [e for e in loop.equations if id(e) not in core]
    upstream = dependence.upstream([dependence.producer(atom)], outputs)
    if fits and any(map(is_expensive, upstream)):
        return "a reduction of work that is batched after the loop is done there"
    return None
