"""Loops in chunks: an outer loop over stretches of steps, once or several times nested.

A chunk is where a loop can be recomputed in the backward pass (`checkpoint`); the steps
inside stay one tight loop. A progress bar is a meter on the outermost loop.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jscan._base.types import Leaf, PyTree
from jscan._loops.bars import Bar
from jscan._loops.bounded import Step as Until
from jscan._loops.bounded_derivative import bounded_loop
from jscan._loops.meters import Meter, after
from jscan._loops.recomputed import Step, recomputed
from jscan._optimizer import STRETCHES

BRANCHES = 8  # chunks a level of checkpoint="recursive" is cut into

LONGEST = 2**31 - 1  # steps of one loop of JAX, which counts them in an int32

HALFWAY = 2**20  # steps of a chunk in a loop that would have more than `LONGEST`

Chunk = Callable[[PyTree, PyTree, int], tuple[PyTree, PyTree]]  # so many steps


@dataclass(frozen=True)
class Level:
    """One level of chunks.

    The last chunk may be shorter. A chunk of one step that is not recomputed is no
    loop: the level is there for its meter.
    """

    length: int  # steps of a chunk
    recomputed: bool  # the backward pass keeps only the state at its start
    meter: Meter | None = None  # what the loop over the chunks tells a progress bar
    memory_kind: str | None = None  # where those states are kept, if not as they lie

    @property
    def is_flat(self) -> bool:
        """True when the chunks are the steps themselves."""
        return self.length == 1 and not self.recomputed


Levels = Sequence[Level]


def plan_levels(
    n_steps: int, checkpoint: int | str | None, bar: Bar | None = None, offset: int = 0
) -> tuple[Level, ...]:
    """The levels of chunks, longest first, that checkpoints, a bar or counters ask for.

    `offset` counts the steps of the bar before the loop's first one.
    """
    if n_steps == 0:
        return ()
    if bar is None:
        levels = _checkpoint_levels(n_steps, checkpoint)
        long = isinstance(n_steps, int) and n_steps > LONGEST
        return _within_counters(n_steps, levels) if long else levels
    meter = Meter(bar, offset, closes=offset + n_steps == bar.total)
    if checkpoint is None:
        return (Level(1, False, dataclasses.replace(meter, every=bar.stride)),)
    if checkpoint == "recursive":
        inner = _checkpoint_levels(bar.stride, checkpoint)
        return (Level(bar.stride, True, meter), *inner)
    inner = _checkpoint_levels(n_steps, checkpoint)
    length = -(-bar.stride // inner[0].length) * inner[0].length  # whole chunks
    return (Level(length, False, meter), *inner)


def _checkpoint_levels(n_steps: int, checkpoint: int | str | None) -> tuple[Level, ...]:
    if checkpoint is None:
        return ()
    if checkpoint == "sqrt":
        return (Level(math.isqrt(n_steps - 1) + 1, True),)  # rounded up
    if isinstance(checkpoint, int):
        return (Level(checkpoint, True),)
    # Each divides the next: a chunk has no rest, which would be one more program.
    powers = [1]
    while n_steps > powers[-1] * BRANCHES:
        powers.append(powers[-1] * BRANCHES)
    least = -(-n_steps // powers.pop())
    return tuple(Level(least * power, True) for power in reversed(powers))


def kept_in(levels: Levels, memory_kind: str | None) -> tuple[Level, ...]:
    """The levels, of which the longest recomputed one has its states in such a memory.

    The states of shorter ones are few, and gone when their chunk has been run again.
    """
    longest = next((level for level in levels if level.recomputed), None)
    return tuple(
        dataclasses.replace(level, memory_kind=memory_kind)
        if level is longest
        else level
        for level in levels
    )


def _within_counters(n_steps: int, levels: Levels) -> tuple[Level, ...]:
    """More levels where a loop would have more steps than it can count."""
    found: list[Level] = []
    size = 1
    for level in (*reversed(levels), Level(n_steps, False)):
        while level.length // size > LONGEST:
            size *= HALFWAY
            found.append(Level(size, False))
        found.append(level)
        size = level.length
    return tuple(reversed(found[:-1]))


def scan_chunks(
    step: Step,
    carry: PyTree,
    xs: PyTree,
    *,
    length: int,
    levels: Levels,
    unroll: int | bool,
) -> tuple[PyTree, PyTree]:
    """`jax.lax.scan` of `length` steps, in the chunks of `levels`."""
    if not levels:
        return jax.lax.scan(step, carry, xs, length=length, unroll=unroll)
    level, inner = levels[0], levels[1:]

    def chunk(carry: PyTree, part: PyTree, size: int) -> tuple[PyTree, PyTree]:
        below = [level for level in inner if level.length < size]
        return scan_chunks(step, carry, part, length=size, levels=below, unroll=unroll)

    return in_chunks(chunk, carry, xs, length, level)


def scan_chunk_ends(
    step: Step,
    end: Callable[[PyTree], PyTree],
    carry: PyTree,
    xs: PyTree,
    *,
    length: int,
    size: int,
) -> tuple[PyTree, PyTree]:
    """Chunks of `size` steps, recomputed in the backward pass; one row for each.

    The row of a chunk is what `end` makes of the carry after it.
    """

    def chunk(carry: PyTree, part: PyTree, count: int) -> tuple[PyTree, PyTree]:
        carry, _ = jax.lax.scan(step, carry, part, length=count)
        return carry, jax.tree.map(lambda leaf: leaf[None], end(carry))

    return in_chunks(chunk, carry, xs, length, Level(size, recomputed=True))


def in_chunks(
    chunk: Chunk, carry: PyTree, xs: PyTree, length: int, level: Level
) -> tuple[PyTree, PyTree]:
    """A loop over the chunks of a level, and then what is left of the steps."""
    meter = level.meter
    size = level.length * (meter.every if meter else 1)

    def run(state: Any, part: PyTree, count: int, within: bool) -> Any:
        done, carry = state
        if meter:
            meter.report(done)
            done += count
        steps = lambda carry, part: chunk(carry, part, count)
        if level.recomputed:
            steps = recomputed(steps, level.memory_kind, within=within)
        carry, rows = steps(carry, part)
        return (done, carry), rows

    chunks, rest = divmod(length, size)
    state, parts = (meter and jnp.int32(0), carry), []
    if chunks or not rest:
        whole = jax.tree.map(lambda leaf: _fold(leaf, chunks, size), xs)
        looped = lambda state, part: run(state, part, size, True)
        with jax.named_scope(STRETCHES) if meter else contextlib.nullcontext():
            state, rows = jax.lax.scan(looped, state, whole, length=chunks)
        parts.append(jax.tree.map(_unfold, rows))
    if rest:
        done, carry = state
        # Known once the steps before are done, or it would be reported at once.
        done = meter and after(done, (carry, parts))
        tail = jax.tree.map(lambda leaf: leaf[chunks * size :], xs)
        state, rows = run((done, carry), tail, rest, False)
        parts.append(rows)
    done, carry = state
    rows = parts[0]
    if len(parts) > 1:
        rows = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)
    if meter and meter.closes:
        meter.report(after(done, (carry, rows)), last=True)
    return carry, rows


def bounded_chunks(
    step: Until,
    carry: PyTree,
    xs: PyTree,
    *,
    length: int,
    steps: Leaf,
    levels: Levels,
) -> tuple[PyTree, PyTree, Leaf]:
    """`bounded_loop` with room for `length` steps, of which `steps` are asked for."""
    if not levels or levels[0].is_flat:
        meter = levels[0].meter if levels else None
        return bounded_loop(step, carry, xs, length=length, last=steps, meter=meter)

    def noted(state: Any, row: PyTree) -> tuple[Any, PyTree, Leaf | None]:
        """A step that leaves its stop condition where the outer loop finds it."""
        carry, rows, stop = step(state[0], row)
        return (carry, stop if stop is not None else state[1]), rows, stop

    state, rows, executed = _nested(
        noted, (carry, jnp.array(False)), xs, length, jnp.int32(steps), levels
    )
    return state[0], rows, executed


def _nested(
    step: Until, state: Any, xs: PyTree, length: int, steps: Leaf, levels: Levels
) -> tuple[Any, PyTree, Leaf]:
    """Loops in loops; the state holds the stop condition of the newest step."""
    if not levels:
        return bounded_loop(step, state, xs, length=length, last=steps)
    level, inner = levels[0], levels[1:]
    size = level.length
    chunks = -(-length // size)

    def chunk(state: Any, part: PyTree, room: Leaf) -> tuple[Any, PyTree, Leaf]:
        return _nested(step, state, part, size, room, inner)

    run = jax.checkpoint(chunk) if level.recomputed else chunk

    def outer(total: Any, part: Any) -> tuple[Any, PyTree, Leaf]:
        state, executed = total
        index, slices = part
        room = jnp.clip(steps - index * size, 0, size)
        state, rows, ran = run(state, slices, room)
        return (state, executed + ran), rows, state[1]

    whole = jax.tree.map(lambda leaf: _fold(leaf, chunks, size), xs)
    counter = len(jax.tree.leaves(state))  # where `executed` is in the carry below
    (state, executed), rows, _ = bounded_loop(
        outer,
        (state, jnp.int32(0)),
        (jnp.arange(chunks, dtype=jnp.int32), whole),
        length=chunks,
        last=-(-steps // size),
        meter=level.meter and dataclasses.replace(level.meter, counter=counter),
    )
    return state, jax.tree.map(lambda leaf: _unfold(leaf)[:length], rows), executed


def _fold(leaf: Leaf, chunks: int, size: int) -> Leaf:
    """The rows as ``[chunks, size, ...]``; those added to fill it are never read."""
    missing = chunks * size - leaf.shape[0]
    if missing > 0:
        leaf = jnp.concatenate([leaf, jnp.repeat(leaf[-1:], missing, axis=0)])
    return leaf[: chunks * size].reshape(chunks, size, *leaf.shape[1:])


def _unfold(leaf: Leaf) -> Leaf:
    return leaf.reshape(leaf.shape[0] * leaf.shape[1], *leaf.shape[2:])
