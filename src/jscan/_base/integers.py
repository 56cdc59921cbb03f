"""Whole numbers that a user gave, checked."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from jscan._base.errors import ScanTypeError, ScanValueError
from jscan._base.kinds import shown


def as_integer(
    value: Any,
    place: str,
    needed: str = "an integer",
    fix: str = "write a whole number",
) -> int:
    """The value as an int; True and False are none."""
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise ScanTypeError(
            place,
            needed=needed,
            came=shown(value),
            fix="convert it with int(...)" if _is_whole(value) else fix,
        ) from None


def at_least(least: int, value: Any, place: str, *, needed: str, fix: str) -> int:
    """The value as an int that is not smaller; `needed` says so in words."""
    count = as_integer(value, place, needed, fix)
    if count < least:
        raise ScanValueError(place, needed=needed, came=str(count), fix=fix)
    return count


def _is_whole(value: Any) -> bool:
    """Whether `int` makes of the value what was meant."""
    if isinstance(value, str):
        return value.strip().isdecimal()
    return isinstance(value, float | np.floating) and float(value).is_integer()
