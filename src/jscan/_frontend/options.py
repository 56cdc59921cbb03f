"""The options of `scan`: how to run a loop, checked before anything else."""

from __future__ import annotations

import inspect
import operator
from typing import Any

from jscan._base.errors import ScanTypeError, ScanValueError, explain_error
from jscan._frontend.spec import Options

MODES = ("FAST_RUN", "FAST_COMPILE", "DEBUG")


def check_options(
    *,
    name: Any = None,
    mode: Any = None,
    truncate_gradient: Any = -1,
    go_backwards: Any = False,
    strict: Any = False,
    return_list: Any = False,
    profile: Any = False,
    unroll: Any = None,
    checkpoint: Any = None,
    progress: Any = False,
) -> Options:
    """Validate the options and freeze them."""
    if name is not None and not isinstance(name, str):
        raise ScanTypeError(
            explain_error(
                None,
                "name",
                needed="a string or None",
                came=f"{name!r} of type {type(name).__name__}",
                fix="write name='...'",
            )
        )
    return Options(
        name=name,
        mode=_mode(mode, name),
        truncate_gradient=_truncation(truncate_gradient, name),
        go_backwards=bool(go_backwards),
        strict=bool(strict),
        return_list=return_list is True,
        profile=_profile(profile, name),
        unroll=_unroll(unroll, name),
        checkpoint=_checkpoint(checkpoint, name),
        progress=_progress(progress, name),
    )


def _mode(mode: Any, name: str | None) -> str:
    if mode is None:
        return "FAST_RUN"
    if isinstance(mode, str) and mode in MODES:
        return mode
    raise ScanValueError(
        explain_error(
            name,
            "mode",
            needed=f"None or one of {', '.join(map(repr, MODES))}",
            came=repr(mode),
            fix="leave mode out for the usual, optimized loop",
        )
    )


def _unroll(unroll: Any, name: str | None) -> int | bool | None:
    if unroll is None or isinstance(unroll, bool):
        return unroll
    count = _integer(unroll, "unroll", name)
    if count < 1:
        raise ScanValueError(
            explain_error(
                name,
                "unroll",
                needed="an integer of at least 1, True, False or None",
                came=str(count),
                fix="leave unroll out and jscan chooses",
            )
        )
    return count


def _truncation(steps: Any, name: str | None) -> int:
    count = _integer(steps, "truncate_gradient", name)
    if count == 0 or count < -1:
        raise ScanValueError(
            explain_error(
                name,
                "truncate_gradient",
                needed="-1 (off) or an integer of at least 1",
                came=str(count),
                fix="for a loop without any gradient use jax.lax.stop_gradient",
            )
        )
    return count


def _checkpoint(value: Any, name: str | None) -> int | str | None:
    if value is None or (isinstance(value, str) and value in ("sqrt", "recursive")):
        return value
    needed = "None, a number of steps, 'sqrt' or 'recursive'"
    fix = "checkpoint=100 saves the state every 100 steps"
    if isinstance(value, str):
        raise ScanValueError(
            explain_error(name, "checkpoint", needed=needed, came=repr(value), fix=fix)
        )
    count = _integer(value, "checkpoint", name)
    if count < 1:
        raise ScanValueError(
            explain_error(name, "checkpoint", needed=needed, came=str(count), fix=fix)
        )
    return count


def _profile(value: Any, name: str | None) -> bool | str:
    if isinstance(value, bool | str):
        return value
    raise ScanTypeError(
        explain_error(
            name,
            "profile",
            needed="True, False or a label",
            came=f"{value!r:.60} of type {type(value).__name__}",
            fix="write profile=True",
        )
    )


def _progress(value: Any, name: str | None) -> tuple[tuple[str, Any], ...] | None:
    if value is None or value is False:
        return None
    if value is True:
        return ()
    if isinstance(value, str):
        return (("desc", value),)
    if isinstance(value, dict):
        _check_bar(value, name)
        return tuple(value.items())
    raise ScanTypeError(
        explain_error(
            name,
            "progress",
            needed="True, a label, or a dict of options of tqdm",
            came=f"{value!r:.60} of type {type(value).__name__}",
            fix="write progress=True",
        )
    )


def _check_bar(settings: dict[str, Any], name: str | None) -> None:
    """Options that `tqdm` knows, and that do not say what the loop says itself."""
    known = _bar_options()
    unknown = [key for key in settings if known and key not in known]
    if unknown:
        raise ScanValueError(
            explain_error(
                name,
                "progress",
                needed="options of a bar of tqdm: " + ", ".join(known),
                came=", ".join(map(repr, unknown)),
                fix="spell it as tqdm does; the loop itself sets the total",
            )
        )
    stride = settings.get("miniters")
    if stride is not None and _integer(stride, "progress: miniters", name) < 0:
        raise ScanValueError(
            explain_error(
                name,
                "progress: miniters",
                needed="a number of steps",
                came=str(stride),
                fix="leave miniters out and jscan chooses",
            )
        )
    try:
        hash(tuple(settings.items()))
    except TypeError as error:
        raise ScanTypeError(
            explain_error(
                name,
                "progress",
                needed="options that stay what they are",
                came=str(error),
                fix="write the postfix as text",
            )
        ) from error


def _bar_options() -> list[str]:
    """The names; none where tqdm is missing: the bar's own error says what to do."""
    try:
        from tqdm.std import tqdm
    except ImportError:
        return []
    taken = ("self", "iterable", "total", "initial", "kwargs")
    return [
        key for key in inspect.signature(tqdm.__init__).parameters if key not in taken
    ]


def _integer(value: Any, place: str, name: str | None) -> int:
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)
    except TypeError as error:
        raise ScanTypeError(
            explain_error(
                name,
                place,
                needed="an integer",
                came=f"{value!r:.60} of type {type(value).__name__}",
                fix="convert it with int(...)",
            )
        ) from error
