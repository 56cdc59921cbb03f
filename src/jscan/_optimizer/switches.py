"""Switches of the environment, and the line that says what failed."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


def debugging() -> bool:
    """Whether errors of the optimizer are raised instead of reported."""
    return os.environ.get("JSCAN_DEBUG", "0") not in ("", "0")


def enabled() -> bool:
    """Whether `JSCAN_OPTIMIZE` leaves the optimizer on."""
    return os.environ.get("JSCAN_OPTIMIZE", "1") != "0"


def plans() -> bool:
    """Whether the environment says how loops are planned, or by which costs."""
    return bool(os.environ.get("JSCAN_PLAN") or os.environ.get("JSCAN_MACHINE"))


def failure(error: Any) -> str:
    """One line that says what went wrong inside the optimizer."""
    lines = str(error).strip().splitlines() or [""]
    return f"failed and was skipped ({type(error).__name__}: {lines[0][:200]})"


def attempt(
    work: Callable[[], T], otherwise: Callable[[Exception], T], *, must: bool = False
) -> T:
    """The work's result; where it fails, what is done otherwise.

    Args:
        work: What may fail.
        otherwise: Takes the error.
        must: Errors are raised; with `JSCAN_DEBUG=1` they always are.
    """
    try:
        return work()
    except Exception as error:
        if must or debugging():
            raise
        return otherwise(error)
