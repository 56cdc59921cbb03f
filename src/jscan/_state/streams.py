"""The position of a random stream: which draw comes next, seen from any frame.

The sample of draw ``c`` is a function of ``(key, c)`` alone. A loop of ``T`` steps
with ``d`` draws a step takes the positions ``c, ..., c + T*d - 1``; step ``i`` starts
at ``c + i*d``, whatever happened in other steps. So no key is carried, and no step
waits for another one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jscan._base.turns import Turn, to_update
from jscan._base.types import Leaf
from jscan._state.frames import Scope, sampling_frame
from jscan._state.variables import SharedVariable

IMPLEMENTATION = "threefry2x32"  # the same numbers on every backend


class Position(NamedTuple):
    """A place in a stream.

    Attributes:
        key: The stream's key data, ``uint32[2]``.
        counter: Index of the next draw, ``uint32[]``.
    """

    key: Leaf
    counter: Leaf

    def moved(self, count: Any) -> Position:
        """The place `count` draws later."""
        return Position(self.key, self.counter + jnp.asarray(count, jnp.uint32))

    def sample_key(self) -> jax.Array:
        """The random key of the draw at this place."""
        key = jax.random.wrap_key_data(self.key, impl=IMPLEMENTATION)
        return jax.random.fold_in(key, self.counter)


class Stream(SharedVariable):
    """The state of a `RandomStreams`: a shared variable that holds a `Position`.

    It never moves backwards: storing the updates of an earlier loop after those of a
    later one must not make numbers come twice.
    """

    def merged(self, value: Position) -> Position:
        """The later one of the position here and a computed one."""
        return later(self.stored, value)


def later(here: Position, there: Position) -> Position:
    """Of two positions in one stream, the one that more draws lie before."""
    return Position(there.key, jnp.maximum(here.counter, there.counter))


def take(stream: Stream, count: Any) -> Position:
    """Reserve `count` draws in the frame around; returns the first one's position."""
    frame = sampling_frame()
    if frame is None:
        with Turn(to_update((stream,))):
            before = stream.value
            stream.stored = before.moved(count)
            return before
    before = stream.value
    frame.set(stream, before.moved(count))
    frame.draws[stream] = frame.draws.get(stream, 0) + count
    return before


def hand_on(
    draws: Mapping[Stream, int], executed: Any, bound: int
) -> dict[Stream, Position]:
    """Move streams past a loop that has run.

    Args:
        draws: Draws per step of every stream.
        executed: Steps executed, possibly known only at run time.
        bound: Steps at most. Inside a step of an outer loop this is what counts, so
            that its steps all take equally many draws and need not wait for each other.

    Returns:
        Every stream's position after the loop.
    """
    frame = sampling_frame()
    in_step = frame is not None and frame.scope is Scope.STEP
    steps = bound if in_step else executed
    return {
        stream: take(stream, steps * count).moved(steps * count)
        for stream, count in draws.items()
    }


def without_streams(updates: Mapping[SharedVariable, Any]) -> dict[SharedVariable, Any]:
    """Updates other than those of streams, whose advance every frame counts itself."""
    return {v: new for v, new in updates.items() if not isinstance(v, Stream)}
