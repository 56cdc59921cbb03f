"""The caches of what was traced: all of one size, and one call clears them."""

from __future__ import annotations

import functools
import os
import weakref
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

from jscan._base.errors import ScanValueError, Subject

Value = TypeVar("Value")


def _size(text: str) -> int:
    """How many entries the environment allows a cache; refuses all but counts."""
    if text.strip().isdecimal() and int(text) > 0:
        return int(text)
    raise ScanValueError(
        "the environment variable JSCAN_CACHE_SIZE",
        needed="the most entries of a cache, 1 or more",
        came=repr(text),
        fix="write a whole number, as in JSCAN_CACHE_SIZE=512, or unset it",
        owner=Subject("jscan"),
    )


SIZE = _size(os.environ.get("JSCAN_CACHE_SIZE", "512"))

_caches: dict[int, weakref.ref[Any]] = {}


def cached(function: Callable[..., Value]) -> functools._lru_cache_wrapper[Value]:
    """Keeps the results that were used last, as `functools.lru_cache` does."""
    cache = functools.lru_cache(maxsize=SIZE)(function)
    forget = functools.partial(_caches.pop, id(cache))  # an interrupt cannot stop it
    _caches[id(cache)] = weakref.ref(cache, forget)
    return cache


class Cache(Generic[Value]):
    """A dict that keeps the values that were used last."""

    def __init__(self) -> None:
        self._place = cached(_empty_place)

    def get(self, key: Hashable) -> Value | None:
        """The value, or None."""
        return self._place(key)[0]

    def __setitem__(self, key: Hashable, value: Value) -> None:
        self._place(key)[0] = value


def _empty_place(key: Hashable) -> list[Any]:
    return [None]


def fill() -> dict[str, int]:
    """How many entries the caches hold, by what is cached."""
    found: dict[str, int] = {}
    for known in list(_caches.values()):
        cache = known()
        if cache is not None:
            made = cache.__wrapped__
            name = f"{made.__module__}.{made.__qualname__}"
            name = "what functions keep" if made is _empty_place else name
            found[name] = found.get(name, 0) + cache.cache_info().currsize
    return found


def clear_caches() -> None:
    """Forget all that was traced and compiled, and give its memory back.

    What is called next is traced and compiled again, and computes the same: nothing
    that variables, streams or profiles hold is lost. It may be called at any time,
    also while other threads run. That is of use where a process has run many different
    loops: without it each cache keeps the 512 programs that were used last, or as many
    as the environment variable ``JSCAN_CACHE_SIZE`` said when jscan was first used.

    JAX's own caches forget these programs, too, and keep all others. `jax.clear_caches`
    clears those, and not these; it loses nothing, either.

    Example:
        >>> import jscan
        >>> count = jscan.shared(0, name="count")
        >>> tick = jscan.function(lambda: (count.value, {count: count + 1}))
        >>> first = tick()
        >>> jscan.clear_caches()
        >>> int(tick())  # compiled again
        1
    """
    for known in list(_caches.values()):
        cache = known()
        if cache is not None:
            cache.cache_clear()
