"""save_memory: rows that nobody reads are not stored.

An output read only at its last row, or only through its sum, maximum or minimum over
time, is kept in the carry: the memory no longer grows with the number of steps.
"""

from dataclasses import replace
from typing import Any

import jax.numpy as jnp

from jscan._jax.equations import new_equation
from jscan._jax.jaxprs import is_variable, stack_bytes, variable_like
from jscan._jax.names import primitives
from jscan._jax.operations import is_expensive
from jscan._optimizer.analysis.dependence import Dependence, Level, batchable
from jscan._optimizer.analysis.readers import is_last_row
from jscan._optimizer.record.cleanup import drop_unused
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
    "reduce_sum": primitives.add_p,
    "reduce_max": primitives.max_p,
    "reduce_min": primitives.min_p,
}


def run(loop: Loop, context: Context) -> Loop:
    """Replace stacked outputs that are read in a reduced form."""
    for name, result in list(loop.results.items()):
        readers = context.consumers.get(name)
        if not isinstance(result, Stack) or not readers:
            continue
        if all(is_last_row(reader, loop) for reader in readers):
            loop = _keep_last(loop, name, result, readers, context)
        elif all(_is_reduction(reader) for reader in readers):
            loop = _reduce(loop, name, result, readers, context)
    return drop_unused(loop)


def _rows(result: Stack) -> str:
    return result.atom.aval.str_short()


def _keep_last(
    loop: Loop, name: Any, result: Stack, readers: tuple[Any, ...], context: Context
) -> Loop:
    atom = result.atom
    row = _last_row_alone(loop, atom, context)
    if row is None:
        carry = next((c for c in loop.carries if c.update is atom), None)
        if carry is None:
            shape, dtype = atom.aval.shape, atom.aval.dtype
            if str(dtype).startswith("key<"):
                return loop.refused("random keys have no zero to start from")
            # The start value is never read: there is at least one step.
            carry = Carry(variable_like(atom), atom, jnp.zeros(shape, dtype))
            loop = replace(loop, carries=(*loop.carries, carry))
        row = Final(carry.variable)
    results = {k: v for k, v in loop.results.items() if k is not name}
    for reader in readers:
        results[reader.outvars[0]] = Applied(_on_first_row(reader), Row(row))
    return replace(loop, results=results).fired(
        f"only the last of {loop.length} rows of {_rows(result)} is kept"
    )


def _last_row_alone(loop: Loop, atom: Any, context: Context) -> Result | None:
    """The last row, where it depends on the last row of the sequences alone."""
    dependence = Dependence(loop)
    if not is_variable(atom) or dependence.level(atom) is Level.STATE:
        return None
    producer = dependence.producers.get(atom)
    upstream = (
        [] if producer is None else dependence.upstream([producer], loop.equations)
    )
    if not all(batchable(e, 1) for e in upstream):
        return None
    last = slice(0, 1) if loop.reverse else slice(loop.length - 1, loop.length)
    rows = {v: x[last] for v, x in loop.sequences.items()}
    (value,) = batched(upstream, [atom], loop.constants, rows, 1, context)
    return Known(value[0])


def _on_first_row(reader: Any) -> Any:
    """The reading equation, for an operand of one row."""
    starts, limits = reader.params["start_indices"], reader.params["limit_indices"]
    parameters = {
        **reader.params,
        "start_indices": (0, *starts[1:]),
        "limit_indices": (1, *limits[1:]),
    }
    return reader.replace(params=parameters)


def _is_reduction(reader: Any) -> bool:
    return reader.primitive.name in _REDUCTIONS and 0 in reader.params["axes"]


def _reduce(
    loop: Loop, name: Any, result: Stack, readers: tuple[Any, ...], context: Context
) -> Loop:
    atom = result.atom
    why = stays_stacked(loop, atom, context)
    if why:
        return loop.refused(why)
    results: dict[Any, Result] = {
        k: v for k, v in loop.results.items() if k is not name
    }
    kinds: dict[str, Any] = {}
    for reader in readers:
        kind = reader.primitive.name
        if kind not in kinds:
            variable, update = variable_like(atom), variable_like(atom)
            equation = new_equation(
                _REDUCTIONS[kind], [variable, atom], update, reader.source_info
            )
            carry = Carry(variable, update, _neutral(kind, atom))
            loop = replace(
                loop,
                carries=(*loop.carries, carry),
                equations=(*loop.equations, equation),
            )
            kinds[kind] = variable
        # The other reduced axes, if any, are reduced after the loop.
        results[reader.outvars[0]] = Applied(reader, Row(Final(kinds[kind])))
    text = f"{', '.join(kinds)} of {_rows(result)} over time is kept, not its rows"
    return replace(loop, results=results).fired(text)


def stays_stacked(loop: Loop, atom: Any, context: Context) -> str | None:
    """Why rows are better computed after the loop and reduced there, if so."""
    dependence = Dependence(loop)
    fits = stack_bytes([atom], loop.length) <= context.budget
    if not is_variable(atom) or not loop.carries:
        return "a reduction of rows that need no state is done at once"
    if dependence.level(atom) < Level.STATE and fits:
        return "a reduction of rows that need no state is done at once"
    core = {id(e) for e in dependence.core()}
    outputs = [e for e in loop.equations if id(e) not in core]
    producer = dependence.producers.get(atom)
    upstream = [] if producer is None else dependence.upstream([producer], outputs)
    if fits and any(map(is_expensive, upstream)):
        return "a reduction of work that is batched after the loop is done there"
    return None


def _neutral(kind: str, atom: Any) -> Any:
    """Rows to start a reduction from, which do not change its result."""
    shape, dtype = atom.aval.shape, atom.aval.dtype
    if kind == "reduce_sum":
        return jnp.zeros(shape, dtype)
    if dtype == jnp.bool_:
        return jnp.full(shape, kind == "reduce_min", dtype)
    if jnp.issubdtype(dtype, jnp.inexact):
        return jnp.full(shape, jnp.inf if kind == "reduce_min" else -jnp.inf, dtype)
    limits = jnp.iinfo(dtype)
    return jnp.full(shape, limits.max if kind == "reduce_min" else limits.min, dtype)
