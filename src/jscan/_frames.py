"""What the code being traced right now sees of the shared variables.

A *frame* is one trace (of a step or of a compiled function) in progress. It holds the
values its shared variables have there and remembers which variables were read, so
that the tracer of the step can turn every read into an input of the loop. Frames form
a stack, one per thread.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from ._types import PyTree

if TYPE_CHECKING:
    from ._shared import SharedVariable


class Frame:
    """The values of shared variables inside one trace, and the variables it read."""

    def __init__(self, bound: Mapping[SharedVariable, PyTree]) -> None:
        self.bound = dict(bound)
        self.reads: dict[SharedVariable, None] = {}
        self.parent = current()

    def read(self, variable: SharedVariable) -> PyTree:
        """The variable's value here; an unbound one has that of the frame around."""
        self.reads[variable] = None
        if variable in self.bound:
            return self.bound[variable]
        return outer_value(variable, self.parent)


class _Stack(threading.local):
    def __init__(self) -> None:
        self.frames: list[Frame] = []


_stack = _Stack()


def current() -> Frame | None:
    """The innermost frame of this thread, or None outside every trace."""
    return _stack.frames[-1] if _stack.frames else None


def outer_value(variable: SharedVariable, frame: Frame | None) -> PyTree:
    """The variable's value as seen from `frame` (None: the stored value)."""
    return variable.stored if frame is None else frame.read(variable)


@contextlib.contextmanager
def enter(frame: Frame) -> Iterator[Frame]:
    """Make `frame` the innermost one for the length of a `with` block."""
    _stack.frames.append(frame)
    try:
        yield frame
    finally:
        _stack.frames.pop()
