"""Whose function JAX's errors speak of, and by which names of its arguments.

To find the source line and the names, JAX asks `inspect`, which follows ``__wrapped__``
and ``__signature__``.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

_Kind = inspect.Parameter


def name_after(
    traced: Callable[..., Any], fn: Callable[..., Any], hidden: Sequence[str] = ()
) -> None:
    """Let `traced` bear the name of `fn`, and of its arguments.

    Args:
        traced: What JAX traces: a function of the hidden arguments, then of those of
            `fn`.
        fn: The user's function.
        hidden: What to call the hidden arguments.
    """
    target: Any = fn
    while isinstance(target, functools.partial):
        target = target.func
    if not hasattr(target, "__code__") and not hasattr(target, "__wrapped__"):
        # An object that is called: JAX would print it, however large it is.
        target = getattr(target, "__call__", target)  # noqa: B004
    traced.__name__ = getattr(fn, "__name__", traced.__name__)
    traced.__wrapped__ = target  # type: ignore[attr-defined]
    if hidden or isinstance(fn, functools.partial):
        with contextlib.suppress(TypeError, ValueError):  # a builtin may have none
            signature = _behind(hidden, inspect.signature(fn))
            traced.__signature__ = signature  # type: ignore[attr-defined]


def _behind(hidden: Sequence[str], given: inspect.Signature) -> inspect.Signature:
    """The signature with more arguments in front."""
    names: list[str] = []
    for name in hidden:
        name = name if name.isidentifier() else "shared"
        while name in names or name in given.parameters:
            name += "_value"
        names.append(name)
    first = [_Kind(name, _Kind.POSITIONAL_ONLY) for name in names]
    return inspect.Signature([*first, *given.parameters.values()])
