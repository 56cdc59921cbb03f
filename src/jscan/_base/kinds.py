"""Values and counts in the words of errors; what to do with what is no array."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from jscan._base.types import converts


def brief(value: Any) -> str:
    """A value as errors show it, in a part of a line."""
    return in_line(repr(value))


def in_line(text: str) -> str:
    """A text in a part of a line, cut if it is longer."""
    text = " ".join(text.split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def shown(value: Any) -> str:
    """A value that is not what was needed, as errors show it."""
    table = _table(value)
    text = brief(value) if table is None else f"{table.dtype}{[*table.shape]}"
    return f"{text} of type {type(value).__name__}"


def from_table(value: Any) -> Any:
    """The numbers of a foreign table or array (pandas, polars, torch); else None."""
    table = _table(value)
    if table is None or table.dtype.kind not in "biufc":
        return None
    return jax.numpy.asarray(table)


def _table(value: Any) -> np.ndarray | None:
    """A foreign object that NumPy takes for an array, as one."""
    own = np.ndarray, np.generic, jax.Array, jax.Ref
    if not hasattr(value, "__array__") or isinstance(value, own) or converts(value):
        return None
    return np.asarray(value)


def fix_of_kind(value: Any) -> str:
    """The fix of an error text: how to make numbers of `value`, if that can be done."""
    table = value if isinstance(value, np.ndarray) else _table(value)
    kind = "" if table is None else table.dtype.kind
    if isinstance(value, str | bytes) or kind in ("U", "S"):
        return "keep text in Python, where a step sees it, or code it as integers"
    if isinstance(value, np.datetime64 | np.timedelta64) or kind in ("M", "m"):
        return "pass numbers, as in (dates - dates[0]) / np.timedelta64(1, 'D')"
    if kind == "O":
        return "give it a numeric dtype, as in values.astype(float), None as nan"
    if isinstance(value, jax.Ref):
        return "use the Ref in the step itself, or pass its value, as in ref[...]"
    if value is None:
        return "leave it out, or pass a number"
    if isinstance(value, Iterator):
        return "make an array of its items, as in jnp.asarray(list(items))"
    if callable(value):
        return "call it and pass what it returns, or use it from where it is"
    if table is not None:
        return "convert it with jnp.asarray"
    if isinstance(value, list | set) and not value:
        return "leave it out, or pass an array with 0 rows, as in jnp.zeros(0)"
    return "keep it in Python, where a step sees it, or pass the numbers in it"


def counted(number: int, noun: str) -> str:
    """So many of something, as a sentence says it: ``1 entry``, ``2 entries``."""
    ends_in_y = noun.endswith("y") and noun[-2] not in "aeiou"
    several = noun[:-1] + "ies" if ends_in_y else noun + "s"
    several = noun[:-2] + "ices" if noun.endswith("ix") else several
    return f"{number} {noun if number == 1 else several}"
