"""`function`: compile a Python function that reads and updates shared variables."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, Protocol, TypeVar, overload

from jscan._base.errors import ScanTypeError, Subject, signed
from jscan._base.kinds import brief
from jscan._base.verbs import verb
from jscan._frontend.options import check_mode
from jscan._frontend.spec import Mode
from jscan._functions.function_type import Function
from jscan._functions.inputs import Settings
from jscan._programs.regions import usual_options

P = ParamSpec("P")
R = TypeVar("R")


class Maker(Protocol):
    """What `function` returns where only its options are given: a decorator."""

    def __call__(self, f: Callable[P, R], /) -> Function[P, R]: ...


_PORTING = (
    "in place of theano.function([x], y, updates=u, givens=g) write jscan.function"
    "(lambda x: (y, u)), where y and u are computed inside; givens are set_value before"
)

_OF_THEANO: dict[str, str] = dict.fromkeys(
    ("inputs", "outputs", "updates", "givens"), _PORTING
)


@overload
def function(
    f: Callable[P, R],
    *,
    donate: bool = False,
    static_argnames: str | Iterable[str] = (),
    mode: Mode | None = None,
    name: str | None = None,
    no_default_updates: bool = False,
    in_shardings: Any = None,
    out_shardings: Any = None,
) -> Function[P, R]: ...


@overload
def function(
    *,
    donate: bool = False,
    static_argnames: str | Iterable[str] = (),
    mode: Mode | None = None,
    name: str | None = None,
    no_default_updates: bool = False,
    in_shardings: Any = None,
    out_shardings: Any = None,
) -> Maker: ...


@verb(_PORTING, _OF_THEANO)
def function(
    f: Callable[..., Any] | None = None,
    *,
    donate: bool = False,
    static_argnames: str | Iterable[str] = (),
    mode: Mode | None = None,
    name: str | None = None,
    no_default_updates: bool = False,
    in_shardings: Any = None,
    out_shardings: Any = None,
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
    advance at every call. Several threads may call functions that share variables: each
    has its turn. A call that an interrupt ends stores all new values or none, and what
    it leaves behind stops nobody. JAX's settings act as they do on `jax.jit`.

    Args:
        f: The function; left out, `function` is a decorator with options.
        donate: Update in place: the memory of old values is reused. Arrays read from
            an updated variable before a call are then gone (jscan's functions say so,
            operations of JAX only that the array is deleted), and an error while the
            program runs can leave the variable without a value (so can an interrupt of
            a program's first call, at the moment in which JAX hands over the results).
        static_argnames: Names of arguments that are constants of the program.
        mode: None or ``"FAST_RUN"``: optimized. ``"FAST_COMPILE"``: plain.
            ``"DEBUG"``: run in Python on real values, loops included.
        name: Used in errors and reports; by default that of `f`.
        no_default_updates: True: draws do not advance the stored random streams,
            unless the returned updates say so.
        in_shardings: Where the arguments are to lie, as in `jax.jit`: one
            `jax.sharding.Sharding`, or a tuple of trees of them, with an entry for each
            argument by position that is not in `static_argnames`.
        out_shardings: Where the outputs are to lie, as in `jax.jit`. New values of
            variables lie where the old ones do, without being told. (In DEBUG neither
            is looked at.)

    Returns:
        A `Function`. It returns outputs in the structure `f` gave them: None, one
        tree, a list or a tuple.

    Raises:
        ScanTypeError: An update or an argument of the wrong kind.
        ScanValueError: An unknown mode or static argument; with `donate`, a buffer
            that is wanted twice; arrays on different devices; shardings that do not
            fit.

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
            in_shardings=in_shardings,
            out_shardings=out_shardings,
        )
    name = str(name or getattr(f, "__name__", "function"))
    owner = Subject(f"function {name!r}")
    _check_callable(f, owner)
    with signed(owner):
        mode = check_mode(mode)
    settings = Settings(
        name,
        donate=donate,
        options=usual_options(mode == "FAST_RUN"),
        default_updates=not no_default_updates,
        static_argnames=_names(static_argnames),
        in_shardings=in_shardings,
        out_shardings=out_shardings,
        debug=mode == "DEBUG",
    )
    return Function(f, settings)


def _names(given: str | Iterable[str]) -> tuple[str, ...]:
    one = isinstance(given, str) or not isinstance(given, Iterable)
    return (given,) if one else tuple(given)  # pyright: ignore[reportReturnType]


def _check_callable(f: Any, owner: Subject) -> None:
    if not callable(f):
        raise ScanTypeError(
            "f",
            needed="a Python function",
            came=brief(f),
            fix=_PORTING,
            owner=owner,
        )
