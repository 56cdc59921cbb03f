"""Choosing and cutting lists by masks and counts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any


def others(mask: Iterable[bool]) -> list[bool]:
    """What the mask leaves out, as a mask."""
    return [not flag for flag in mask]


def pick(values: Sequence[Any], mask: Iterable[bool]) -> list[Any]:
    """The marked values."""
    return [value for value, wanted in zip(values, mask, strict=True) if wanted]


def cut(values: Sequence[Any], counts: Sequence[int]) -> list[list[Any]]:
    """A flat list in pieces of the given lengths."""
    stream = iter(values)
    return [[next(stream) for _ in range(count)] for count in counts]
