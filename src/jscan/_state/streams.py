"""Random streams: which draw comes next, seen from any frame.

A loop of ``T`` steps with ``d`` draws a step takes the positions ``c, ..., c + T*d -
1``; step ``i`` starts at ``c + i*d``, whatever happened in other steps.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from jscan._base.kinds import counted
from jscan._base.turns import Turn, to_update
from jscan._state.frames import Scope, sampling_frame
from jscan._state.positions import Position
from jscan._state.variables import SharedVariable


class Stream(SharedVariable):
    """The state of a `RandomStreams`: a shared variable that holds a `Position`.

    Updates never move it backwards: storing those of an earlier loop after those of a
    later one must not make numbers come twice. `set_value` puts it anywhere.
    """

    def __repr__(self) -> str:
        return f"<SharedVariable RandomStreams{place_text(self)}>"


def place_text(stream: Stream) -> str:
    """How many draws lie behind, where that can be seen."""
    if sampling_frame() is None:
        with contextlib.suppress(Exception):  # traced, or given away
            return f" after {counted(int(stream._stored.counter), 'draw')}"
    return ""


def take(stream: Stream, count: Any) -> Position:
    """Reserve `count` draws in the frame around; returns the first one's position."""
    frame = sampling_frame()
    if frame is None:
        with Turn(to_update((stream,))):
            before = stream.value
            stream._stored = before.moved(count)
            return before
    before = stream.value
    frame.set(stream, before.moved(count))
    frame.draws[stream] = frame.draws.get(stream, 0) + count
    return before


def hand_on(
    draws: Mapping[Stream, int], executed: Any, bound: int
) -> dict[Stream, Position]:
    """Move streams past a loop of so many `draws` a step; their positions after it.

    Inside a step of an outer loop not the steps `executed` count but their `bound`, so
    that its steps all take equally many draws and need not wait for each other.
    """
    frame = sampling_frame()
    steps = bound if frame and frame.scope is Scope.STEP else executed
    if not isinstance(steps, int):
        steps = jnp.asarray(steps, jnp.uint32)  # which holds the number of all draws
    return {
        stream: take(stream, steps * count).moved(steps * count)
        for stream, count in draws.items()
    }


def without_streams(updates: Mapping[SharedVariable, Any]) -> dict[SharedVariable, Any]:
    """Updates other than those of streams, whose advance every frame counts itself."""
    return {v: new for v, new in updates.items() if not isinstance(v, Stream)}
