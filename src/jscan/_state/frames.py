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
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import jax

from jscan._base.errors import ScanValueError
from jscan._base.turns import is_over
from jscan._base.types import PyTree
from jscan._jax.traces import staging_trace
from jscan._jax.types import is_traced
from jscan._state import donation

if TYPE_CHECKING:
    from jscan._state.draws import Draw
    from jscan._state.streams import Position, Stream
    from jscan._state.variables import SharedVariable


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
        without_jit: bool = False,
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
        self._without_jit = jax.disable_jit() if without_jit else None
        self._had_jit = not jax.config.jax_disable_jit  # type: ignore[attr-defined]
        self._entered_by: Any = None

    def __enter__(self) -> Frame:
        self._entered_by = sys._getframe(1)
        _stack.top = self
        if self._without_jit is not None:
            self._without_jit.__enter__()
        self.trace = staging_trace()
        return self

    def __exit__(self, _: object, error: object, __: object) -> None:
        if self._without_jit is not None:
            self._without_jit.__exit__(None, None, None)
        _stack.top = self.parent
        self._entered_by = None
        is_repeated = self.staged and self.scope in (Scope.STEP, Scope.FUNCTION)
        if is_repeated and isinstance(error, Exception):
            self._raise_lost()

    def _raise_lost(self) -> None:
        if donation.is_gone(list(self.reads.values())):
            raise Lost(tuple(self.reads))

    def is_left_behind(self) -> bool:
        """Whether an interrupt ended the code that entered this frame."""
        return is_over(self._entered_by)

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
        if variable in self.reads and self.scope is not Scope.COST:
            return self.reads[variable]  # one trace sees one value, whoever stores
        return _seen_from(self.parent, variable)


class Lost(Exception):
    """A value that a trace read was overwritten in place meanwhile, by another thread.

    Attributes:
        reads: What was read: the trace is to be done again with these as inputs.
    """

    def __init__(self, reads: tuple[SharedVariable, ...]) -> None:
        super().__init__("a value was overwritten while a function was traced")
        self.reads = reads


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
    top: Frame | None = None

    def __init__(self) -> None:
        self.kept: list[Any] = []  # settings of this thread


_stack = _Stack()


def current() -> Frame | None:
    """The innermost frame of this thread, or None outside every trace."""
    while (top := _stack.top) is not None and top.is_left_behind():
        top.drop()
    return top


def sampling_frame() -> Frame | None:
    """The innermost frame that counts draws: a step or a function."""
    frame = current()
    while frame is not None and frame.scope is Scope.COST:
        frame = frame.parent
    return frame


def runs_in_python() -> bool:
    """Whether the caller stands inside ``jax.disable_jit()``."""
    current()  # takes away what an interrupt has left behind
    return bool(jax.config.jax_disable_jit)  # type: ignore[attr-defined]


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


def enter(frame: Frame) -> Frame:
    """Make `frame` the innermost one for the length of a ``with`` block."""
    return frame


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
