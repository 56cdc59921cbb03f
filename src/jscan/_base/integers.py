"""Whole numbers that a user gave, checked."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from jscan._base.errors import ScanTypeError, ScanValueError


def as_integer(value: Any, place: str, needed: str = "an integer") -> int:
    """The value as an int; True and False are none."""
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        return operator.index(value)
    except TypeError as error:
        raise ScanTypeError(
            place,
            needed=needed,
            came=f"{value!r:.60} of type {type(value).__name__}",
            fix="convert it with int(...)",
        ) from error


def at_least(
    least: int, value: Any, place: str, *, needed: str, fix: str, kind: str = "integer"
) -> int:
    """The value as an int that is not smaller; `needed` says so in words."""
    count = as_integer(value, place, f"an {kind}")
    if count < least:
        raise ScanValueError(place, needed=needed, came=str(count), fix=fix)
    return count
