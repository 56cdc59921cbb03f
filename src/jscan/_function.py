"""`function`: compile a Python function that reads and updates shared variables."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import threading
import types
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp

from . import _frames
from ._call import Arguments, Kind, Taker
from ._compiled import Compiled, Settings, compile_function, evaluate
from ._errors import ScanTypeError, ScanValueError, Subject, explain_error
from ._frames import NeedsPython, Scope
from ._locks import locked, reading, wait_for_readers
from ._options import MODES
from ._program import Program
from ._progress import closed_on_error
from ._regions import usual_options
from ._shared import SharedVariable
from ._streams import Stream, take
from ._types import Leaf, PyTree, is_traced
from .optimize import Options


class Function:
    """A compiled function of arguments and shared variables; `function` makes it.

    Attributes:
        fn: The Python function.
        name: Used in errors and reports.

    Example:
        >>> import jscan
        >>> total = jscan.shared(0.0, name="total")
        >>> add = jscan.function(lambda x: (total + x, {total: total + x}))
        >>> float(add(2.0)), float(add(3.0)), float(total.value)
        (2.0, 5.0, 5.0)
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        settings: Settings,
        static_argnames: tuple[str, ...] = (),
        debug: bool = False,
    ) -> None:
        self.fn = fn
        self.settings = settings
        self.name = getattr(fn, "__name__", "function")
        self._taker = Taker(fn, settings.owner, _signature(fn), static_argnames)
        self._debug = debug
        self._lock = threading.RLock()
        self._python: dict[Kind, frozenset[int]] = {}  # ints that must stay concrete
        self._programs: dict[Any, list[Compiled]] = {}
        functools.update_wrapper(self, fn)

    def __call__(self, *args: Any, **kwargs: Any) -> PyTree:
        """Call the function; all new values are stored together when it has ended."""
        arguments = Arguments.sort(self._taker, args, kwargs)
        if self._debug or jax.config.jax_disable_jit:  # type: ignore[attr-defined]
            return self._run_in_python(arguments)
        compiled, leaves = self._compiled(arguments)
        if _frames.current() is not None:
            return self._run_inside(compiled, leaves)
        with closed_on_error(), locked(compiled.reads) as locks:
            values = {v: v.value for v in compiled.reads}
            if not compiled.fits(values):  # another thread changed a shape
                locks.close()
                return self(*args, **kwargs)
            if not compiled.updated:
                with reading(compiled.reads):
                    locks.close()
                    return compiled(values, leaves)[0]
            if compiled.settings.donate:
                wait_for_readers(compiled.updated)
            outputs, new = compiled(values, leaves)
            self._check_storable(new)
            for variable, value in new.items():
                variable.stored = value
        return outputs

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else types.MethodType(self, instance)

    def __repr__(self) -> str:
        return f"<Function {self.name}>"

    def lower(self, *args: Any, **kwargs: Any) -> Any:
        """The lowered program of a call with these arguments, as `jax.jit` gives it.

        Its ``compile().memory_analysis()`` and ``cost_analysis()`` tell what a call
        needs. Nothing is run and nothing stored.
        """
        compiled, leaves = self._compiled(Arguments.sort(self._taker, args, kwargs))
        values = {v: _frames.value_of(v) for v in compiled.reads}  # types alone matter
        return compiled.run.lower(*compiled.inputs(values, leaves))  # type: ignore[attr-defined]

    def traced(self, *args: Any, **kwargs: Any) -> Program:
        """The program of a call with these arguments, before any rewriting."""
        return self._compiled(Arguments.sort(self._taker, args, kwargs))[0].program

    def with_options(self, options: Options) -> Function:
        """This function with the loops of its program rewritten as `options` say."""
        settings = dataclasses.replace(self.settings, options=options)
        names = self._taker.static_names
        new = Function(self.fn, settings, names, debug=self._debug)
        new.name = self.name
        return new

    # -------------------------------------------------------------------- compiling

    def _compiled(self, arguments: Arguments) -> tuple[Compiled, list[Leaf]]:
        """The program for these arguments, and the leaves it takes."""
        with self._lock:
            python = self._python.get(arguments.kind, frozenset())
            found = self._lookup(arguments, python)
            if found is None:
                found, python = self._compile(arguments, python)
                self._python[arguments.kind] = python
                self._programs.setdefault(arguments.key(python), []).append(found)
            return found, arguments.traced(python)

    def _lookup(self, arguments: Arguments, python: frozenset[int]) -> Compiled | None:
        for compiled in self._programs.get(arguments.key(python), ()):
            # Only types are looked at: another thread may be replacing the values.
            if compiled.fits({v: _frames.value_of(v) for v in compiled.reads}):
                return compiled
        return None

    def _compile(
        self, arguments: Arguments, python: frozenset[int]
    ) -> tuple[Compiled, frozenset[int]]:
        """Trace with as few concrete ints as the function allows."""
        try:
            return self._trace(arguments, python)
        except (TypeError, ValueError, IndexError):
            rest = arguments.integers - python
            if not rest:
                raise
        found = self._trace(arguments, python | rest)
        for index in sorted(rest):
            try:
                found = self._trace(arguments, found[1] - {index})
            except (TypeError, ValueError, IndexError):
                continue  # this one is needed
        return found

    def _trace(
        self, arguments: Arguments, python: frozenset[int]
    ) -> tuple[Compiled, frozenset[int]]:
        while True:
            traced = arguments.traced_places(python)
            call = functools.partial(arguments.call, self._taker, python)
            ints = [i for i, place in enumerate(traced) if place in arguments.integers]
            try:
                leaves = arguments.traced(python)
                return compile_function(call, leaves, ints, self.settings), python
            except NeedsPython as request:
                if request.owner is not call:
                    raise
                python = python | {traced[index] for index in request.indices}

    # ---------------------------------------------------------------------- running

    def _run_inside(self, compiled: Compiled, leaves: list[Leaf]) -> PyTree:
        """A call from another function (or a step): the new values are its, too."""
        values = {v: v.value for v in compiled.reads}
        outputs, new = compiled(values, leaves)
        self._store_inside(new, compiled.draws)
        return outputs

    def _store_inside(self, new: dict[SharedVariable, PyTree], draws: Any) -> None:
        frame = _frames.current()
        assert frame is not None
        for variable, value in new.items():
            count = draws.get(variable)
            if isinstance(variable, Stream) and isinstance(count, int):
                take(variable, count)
                continue
            if frame.scope is not Scope.FUNCTION:
                raise ScanTypeError(
                    explain_error(
                        self.settings.owner,
                        f"the update of {variable!r}",
                        needed="a call from Python or from another function",
                        came=f"a call from a {frame.scope.value}",
                        fix=f"give jscan.optimize or jscan.explain {self.name} itself"
                        if frame.scope is Scope.REWRITTEN
                        else f"call {self.name}.fn there and return its updates",
                    )
                )
            frame.set(variable, value)
            frame.stored[variable] = value

    def _check_storable(self, new: dict[SharedVariable, PyTree]) -> None:
        for variable, value in new.items():
            if any(map(is_traced, jax.tree.leaves(value))) and variable.home is None:
                raise ScanTypeError(
                    explain_error(
                        self.settings.owner,
                        f"the update of {variable!r}",
                        needed="a call on values",
                        came="a call inside jax.grad, jax.vmap or jax.jit, which would "
                        "store a tracer",
                        fix="use the transformation inside the function, or in it a "
                        "function without updates",
                    )
                )

    def _run_in_python(self, arguments: Arguments) -> PyTree:
        """``mode="DEBUG"``: the function on real values, line by line."""
        call = functools.partial(arguments.call, self._taker, arguments.integers)
        leaves = [jnp.asarray(x) for x in arguments.traced(arguments.integers)]
        while True:
            frame = _frames.Frame({}, Scope.FUNCTION, staged=False)
            with jax.disable_jit(), _frames.enter(frame):
                outputs, new = evaluate(call, leaves, frame, self.settings)
            if _frames.current() is not None:
                self._store_inside(new, frame.draws)
                return outputs
            jax.block_until_ready((outputs, list(new.values())))  # errors may be late
            with locked(frame.reads):
                # Another thread may have stored a value in the meantime.
                if all(v.stored is seen for v, seen in frame.reads.items()):
                    self._check_storable(new)
                    for variable, value in new.items():
                        variable.stored = value
                    return outputs


def _signature(fn: Callable[..., Any]) -> inspect.Signature:
    try:
        return inspect.signature(fn)
    except (TypeError, ValueError):  # a builtin without one takes what it takes
        return inspect.signature(lambda *args, **kwargs: None)


def function(
    f: Callable[..., Any] | None = None,
    *,
    donate: bool = False,
    static_argnames: str | Iterable[str] = (),
    mode: str | None = None,
    name: str | None = None,
    no_default_updates: bool = False,
) -> Any:
    """Compile a function that reads and updates shared variables.

    `f` returns outputs, updates of shared variables (a dict, pairs, `Updates`), or
    ``(outputs, updates)``, as a step of `scan` does. It is traced once per types of
    arguments. Every shared variable it reads is an input of the compiled program, so
    that `set_value` between calls is seen. Outputs and new values are all computed
    from the old values and then stored together; an error stores nothing.

    Python ints are traced; where the trace needs one's value (an `n_steps`, a shape)
    that one becomes a constant, and another value of it compiles anew. Strings, None
    and other hashable objects are constants, too.

    A function called in another function acts as if called from Python: what follows
    sees its new values, and they are stored when the outer one ends. Random streams
    advance at every call. Several threads may call functions that share variables.

    Args:
        f: The function; left out, `function` is a decorator with options.
        donate: Update in place: the memory of old values is reused. Arrays read from
            an updated variable before a call are then gone (jscan's functions say so,
            operations of JAX only that the array is deleted), and an error while the
            program runs can leave the variable without a value.
        static_argnames: Arguments that are constants of the program.
        mode: None or ``"FAST_RUN"``: optimized. ``"FAST_COMPILE"``: plain.
            ``"DEBUG"``: run in Python on real values, loops included.
        name: Used in errors; by default that of `f`.
        no_default_updates: True: draws do not advance the stored random streams,
            unless the returned updates say so.

    Returns:
        A `Function`. It returns outputs in the structure `f` gave them: None, one
        tree, a list or a tuple.

    Raises:
        ScanTypeError: An update or an argument of the wrong kind.
        ScanValueError: With `donate`, a buffer that is wanted twice.

    Works with `jax.grad` and every transformation inside `f`; inside one of them it
    can be called if it updates nothing. Source: Theano 0.9, ``theano.function``.

    Example:
        >>> import jscan
        >>> count = jscan.shared(0, name="count")
        >>> @jscan.function
        ... def tick(step=1):
        ...     return count.value, {count: count + step}
        >>> [int(tick()), int(tick(5)), int(tick())]
        [0, 1, 6]
    """
    if f is None:
        return functools.partial(
            function,
            donate=donate,
            static_argnames=static_argnames,
            mode=mode,
            name=name,
            no_default_updates=no_default_updates,
        )
    owner = Subject(f"function {name or getattr(f, '__name__', 'function')!r}")
    if not callable(f):
        raise ScanTypeError(
            explain_error(
                owner,
                "f",
                needed="a Python function",
                came=f"{f!r:.60}",
                fix="inputs and outputs are the arguments and return value of f",
            )
        )
    if mode is not None and mode not in MODES:
        raise ScanValueError(
            explain_error(
                owner,
                "mode",
                needed=f"None or one of {', '.join(map(repr, MODES))}",
                came=repr(mode),
                fix="leave mode out",
            )
        )
    settings = Settings(
        owner=owner,
        donate=donate,
        options=usual_options(mode in (None, "FAST_RUN")),
        default_updates=not no_default_updates,
    )
    names = static_argnames
    names = (names,) if isinstance(names, str) else tuple(names)
    compiled = Function(f, settings, names, debug=mode == "DEBUG")
    compiled.name = name or compiled.name
    return compiled
