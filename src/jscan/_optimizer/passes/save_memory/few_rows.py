"""save_memory, few rows: run the loop in parts, of which few hand out rows.

If the program reads only some rows of the outputs, the loop is cut: `ys[:k]` stops
after k steps (or goes on without rows, if its last state is wanted), `ys[-k:]` starts
with steps that hand out nothing, and `ys[s::k]` becomes a loop of loops whose inner
one keeps its last row alone. Each part is optimized for itself.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from jscan._jax.jaxprs import stack_bytes, variable_like
from jscan._jax.names import primitives
from jscan._jax.slices import of_rows
from jscan._optimizer.analysis.at_once import has_effects
from jscan._optimizer.record.cleanup import drop_unused, without_carries
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
    strong,
)

_Finish: TypeAlias = Callable[[Loop], dict[Any, Any]]
"""Runs a part of a loop and returns the values of its results."""

_Readers: TypeAlias = Mapping[Any, tuple[Any, ...]]
"""By stacked output: the slices that read it."""


def run(loop: Loop, context: Context) -> Loop:
    """Cut the loop if all of its outputs are read in few rows."""
    stacks = {n: r for n, r in loop.results.items() if isinstance(r, Stack)}
    readers = {name: context.consumers.get(name) or () for name in stacks}
    sliced = [
        len(many) > 0 and all(e.primitive is primitives.slice_p for e in many)
        for many in readers.values()
    ]
    if not any(sliced) or context.finish is None or loop.counters:
        return loop
    if not all(sliced):
        return loop.refused("another output is read in full, so all steps store")
    if has_effects(loop) or not loop.carries or loop.after:
        return loop
    wanted = [_steps(e, loop) for many in readers.values() for e in many]
    saved = loop.length - sum(map(len, set(wanted)))
    bytes_saved = stack_bytes([r.atom for r in stacks.values()], max(0, saved))
    finals = any(final_variables(r) for r in loop.results.values())
    hull = range(min(r.start for r in wanted), max(r.stop for r in wanted))
    only_fewer_steps = hull.start == 0 and not finals and hull.stop < loop.length
    least = context.machine.split_bytes
    gains = bytes_saved >= least
    if not gains and not only_fewer_steps:
        text = f"cutting it saves {bytes_saved} bytes of rows, it pays from {least} on"
        return loop.refused(text)
    strided = len(set(wanted)) == 1 and wanted[0].step > 1 and gains
    if 2 * len(hull) <= loop.length or (only_fewer_steps and not strided):
        return _window(loop, context.finish, readers, hull)
    if strided:
        return _every_kth(loop, context.finish, readers, wanted[0])
    text = f"the rows that are read are spread over {len(hull)} of {loop.length} steps"
    return loop.refused(text)


def _rows(reader: Any) -> range:
    """The rows that a slice reads."""
    start = reader.params["start_indices"][0]
    stride = (reader.params["strides"] or (1,))[0]
    last = start + (reader.outvars[0].aval.shape[0] - 1) * stride
    return range(start, last + 1, stride)


def _steps(reader: Any, loop: Loop) -> range:
    """The steps whose rows a slice reads."""
    rows = _rows(reader)
    if not loop.reverse:
        return rows
    return range(loop.length - rows.stop, loop.length - rows.start, rows.step)


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
    )


def _sequences(loop: Loop, first: int, last: int) -> dict[Any, Any]:
    """The rows that the steps `first` to `last` read; a reversed loop starts behind."""
    rows = slice(first, last)
    if loop.reverse:
        rows = slice(loop.length - last, loop.length - first)
    return {v: x[rows] for v, x in loop.sequences.items()}


def _values(
    loop: Loop,
    finish: _Finish,
    state: Mapping[Any, Any],
    first: int,
    last: int,
    results: Mapping[Any, Result] | None = None,
) -> dict[Any, Any]:
    """The state after the steps `first` to `last`, and the results of those."""
    if first == last and not results:
        return dict(state)
    ends = {c.variable: Final(c.variable) for c in loop.carries}
    part = _part(loop, state, first, last, {**ends, **(results or {})})
    return finish(drop_unused(replace(part, notes=())))


def _start(loop: Loop) -> tuple[dict[Any, Any], dict[Any, Result]]:
    """The state before the first step, and the results that are no rows."""
    state = {c.variable: c.initial for c in loop.carries}
    return state, {n: r for n, r in loop.results.items() if not isinstance(r, Stack)}


def _window(loop: Loop, finish: _Finish, readers: _Readers, hull: range) -> Loop:
    """Skip to the first row wanted, hand out rows to the last, go on if needed."""
    state, others = _start(loop)
    state = _values(loop, finish, state, 0, hull.start)
    first_row = loop.length - hull.stop if loop.reverse else hull.start
    results: dict[Any, Result] = {}
    for name, many in readers.items():
        for reader in many:
            rows = _rows(reader)
            start, limit = rows.start - first_row, rows.stop - first_row
            moved = of_rows(reader, start, limit, rows.step)
            results[reader.outvars[0]] = Applied(moved, loop.results[name])
    text = f"steps {hull.start} to {hull.stop} of {loop.length} hand out rows"
    if hull.stop < loop.length and any(map(final_variables, others.values())):
        state = _values(loop, finish, state, hull.start, hull.stop, results)
        results = {name: Known(state[name]) for name in results}
        hull = range(hull.stop, loop.length)
    rest = _part(loop, state, hull.start, hull.stop, {**others, **results})
    return rest.fired(text)


def _every_kth(loop: Loop, finish: _Finish, readers: _Readers, rows: range) -> Loop:
    """The first row wanted, then blocks of `stride` steps that keep their last."""
    atoms = [loop.results[name].atom for name in readers]  # pyright: ignore
    state, results = _start(loop)
    names, begin = list(state), rows.start + 1
    state, first = _last_rows(loop, finish, state, atoms, begin)
    blocks, stride = len(rows) - 1, rows.step
    end = begin + blocks * stride
    xs = {
        v: x.reshape(blocks, stride, *x.shape[1:])
        for v, x in _sequences(loop, begin, end).items()
    }

    def block(values: list[Any], rows_here: list[Any]) -> tuple[list[Any], list[Any]]:
        sequences = dict(zip(xs, rows_here, strict=True))
        inner = replace(loop, sequences=sequences, length=stride)
        here = dict(zip(names, values, strict=True))
        here, row = _last_rows(inner, finish, here, atoms, stride)
        return [here[name] for name in names], row

    starts = [strong(replace(c, initial=state[c.variable])) for c in loop.carries]
    ends, stacks = jax.lax.scan(
        block, starts, list(xs.values()), length=blocks, reverse=loop.reverse
    )
    state = dict(zip(names, ends, strict=True))
    for many, row, stack in zip(readers.values(), first, stacks, strict=True):
        parts = [row[None], stack]
        kept = Known(jnp.concatenate(parts[::-1] if loop.reverse else parts))
        for reader in many:
            own = of_rows(reader, 0, len(rows), 1)
            results[reader.outvars[0]] = Applied(own, kept)
    text = f"one row in {stride} is kept, by a loop of loops"
    rest = _part(loop, state, end, loop.length, results)
    if rest.length == 0:
        rest = without_carries(rest, {v: Known(x) for v, x in state.items()})
        rest = replace(rest, equations=())
    return rest.fired(text)


def _last_rows(
    loop: Loop,
    finish: _Finish,
    state: Mapping[Any, Any],
    atoms: Sequence[Any],
    steps: int,
) -> tuple[dict[Any, Any], list[Any]]:
    """The state after the first steps, and the outputs at the last of them."""
    # The start values are never read: there is at least one step.
    rows = [
        Carry(variable_like(atom), atom, jnp.zeros(atom.aval.shape, atom.aval.dtype))
        for atom in atoms
    ]
    state = {**state, **{row.variable: row.initial for row in rows}}
    more = replace(loop, carries=(*loop.carries, *rows))
    values = _values(more, finish, state, 0, steps)
    after = {c.variable: values[c.variable] for c in loop.carries}
    return after, [values[row.variable] for row in rows]
