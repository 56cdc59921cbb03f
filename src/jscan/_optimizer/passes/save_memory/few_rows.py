"""save_memory, second rule: run the loop in parts, of which few hand out rows.

If the program reads only some rows of the outputs, the loop is cut: `ys[:k]` stops
after k steps (or goes on without rows, if its last state is wanted), `ys[-k:]` starts
with steps that hand out nothing, and `ys[s::k]` becomes a loop of loops whose inner
one keeps its last row alone. Each part is optimized for itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from jscan._jax.jaxprs import stack_bytes, variable_like
from jscan._jax.names import primitives
from jscan._optimizer.record.cleanup import drop_unused
from jscan._optimizer.record.context import Context
from jscan._optimizer.record.loop import (
    Applied,
    Carry,
    Final,
    Known,
    Loop,
    Result,
    Stack,
    final_variables,
    has_effects,
)


@dataclass(frozen=True)
class _Rows:
    """Rows `start, start + stride, ...` below `limit`, as steps of the loop."""

    start: int
    limit: int
    stride: int

    @property
    def count(self) -> int:
        return len(range(self.start, self.limit, self.stride))


def run(loop: Loop, context: Context) -> Loop:
    """Cut the loop if all of its outputs are read in few rows."""
    stacks = {n: r for n, r in loop.results.items() if isinstance(r, Stack)}
    readers = {name: context.consumers.get(name) or () for name in stacks}
    sliced = [all(map(_is_slice, e)) and len(e) > 0 for e in readers.values()]
    if not any(sliced) or context.finish is None or loop.counters:
        return loop
    if not all(sliced):
        return loop.refused("another output is read in full, so all steps store")
    if has_effects(loop) or not loop.carries or loop.after:
        return loop
    wanted = [_rows(e, loop) for many in readers.values() for e in many]
    saved = loop.length - sum({r: r.count for r in wanted}.values())
    bytes_saved = stack_bytes([r.atom for r in stacks.values()], max(0, saved))
    finals = any(final_variables(r) for r in loop.results.values())
    hull = _Rows(min(r.start for r in wanted), max(r.limit for r in wanted), 1)
    only_fewer_steps = hull.start == 0 and not finals and hull.limit < loop.length
    if bytes_saved < context.machine.split_bytes and not only_fewer_steps:
        return loop.refused(f"{bytes_saved} bytes of rows are too few to cut it")
    if 2 * hull.count <= loop.length:
        return _window(loop, context, readers, hull)
    strided = len(set(wanted)) == 1 and wanted[0].stride > 1
    if strided and bytes_saved >= context.machine.split_bytes:
        return _every_kth(loop, context, readers, wanted[0])
    if only_fewer_steps:
        return _window(loop, context, readers, hull)
    return loop.refused("the rows that are read are spread over the whole loop")


def _is_slice(reader: Any) -> bool:
    return reader.primitive is primitives.slice_p


def _rows(reader: Any, loop: Loop) -> _Rows:
    """The steps whose rows a slice reads."""
    start = reader.params["start_indices"][0]
    stride = (reader.params["strides"] or (1,))[0]
    limit = start + (reader.outvars[0].aval.shape[0] - 1) * stride + 1
    if loop.reverse:
        return _Rows(loop.length - limit, loop.length - start, stride)
    return _Rows(start, limit, stride)


def _part(
    loop: Loop, state: Mapping[Any, Any], first: int, last: int, results: Any
) -> Loop:
    """The steps `first` to `last` of a loop, from a given state."""
    return replace(
        loop,
        length=last - first,
        carries=tuple(replace(c, initial=state[c.variable]) for c in loop.carries),
        sequences=_sequences(loop, first, last),
        results=results,
        notes=(),
    )


def _sequences(loop: Loop, first: int, last: int) -> dict[Any, Any]:
    """The rows that the steps `first` to `last` read; a reversed loop starts behind."""
    rows = slice(first, last)
    if loop.reverse:
        rows = slice(loop.length - last, loop.length - first)
    return {v: x[rows] for v, x in loop.sequences.items()}


def _advance(
    loop: Loop, context: Context, state: Mapping[Any, Any], first: int, last: int
) -> dict[Any, Any]:
    """The state after the steps `first` to `last`, which hand out no rows."""
    if first == last:
        return dict(state)
    results = {c.variable: Final(c.variable) for c in loop.carries}
    part = _part(loop, state, first, last, results)
    return _finish(part, context)


def _finish(loop: Loop, context: Context) -> dict[Any, Any]:
    if context.finish is None:
        raise ValueError("no way to run a part of a loop")
    return context.finish(drop_unused(loop))


def _window(
    loop: Loop, context: Context, readers: Mapping[Any, Any], hull: _Rows
) -> Loop:
    """Skip to the first row wanted, hand out rows to the last, go on if needed."""
    state = {c.variable: c.initial for c in loop.carries}
    state = _advance(loop, context, state, 0, hull.start)
    finals = {n: r for n, r in loop.results.items() if not isinstance(r, Stack)}
    first_row = loop.length - hull.limit if loop.reverse else hull.start
    results: dict[Any, Result] = {}
    for name, many in readers.items():
        for reader in many:
            moved = _moved_slice(reader, first_row)
            results[reader.outvars[0]] = Applied(moved, loop.results[name])
    text = f"steps {hull.start} to {hull.limit} of {loop.length} hand out rows"
    goes_on = hull.limit < loop.length and any(map(final_variables, finals.values()))
    if not goes_on:
        window = _part(loop, state, hull.start, hull.limit, {**finals, **results})
        return drop_unused(replace(window, notes=loop.notes).fired(text))
    ends = {c.variable: Final(c.variable) for c in loop.carries}
    window = _part(loop, state, hull.start, hull.limit, {**ends, **results})
    values = _finish(window, context)
    known = {name: Known(values[name]) for name in results}
    rest = _part(loop, values, hull.limit, loop.length, {**finals, **known})
    return drop_unused(replace(rest, notes=loop.notes).fired(text))


def _moved_slice(reader: Any, offset: int) -> Any:
    starts, limits = reader.params["start_indices"], reader.params["limit_indices"]
    stride = (reader.params["strides"] or (1,))[0]
    last = starts[0] + (reader.outvars[0].aval.shape[0] - 1) * stride
    parameters = {
        **reader.params,
        "start_indices": (starts[0] - offset, *starts[1:]),
        "limit_indices": (last + 1 - offset, *limits[1:]),
    }
    return reader.replace(params=parameters)


def _every_kth(
    loop: Loop, context: Context, readers: Mapping[Any, Any], rows: _Rows
) -> Loop:
    """The first row wanted, then blocks of `stride` steps that keep their last."""
    atoms = {name: loop.results[name].atom for name in readers}  # pyright: ignore
    state = {c.variable: c.initial for c in loop.carries}
    state, first = _last_rows(loop, context, state, atoms, 0, rows.start + 1)
    blocks = rows.count - 1
    begin = rows.start + 1
    end = begin + blocks * rows.stride
    xs = {
        v: x.reshape(blocks, rows.stride, *x.shape[1:])
        for v, x in _sequences(loop, begin, end).items()
    }
    names = list(state)

    def block(values: list[Any], rows_here: list[Any]) -> tuple[list[Any], list[Any]]:
        sequences = dict(zip(xs, rows_here, strict=True))
        inner = replace(loop, sequences=sequences, length=rows.stride)
        here = dict(zip(names, values, strict=True))
        here, row = _last_rows(inner, context, here, atoms, 0, rows.stride)
        return [here[name] for name in names], [row[name] for name in atoms]

    values = [_as_carried(name, state[name]) for name in names]
    values, stacks = jax.lax.scan(
        block, values, list(xs.values()), length=blocks, reverse=loop.reverse
    )
    state = dict(zip(names, values, strict=True))
    results: dict[Any, Result] = {
        n: r for n, r in loop.results.items() if not isinstance(r, Stack)
    }
    for (name, many), stack in zip(readers.items(), stacks, strict=True):
        parts = [first[name][None], stack]
        kept = Known(jnp.concatenate(parts[::-1] if loop.reverse else parts))
        for reader in many:
            results[reader.outvars[0]] = Applied(_all_rows(reader, rows.count), kept)
    text = f"one row in {rows.stride} is kept, by a loop of loops"
    rest = _part(loop, state, end, loop.length, results)
    if rest.length == 0:
        ends = {v: Known(x) for v, x in state.items()}
        resolved = {
            n: ends[r.variable] if isinstance(r, Final) else r
            for n, r in results.items()
        }
        rest = replace(rest, carries=(), equations=(), results=resolved)
    return drop_unused(replace(rest, notes=loop.notes).fired(text))


def _as_carried(variable: Any, value: Any) -> Any:
    """The value with the type of its variable, not a weak one."""
    if jnp.issubdtype(variable.aval.dtype, jax.dtypes.extended):
        return value
    return jax.lax.convert_element_type(value, variable.aval.dtype)


def _last_rows(
    loop: Loop,
    context: Context,
    state: Mapping[Any, Any],
    atoms: Mapping[Any, Any],
    first: int,
    last: int,
) -> tuple[dict[Any, Any], dict[Any, Any]]:
    """The state after some steps, and the outputs at the last of them."""
    results: dict[Any, Result] = {c.variable: Final(c.variable) for c in loop.carries}
    part = _part(loop, state, first, last, results)
    extra: list[Carry] = []
    for name, atom in atoms.items():
        variable = variable_like(atom)
        # The start value is never read: there is at least one step.
        start = jnp.zeros(atom.aval.shape, atom.aval.dtype)
        extra.append(Carry(variable, atom, start))
        results[name] = Final(variable)
    part = replace(part, carries=(*part.carries, *extra), results=results)
    values = _finish(part, context)
    return {c.variable: values[c.variable] for c in loop.carries}, {
        name: values[name] for name in atoms
    }


def _all_rows(reader: Any, count: int) -> Any:
    """The reading slice, on an operand that holds its rows and no others."""
    starts, limits = reader.params["start_indices"], reader.params["limit_indices"]
    strides = reader.params["strides"]
    parameters = {
        **reader.params,
        "start_indices": (0, *starts[1:]),
        "limit_indices": (count, *limits[1:]),
        "strides": None if strides is None else (1, *strides[1:]),
    }
    return reader.replace(params=parameters)
