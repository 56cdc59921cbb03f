"""`function`: compile a Python function that reads and updates shared variables."""

from __future__ import annotations

import functools
import inspect
import threading
import types
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from . import _donation, _frames
from ._compiled import Compiled, Settings, compile_function, evaluate
from ._errors import ScanTypeError, ScanValueError, Subject, explain_error
from ._frames import NeedsPython, Scope
from ._operators import ArrayLike
from ._options import MODES
from ._shared import SharedVariable
from ._streams import Stream, take
from ._types import Leaf, PyTree, is_array, is_number, is_traced
from ._updates import locked


@dataclass(frozen=True)
class _Kind:
    """What a call's arguments look like: equal kinds can share a program."""

    tree: Any
    types: tuple[Any, ...]
    wide: bool  # 64-bit types are on


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
        self._static_names = static_argnames
        self._debug = debug
        self._signature = inspect.signature(fn)
        self._lock = threading.RLock()
        self._python: dict[_Kind, frozenset[int]] = {}  # ints that must stay concrete
        self._programs: dict[Any, list[Compiled]] = {}
        functools.update_wrapper(self, fn)

    def __call__(self, *args: Any, **kwargs: Any) -> PyTree:
        """Call the function; all new values are stored together when it has ended."""
        arguments = _Arguments.sort(self, args, kwargs)
        if self._debug or jax.config.jax_disable_jit:  # type: ignore[attr-defined]
            return self._run_in_python(arguments)
        compiled, leaves = self._compiled(arguments)
        if _frames.current() is not None:
            return self._run_inside(compiled, leaves)
        with locked(compiled.reads) as locks:
            values = {v: v.value for v in compiled.reads}
            if not compiled.fits(values):  # another thread changed a shape
                locks.close()
                return self(*args, **kwargs)
            if not compiled.updated and not any(v.donated for v in compiled.reads):
                locks.close()  # what only reads need not wait
            if compiled.settings.donate:
                for variable in compiled.updated:
                    variable.donated = True
            outputs, new = compiled(values, leaves)
            self._check_storable(new)
            for variable, value in new.items():
                variable.accept(value)
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
        compiled, leaves = self._compiled(_Arguments.sort(self, args, kwargs))
        values = {v: v.value for v in compiled.reads}
        return compiled.run.lower(*compiled.inputs(values, leaves))  # type: ignore[attr-defined]

    # -------------------------------------------------------------------- compiling

    def _compiled(self, arguments: _Arguments) -> tuple[Compiled, list[Leaf]]:
        """The program for these arguments, and the leaves it takes."""
        with self._lock:
            python = self._python.get(arguments.kind, frozenset())
            found = self._lookup(arguments, python)
            if found is None:
                found, python = self._compile(arguments, python)
                self._python[arguments.kind] = python
                self._programs.setdefault(arguments.key(python), []).append(found)
            return found, arguments.traced(python)

    def _lookup(self, arguments: _Arguments, python: frozenset[int]) -> Compiled | None:
        for compiled in self._programs.get(arguments.key(python), ()):
            if compiled.fits({v: v.value for v in compiled.reads}):
                return compiled
        return None

    def _compile(
        self, arguments: _Arguments, python: frozenset[int]
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
        self, arguments: _Arguments, python: frozenset[int]
    ) -> tuple[Compiled, frozenset[int]]:
        while True:
            traced = arguments.traced_places(python)
            call = functools.partial(arguments.call, self.fn, python)
            ints = [i for i, place in enumerate(traced) if place in arguments.integers]
            try:
                leaves = arguments.traced(python)
                return compile_function(call, leaves, ints, self.settings), python
            except NeedsPython as request:
                python = python | {traced[request.index]}

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
                        fix=f"call {self.name}.fn there and return its updates",
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

    def _run_in_python(self, arguments: _Arguments) -> PyTree:
        """``mode="DEBUG"``: the function on real values, line by line."""
        call = functools.partial(arguments.call, self.fn, arguments.integers)
        leaves = [jnp.asarray(x) for x in arguments.traced(arguments.integers)]
        while True:
            frame = _frames.Frame({}, Scope.FUNCTION, staged=False)
            with jax.disable_jit(), _frames.enter(frame):
                outputs, new = evaluate(call, leaves, frame, self.settings)
            if _frames.current() is not None:
                self._store_inside(new, frame.draws)
                return outputs
            with locked(frame.reads):
                # Another thread may have stored a value in the meantime.
                if all(v.stored is seen for v, seen in frame.reads.items()):
                    self._check_storable(new)
                    for variable, value in new.items():
                        variable.accept(value)
                    return outputs


@dataclass(frozen=True)
class _Arguments:
    """The arguments of one call, flat, and which of them can be traced.

    Attributes:
        leaves: All leaves.
        arrays: Places of arrays and numbers; other leaves are part of the program.
        integers: Places of Python ints, traced unless the function needs their value.
    """

    kind: _Kind
    leaves: tuple[Any, ...]
    arrays: tuple[int, ...]
    integers: frozenset[int]

    @classmethod
    def sort(cls, function: Function, args: Any, kwargs: Any) -> _Arguments:
        """Bind and flatten arguments; refuses what can neither be traced nor kept."""
        owner, static = function.settings.owner, function._static_names
        try:
            bound = function._signature.bind(*args, **kwargs)
        except TypeError as error:
            error.add_note(f"This was a call of {owner}{function._signature}.")
            raise
        tree_in = {
            name: _Whole(value) if name in static else value
            for name, value in bound.arguments.items()
        }
        leaves, tree = jax.tree.flatten(tree_in)
        places = [index for index, leaf in enumerate(leaves) if _is_array(leaf, owner)]
        leaves = [x.value if isinstance(x, ArrayLike) else x for x in leaves]
        _donation.check_alive([leaves[i] for i in places], owner, "an argument")
        traced = frozenset(places)
        types = tuple(
            jax.typeof(jnp.asarray(leaf)) if index in traced else leaf
            for index, leaf in enumerate(leaves)
        )
        integers = {i for i in places if isinstance(leaves[i], int)}
        wide = bool(jax.config.jax_enable_x64)  # type: ignore[attr-defined]
        kind = _Kind(tree, types, wide)
        try:
            hash(kind)
        except TypeError as error:
            raise ScanTypeError(
                explain_error(
                    owner,
                    "an argument",
                    needed="arrays, numbers, trees of them or hashable values",
                    came=str(error),
                    fix="convert it with jnp.asarray",
                )
            ) from error
        return cls(kind, tuple(leaves), tuple(places), frozenset(integers))

    def traced_places(self, python: frozenset[int]) -> list[int]:
        """Places of the leaves that are traced when those of `python` are not."""
        return [place for place in self.arrays if place not in python]

    def traced(self, python: frozenset[int]) -> list[Leaf]:
        """The leaves that are traced."""
        return [self.leaves[place] for place in self.traced_places(python)]

    def key(self, python: frozenset[int]) -> Any:
        """Equal for calls that run the same program."""
        return self.kind, tuple(sorted((i, self.leaves[i]) for i in python))

    def call(
        self, fn: Callable[..., Any], python: frozenset[int], traced: Sequence[Leaf]
    ) -> Any:
        """Call `fn` with tracers in the places of traced leaves."""
        leaves = list(self.leaves)
        for place, value in zip(self.traced_places(python), traced, strict=True):
            leaves[place] = value
        arguments = jax.tree.unflatten(self.kind.tree, leaves)
        bound = inspect.signature(fn).bind_partial()
        for name, value in arguments.items():
            bound.arguments[name] = value.value if isinstance(value, _Whole) else value
        return fn(*bound.args, **bound.kwargs)


class _Whole:
    """An argument that is static as a whole, whatever it holds."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Whole) and self.value == other.value

    def __hash__(self) -> int:
        return hash(self.value)


def _is_array(leaf: Any, owner: Subject) -> bool:
    if isinstance(leaf, SharedVariable):
        raise ScanTypeError(
            explain_error(
                owner,
                "an argument",
                needed="arrays, numbers or trees of them",
                came=repr(leaf),
                fix=f"read the variable in the function's body, or pass "
                f"{leaf.label}.value",
            )
        )
    return is_array(leaf) or is_number(leaf) or isinstance(leaf, ArrayLike)


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
        optimized=mode in (None, "FAST_RUN"),
        default_updates=not no_default_updates,
    )
    names = static_argnames
    names = (names,) if isinstance(names, str) else tuple(names)
    compiled = Function(f, settings, names, debug=mode == "DEBUG")
    compiled.name = name or compiled.name
    return compiled
