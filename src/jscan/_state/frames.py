"""What the code being traced right now sees of the shared variables.

A *frame* is one trace (of a step, of a compiled function, of a cost) in progress. It
holds the values its shared variables have there and remembers which variables were
read, so that the tracer can turn every read into an input of what it traces. Frames
form a stack, one per thread. A frame that an interrupt left there is known by the
Python frame that entered it, which is over.

A value read in a frame belongs to JAX's trace of that frame. Code that JAX traces on
its own account (`jax.jit`, the branches of `lax.cond`) may be kept and run again with
other values of the variable, so that reading one in there would silently freeze it:
`value_of` refuses it.
"""

from __future__ import annotations

import contextlib
import enum
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import jax

from jscan._base.errors import ScanValueError
from jscan._base.turns import is_over
from jscan._base.types import PyTree
from jscan._jax.traces import staging_trace
from jscan._jax.types import is_traced
from jscan._state import donation
from jscan._state.array_likes import label_of
from jscan._state.positions import Position


class Variable(Protocol):
    """What a frame knows of a shared variable."""

    _stored: PyTree
    _home: Any  # JAX's trace it was made in, if any
    _birth: Frame | None  # the frame it was made in, if any


class Scope(enum.Enum):
    """What a frame is the trace of."""

    STEP = "step"  # one step of a loop
    FUNCTION = "function"  # a compiled function
    COST = "cost"  # a cost being differentiated: binds variables, nothing else
    REWRITTEN = "function given to optimize or explain"  # reads variables, no more


class Frame:
    """The values of shared variables inside one trace, and the variables it read.

    A trace that is `staged` is repeated until every variable it reads is one of its
    inputs; else the code runs on values as they are (DEBUG, and a cost).
    """

    def __init__(
        self,
        bound: Mapping[Any, PyTree],
        scope: Scope = Scope.STEP,
        *,
        staged: bool = True,
        without_jit: bool = False,
    ) -> None:
        self.bound = dict(bound)  # values of variables here
        self.scope = scope
        self.staged = staged
        # Variables read here, in order, and the value they had first.
        self.reads: dict[Any, PyTree] = {}
        self.draws: dict[Any, Any] = {}  # of every random stream, how many were made
        self.positions: dict[Any, Position] = {}  # of every draw sampled here
        self.samples: dict[Any, Any] = {}  # of draws, as they are worth here
        self.stored: dict[Any, PyTree] = {}  # by functions that were called here
        self.integers = Integers()
        # Variables that the step got as arrays, worth what they are now.
        self.given_away: tuple[Any, ...] = ()
        self.trace: Any = None
        self.parent = current()
        self._without_jit = jax.disable_jit() if without_jit else None
        self._had_jit = not jax.config.jax_disable_jit  # type: ignore[attr-defined]
        self.entered_by: Any = None  # the Python frame; over if an interrupt ended it

    def __enter__(self) -> Frame:
        self.entered_by = sys._getframe(1)
        _stack.top = self
        if self._without_jit is not None:
            self._without_jit.__enter__()
        self.trace = staging_trace()
        return self

    def __exit__(self, _: object, error: object, __: object) -> None:
        if self._without_jit is not None:
            self._without_jit.__exit__(None, None, None)
        _stack.top = self.parent
        self.entered_by = None
        is_repeated = self.staged and self.scope in (Scope.STEP, Scope.FUNCTION)
        if is_repeated and isinstance(error, Exception) and self.has_lost():
            raise Lost(tuple(self.reads))

    def has_lost(self) -> bool:
        """Whether a value read here was overwritten in place meanwhile."""
        return donation.is_gone(list(self.reads.values()))

    def drop(self) -> None:
        """Leave a frame that was left behind."""
        if self._without_jit is not None:
            # JAX's own way back may have been interrupted, too, at any point of it.
            with contextlib.suppress(RuntimeError, AttributeError):
                self._without_jit.__exit__(None, None, None)
            if self._had_jit and jax.config.jax_disable_jit:  # type: ignore[attr-defined]
                _stack.kept.append(jax.disable_jit(False))  # for good
                _stack.kept[-1].__enter__()
        _stack.top = self.parent

    def read(self, variable: Variable) -> PyTree:
        """The variable's value here; an unbound one has that of the frame around."""
        if variable._birth is self:
            return self.bound.get(variable, variable._stored)
        value = self._value(variable)
        self.reads.setdefault(variable, value)
        return value

    def set(self, variable: Variable, value: PyTree) -> None:
        """Give the variable a new value for the rest of this frame."""
        self.read(variable)  # a variable that changes is an input
        self.bound[variable] = value

    def _value(self, variable: Variable) -> PyTree:
        if variable in self.bound:
            return self.bound[variable]
        if not self.staged:
            _check_readable(variable, self.trace, self.parent)
        if variable in self.reads and self.scope is not Scope.COST:
            return self.reads[variable]  # one trace sees one value, whoever stores
        return _seen_from(self.parent, variable)


@dataclass(eq=False)
class Lost(Exception):
    """A value that a trace read was overwritten in place meanwhile, by another thread.

    The trace is to be done again with the variables `reads` as inputs.
    """

    reads: tuple[Any, ...]


@dataclass(eq=False)
class NeedsPython(Exception):
    """The trace of a function needs the value of arguments that came as Python ints."""

    owner: Any  # the `Integers.owner` of the frame whose arguments they are
    indices: frozenset[int]  # which of its traced arguments


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
    for frame in around(current()):
        owner, tracers = frame.integers
        same = frozenset(index for index in tracers if tracers[index] is value)
        if tracers:
            raise NeedsPython(owner, same or frozenset(tracers))


class _Stack(threading.local):
    top: Frame | None = None

    def __init__(self) -> None:
        self.kept: list[Any] = []  # settings of this thread


_stack = _Stack()


def current() -> Frame | None:
    """The innermost frame of this thread, or None outside every trace."""
    while (top := _stack.top) is not None and is_over(top.entered_by):
        top.drop()
    return top


def around(frame: Frame | None) -> Iterator[Frame]:
    """A frame and those around it, from the inside out."""
    while frame is not None:
        yield frame
        frame = frame.parent


def sampling_frame() -> Frame | None:
    """The innermost frame that counts draws: a step or a function."""
    counting = (f for f in around(current()) if f.scope is not Scope.COST)
    return next(counting, None)


def runs_in_python() -> bool:
    """Whether the caller stands inside ``jax.disable_jit()``."""
    current()  # takes away what an interrupt has left behind
    return bool(jax.config.jax_disable_jit)  # type: ignore[attr-defined]


def is_given_away(variable: Variable, frame: Frame | None) -> bool:
    """Whether a step around has the variable as a mere value, which may go stale."""
    return any(variable in one.given_away for one in around(frame))


def is_born_in(variable: Variable, frame: Frame | None) -> bool:
    """Whether the variable was made in that very frame."""
    return frame is not None and variable._birth is frame


def is_lasting(variable: Variable) -> bool:
    """Whether the variable was made outside of every trace, and outlives it."""
    return variable._home is None


def value_of(variable: Variable) -> PyTree:
    """The variable's value where the caller stands."""
    frame = current()
    _check_readable(variable, staging_trace(), frame)
    return _seen_from(frame, variable)


def _seen_from(frame: Frame | None, variable: Variable) -> PyTree:
    return variable._stored if frame is None else frame.read(variable)


def _check_readable(variable: Variable, here: Any, frame: Frame | None) -> None:
    """Refuse a read in a trace of JAX's own, which would keep the value for good."""
    if here is (frame.trace if frame else None) or here is variable._home:
        return
    raise ScanValueError(
        f"{variable!r} is read inside jax.jit or another construct that JAX traces on "
        "its own (lax.cond, lax.scan, jax.checkpoint). JAX would keep the value of "
        "this moment and never see a later one.\nFix: compile with jscan.function in "
        f"place of jax.jit, or read {label_of(variable)}.value before and pass it in "
        "as an argument."
    )
