"""What the code being traced right now sees of the shared variables.

A *frame* is one trace (of a step, of a compiled function, of a cost) in progress. It
holds the values its shared variables have there and remembers which variables were
read, so that the tracer can turn every read into an input of what it traces. Frames
form a stack, one per thread.

A value read in a frame belongs to JAX's trace of that frame. Code that JAX traces on
its own account (`jax.jit`, the branches of `lax.cond`) may be kept and run again with
other values of the variable, so that reading one in there would silently freeze it:
`value_of` refuses it.
"""

from __future__ import annotations

import contextlib
import enum
import threading
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from ._errors import ScanValueError
from ._traces import staging_trace
from ._types import PyTree, is_traced

if TYPE_CHECKING:
    from ._draw import Draw
    from ._shared import SharedVariable
    from ._streams import Position, Stream


class Scope(enum.Enum):
    """What a frame is the trace of."""

    STEP = "step"  # one step of a loop
    FUNCTION = "function"  # a compiled function
    COST = "cost"  # a cost being differentiated: binds variables, nothing else
    REWRITTEN = "function given to optimize or explain"  # reads variables, no more


class Frame:
    """The values of shared variables inside one trace, and the variables it read.

    Attributes:
        scope: What is being traced.
        staged: True when the trace is repeated until every variable it reads is one
            of its inputs; false when the code runs on values as they are (DEBUG).
        bound: Values of variables here.
        reads: Variables read here, in order, and the value they had first.
        draws: For every random stream, the number of draws made here.
        positions: For every draw sampled here, the stream's value it used.
        samples: Samples of draws, as they are worth here.
        stored: New values that functions called here have stored.
        integers: Arguments of a function that came as Python ints and are traced.
        given_away: Variables that the step got as arrays, worth what they are now.
    """

    def __init__(
        self,
        bound: Mapping[SharedVariable, PyTree],
        scope: Scope = Scope.STEP,
        *,
        staged: bool = True,
    ) -> None:
        self.bound = dict(bound)
        self.scope = scope
        self.staged = staged
        self.reads: dict[SharedVariable, PyTree] = {}
        self.draws: dict[Stream, Any] = {}
        self.positions: dict[Draw, Position] = {}
        self.samples: dict[Draw, Any] = {}
        self.stored: dict[SharedVariable, PyTree] = {}
        self.integers = Integers()
        self.given_away: tuple[SharedVariable, ...] = ()
        self.trace: Any = None
        self.parent = current()

    def read(self, variable: SharedVariable) -> PyTree:
        """The variable's value here; an unbound one has that of the frame around."""
        if variable.birth is self:
            return self.bound.get(variable, variable.stored)
        value = self._value(variable)
        self.reads.setdefault(variable, value)
        return value

    def set(self, variable: SharedVariable, value: PyTree) -> None:
        """Give the variable a new value for the rest of this frame."""
        self.read(variable)  # a variable that changes is an input
        self.bound[variable] = value

    def _value(self, variable: SharedVariable) -> PyTree:
        if variable in self.bound:
            return self.bound[variable]
        if not self.staged:
            _check_readable(variable, self.trace, self.parent)
        return _seen_from(self.parent, variable)


class NeedsPython(Exception):
    """The trace of a function needs the value of arguments that came as Python ints.

    Attributes:
        owner: The `Integers.owner` of the frame whose arguments they are.
        indices: Which of its traced arguments.
    """

    def __init__(self, owner: Any, indices: frozenset[int]) -> None:
        super().__init__("the value of an integer argument is needed")
        self.owner = owner
        self.indices = indices


class Integers(NamedTuple):
    """Arguments of a function that came as Python ints and are traced."""

    owner: Any = None  # who can trace again with other arguments traced
    tracers: Mapping[int, Any] = MappingProxyType({})


def need_python(value: Any) -> None:
    """Ask the function around for the Python ints that `value` may come from.

    A tracer that is no argument itself may be computed from any of them.
    """
    if not is_traced(value):
        return
    frame = current()
    while frame is not None:
        owner, tracers = frame.integers
        same = frozenset(index for index in tracers if tracers[index] is value)
        if tracers:
            raise NeedsPython(owner, same or frozenset(tracers))
        frame = frame.parent


class _Stack(threading.local):
    def __init__(self) -> None:
        self.frames: list[Frame] = []


_stack = _Stack()


def current() -> Frame | None:
    """The innermost frame of this thread, or None outside every trace."""
    return _stack.frames[-1] if _stack.frames else None


def is_given_away(variable: SharedVariable, frame: Frame | None) -> bool:
    """Whether a step around has the variable as a mere value, which may go stale."""
    while frame is not None:
        if variable in frame.given_away:
            return True
        frame = frame.parent
    return False


def value_of(variable: SharedVariable) -> PyTree:
    """The variable's value where the caller stands."""
    frame = current()
    _check_readable(variable, staging_trace(), frame)
    return _seen_from(frame, variable)


@contextlib.contextmanager
def enter(frame: Frame) -> Iterator[Frame]:
    """Make `frame` the innermost one for the length of a `with` block."""
    frame.trace = staging_trace()
    _stack.frames.append(frame)
    try:
        yield frame
    finally:
        _stack.frames.pop()


def _seen_from(frame: Frame | None, variable: SharedVariable) -> PyTree:
    return variable.stored if frame is None else frame.read(variable)


def _check_readable(variable: SharedVariable, here: Any, frame: Frame | None) -> None:
    """Refuse a read in a trace of JAX's own, which would keep the value for good."""
    if here is (frame.trace if frame else None) or here is variable.home:
        return
    raise ScanValueError(
        f"{variable!r} is read inside jax.jit or another construct that JAX traces on "
        "its own (lax.cond, lax.scan, jax.checkpoint). JAX would keep the value of "
        "this moment and never see a later one. Fix: compile with jscan.function in "
        f"place of jax.jit, or read {variable.label}.value before and pass it in as "
        "an argument."
    )
