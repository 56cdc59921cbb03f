"""The options of `scan`: how to run a loop, checked before anything else."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, get_args

import jax

from jscan._base.errors import ScanTypeError, ScanValueError
from jscan._base.integers import as_integer, at_least
from jscan._base.kinds import brief, shown
from jscan._frontend.spec import Checkpoint, Mode, Options

MODES: tuple[Mode, ...] = get_args(Mode)


def check_options(**given: Any) -> Options:
    """Validate the options and freeze them; the name first, which errors bear."""
    given |= _split_checkpoint(given.get("checkpoint"))
    return Options(**{key: _CHECKS[key](value) for key, value in given.items()})


def _name(name: Any) -> str | None:
    if name is None or isinstance(name, str):
        return name
    raise _wrong_type("name", "a string or None", name, "write name='...'")


def check_mode(mode: Any) -> Mode:
    """The mode, None being the usual one."""
    if mode is None:
        return "FAST_RUN"
    for known in MODES:
        if isinstance(mode, str) and mode == known:
            return known
    fix = "leave mode out for the usual, optimized loop"
    name = str(mode).upper()
    if "DEBUG" in name or "NAN" in name:  # Theano's DebugMode, NanGuardMode
        fix = 'write mode="DEBUG", which runs in Python and looks for NaN'
    elif name in MODES:
        fix = f"write mode={name!r}"
    raise ScanValueError(
        "mode",
        needed=f"None or one of {', '.join(map(repr, MODES))}",
        came=brief(mode),
        fix=fix,
    )


def _unroll(unroll: Any) -> int | bool | None:
    if unroll is None or isinstance(unroll, bool):
        return unroll
    return at_least(
        1,
        unroll,
        "unroll",
        needed="an integer of at least 1, True, False or None",
        fix="leave unroll out and jscan chooses",
    )


def _truncation(steps: Any) -> int:
    if as_integer(steps, "truncate_gradient") == -1:
        return -1
    return at_least(
        1,
        steps,
        "truncate_gradient",
        needed="-1 (off) or an integer of at least 1",
        fix="for a loop without any gradient use jax.lax.stop_gradient",
    )


def _checkpoint(value: Any) -> Checkpoint:
    if value is None or (isinstance(value, str) and value in ("sqrt", "recursive")):
        return value
    needed = "None, a number of steps, 'sqrt' or 'recursive'"
    fix = "checkpoint=100 saves the state every 100 steps"
    if isinstance(value, str):
        raise ScanValueError("checkpoint", needed=needed, came=repr(value), fix=fix)
    return at_least(1, value, "checkpoint", needed=needed, fix=fix)


def _split_checkpoint(value: Any) -> dict[str, Any]:
    """`checkpoint` as a dict says what is saved, and where."""
    if not isinstance(value, dict):
        return {}
    if set(value) != {"every", "memory_kind"}:
        raise ScanValueError(
            "checkpoint",
            needed="a dict with the keys every and memory_kind",
            came=f"the keys {', '.join(map(repr, value)) or 'of an empty one'}",
            fix='write checkpoint=dict(every="sqrt", memory_kind="pinned_host")',
        )
    return {"checkpoint": value["every"], "memory_kind": value["memory_kind"]}


def _memory_kind(value: Any) -> str | None:
    kinds = [memory.kind for memory in jax.local_devices()[0].addressable_memories()]
    if value is None or value in kinds:
        return value
    raise ScanValueError(
        "checkpoint: memory_kind",
        needed=f"None or a memory of this backend, {', '.join(map(repr, kinds))}",
        came=repr(value),
        fix="write memory_kind=None, and what is saved stays where it is",
    )


def _row_every(value: Any) -> int:
    needed = "an integer of at least 1"
    fix = "use scan(..., checkpoint=...) for other ways to save"
    if value is None or isinstance(value, str):
        raise ScanValueError("save_every_N", needed=needed, came=repr(value), fix=fix)
    return at_least(1, value, "save_every_N", needed=needed, fix=fix)


def _profile(value: Any) -> bool | str:
    if isinstance(value, bool | str):
        return value
    needed = "True, False or a label"
    raise _wrong_type("profile", needed, value, "write profile=True")


def _progress(value: Any) -> tuple[tuple[str, Any], ...] | None:
    if value is None or value is False:
        return None
    if value is True:
        return ()
    if isinstance(value, str):
        return (("desc", value),)
    if isinstance(value, dict):
        _check_bar(value)
        return tuple(value.items())
    needed = "True, a label, or a dict of options of tqdm"
    raise _wrong_type("progress", needed, value, "write progress=True")


def _check_bar(settings: dict[str, Any]) -> None:
    """Options that `tqdm` knows, and that do not say what the loop says itself."""
    known = _bar_options()
    unknown = [key for key in settings if known and key not in known]
    if unknown:
        raise ScanValueError(
            "progress",
            needed="options of a bar of tqdm: " + ", ".join(known),
            came=", ".join(map(repr, unknown)),
            fix="spell it as tqdm does; the loop itself sets the total",
        )
    if settings.get("miniters") is not None:
        at_least(
            0,
            settings["miniters"],
            "progress: miniters",
            needed="a number of steps",
            fix="leave miniters out and jscan chooses",
        )
    try:
        hash(tuple(settings.items()))
    except TypeError as error:
        raise ScanTypeError(
            "progress",
            needed="options that are hashable",
            came=str(error),
            fix="write the postfix as text",
        ) from None


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


def _wrong_type(place: str, needed: str, value: Any, fix: str) -> ScanTypeError:
    return ScanTypeError(place, needed=needed, came=shown(value), fix=fix)


_CHECKS: dict[str, Callable[[Any], Any]] = {
    "name": _name,
    "mode": check_mode,
    "truncate_gradient": _truncation,
    "go_backwards": bool,
    "strict": bool,
    "return_list": lambda value: value is True,
    "profile": _profile,
    "unroll": _unroll,
    "checkpoint": _checkpoint,
    "memory_kind": _memory_kind,
    "progress": _progress,
    "last_only": bool,
    "row_every": _row_every,
}
