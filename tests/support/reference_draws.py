"""What a random draw means: a plain counter, and the samples of a stream one by one.

The sample at a place of a stream is what jscan draws there outside of every loop: the
reference is about which place a draw has. A draw has one place in each step (or call)
that uses it, in the order of use. A loop takes as many places as its steps use; in a
step of another loop, as many as there could have been.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import numpy as np

import jscan


class Frame(dict["Draw", Any]):
    """The samples that a step, a call or a program uses."""

    def __init__(self, is_step: bool = False) -> None:
        super().__init__()
        self.is_step = is_step


class RandomStreams:
    """A counter; `wide` samples are computed in double precision."""

    def __init__(self, seed: int, wide: bool = False) -> None:
        self.seed = seed
        self.counter = 0
        self._wide = wide
        _streams.append(self)

    def __getattr__(self, name: str) -> Any:
        return functools.partial(Draw, self, name)

    def sample(self, name: str, size: Any, dtype: Any, parameters: Any) -> np.ndarray:
        """The next sample; means and bounds that are differentiable are applied."""
        place, self.counter = self.counter, self.counter + 1
        smooth = name in ("uniform", "normal")
        fixed = () if smooth else tuple(sorted(parameters.items()))
        value = sample_at(self.seed, name, size, dtype, fixed, place)
        if not smooth:
            return value
        dtype = np.dtype("float64" if self._wide else dtype)
        first, second = (
            np.asarray(getattr(parameter, "value", parameter), dtype)
            for parameter in parameters.values()
        )
        scale = second if name == "normal" else second - first
        return (first + scale * value.astype(dtype)).astype(dtype)


class Draw:
    """A sample where it is used."""

    def __init__(
        self,
        stream: RandomStreams,
        name: str,
        size: Any = None,
        dtype: Any = None,
        **parameters: Any,
    ) -> None:
        self._stream = stream
        self._asked = (name, size, dtype, parameters)

    @property
    def value(self) -> np.ndarray:
        frame = _frames[-1]
        if self not in frame:
            frame[self] = self._stream.sample(*self._asked)
        return frame[self]


_frames: list[Frame] = []
_streams: list[RandomStreams] = []


@functools.cache
def _samples(
    seed: int, name: str, size: Any, dtype: Any, parameters: Any
) -> tuple[Any, list[np.ndarray]]:
    return jscan.RandomStreams(seed), []


def sample_at(
    seed: int, name: str, size: Any, dtype: Any, parameters: Any, place: int
) -> np.ndarray:
    """What a stream gives if all its draws are alike, at one of its places."""
    stream, known = _samples(seed, name, size, dtype, parameters)
    while len(known) <= place:
        draw = getattr(stream, name)(size=size, dtype=dtype, **dict(parameters))
        known.append(np.asarray(draw.value))
    return known[place]


@contextlib.contextmanager
def program() -> Iterator[None]:
    """A program's own top level, without the streams of others."""
    streams = list(_streams)
    _streams.clear()
    _frames.append(Frame())
    try:
        yield
    finally:
        _frames.pop()
        _streams[:] = streams


@contextlib.contextmanager
def step(is_step: bool = True) -> Iterator[None]:
    """A step, or the call of a function."""
    _frames.append(Frame(is_step))
    try:
        yield
    finally:
        _frames.pop()


@contextlib.contextmanager
def thrown_away() -> Iterator[_Drawn]:
    """Draws made in here were not made; what is yielded says how many they were."""
    drawn = _Drawn()
    try:
        yield drawn
    finally:
        drawn.note()
        drawn.clear()


class _Drawn:
    """Where all streams stood, and how many draws were made since."""

    def __init__(self) -> None:
        self._before = [(stream, stream.counter) for stream in _streams]
        self.counts: list[tuple[RandomStreams, int]] = []

    def note(self) -> None:
        self.counts = [(s, s.counter - before) for s, before in self._before]

    def clear(self) -> None:
        for stream, before in self._before:
            stream.counter = before


@contextlib.contextmanager
def loop(drawn: _Drawn, bound: int) -> Iterator[None]:
    """A loop of steps that draw so much each, of which there could be `bound`."""
    before = [stream.counter for stream, _ in drawn.counts]
    yield
    if _frames and _frames[-1].is_step:
        for (stream, count), place in zip(drawn.counts, before, strict=True):
            stream.counter = place + bound * count
