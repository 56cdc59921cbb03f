"""What a public function does with an error: a short traceback, words for a wrong call.

An error that the user can mend shows the user's lines: the call, and what of the user's
own code was running. JAX hides its frames in the same way; and as there,
``JAX_TRACEBACK_FILTERING=off`` shows all of them.
"""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType, TracebackType
from typing import Any, TypeVar

import jax

from jscan._base.errors import ScanError, ScanTypeError, Subject, is_jax, is_ours
from jscan._base.kinds import counted

Verb = TypeVar("Verb", bound=Callable[..., Any])

_NO_SLIPS: Mapping[str, str] = MappingProxyType({})
_NOTE = "This happened in "


def verb(fix: str, slips: Mapping[str, str] = _NO_SLIPS) -> Callable[[Verb], Verb]:
    """Makes a function one whose errors are short, calls that do not fit among them.

    Args:
        fix: What to do about arguments that do not fit.
        slips: The same for names of arguments that other libraries use.
    """

    def mark(fn: Verb) -> Verb:
        name = Subject(f"jscan.{fn.__qualname__}".removesuffix(".__init__"))

        @shortened
        @functools.wraps(fn)
        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                return fn(*args, **kwargs)
            except TypeError as error:
                if not is_of_the_call(error):
                    raise
                raise _wrong_call(fn, kwargs, error, name, fix, slips) from None

        return call  # type: ignore[return-value]

    return mark


def shortened(fn: Verb) -> Verb:
    """Wraps a function so that its errors are short, see `shorten`."""

    @functools.wraps(fn)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return fn(*args, **kwargs)
        except Exception as error:
            shorten(error)
            raise

    return call  # type: ignore[return-value]


def shorten(error: Exception) -> None:
    """Take our own frames out of the traceback of an error that the user can mend."""
    if jax.config.jax_traceback_filtering == "off":  # type: ignore[attr-defined]
        return
    entries, entry = [], error.__traceback__
    while entry is not None:
        entries.append((entry, entry.tb_frame.f_globals.get("__name__", "")))
        entry = entry.tb_next
    if not _can_be_mended(error, [module for _, module in entries]):
        return
    kept: TracebackType | None = None
    for entry, module in reversed(entries):
        if not is_ours(module):
            where = entry.tb_frame, entry.tb_lasti, entry.tb_lineno
            kept = TracebackType(kept, *where)
    error.__traceback__ = kept
    if isinstance(error, ScanError) and hasattr(error, "__notes__"):
        # JAX tells that it has hidden frames; here none are left to be looked for.
        error.__notes__[:] = [n for n in error.__notes__ if "JAX_TRACEBACK" not in n]


def add_place(error: Exception, place: str, fix: str | None) -> None:
    """Note where the user's own code failed, and at the innermost place the fix."""
    text = f"{_NOTE}{place}."
    error.add_note(text if fix is None or _has_place(error) else f"{text}\nFix: {fix}.")


def _has_place(error: Exception) -> bool:
    return any(note.startswith(_NOTE) for note in getattr(error, "__notes__", ()))


def _can_be_mended(error: Exception, modules: Sequence[str]) -> bool:
    """Whether it is no failure of jscan's own, whose frames tell where it lies."""
    if isinstance(error, ScanError) or _has_place(error):
        return True
    innermost = next((m for m in reversed(modules) if not is_jax(m)), "")
    return not is_ours(innermost)


def is_of_the_call(error: TypeError) -> bool:
    """Whether Python refused the arguments, so that the function was never entered."""
    return error.__traceback__ is not None and error.__traceback__.tb_next is None


def _wrong_call(
    fn: Callable[..., Any],
    kwargs: Mapping[str, Any],
    error: TypeError,
    owner: Subject,
    fix: str,
    slips: Mapping[str, str],
) -> ScanTypeError:
    known = inspect.signature(fn).parameters
    unknown = [name for name in kwargs if name not in known]
    if not unknown:
        names = [name for name in known if name != "self"]
        of_self = len(known) > len(names)
        return ScanTypeError(
            "a call",
            needed=f"{owner.removeprefix('jscan.')}({', '.join(names)})",
            came=came(str(error), of_self),
            fix=fix,
            owner=owner,
        )
    fixes = [slips.get(name) or _spelling(name, known) or fix for name in unknown]
    return ScanTypeError(
        "a call",
        needed="arguments that it has",
        came=", ".join(f"{name}=" for name in unknown),
        fix="; ".join(dict.fromkeys(fixes)),
        owner=owner,
    )


def _spelling(name: str, known: Mapping[str, Any]) -> str | None:
    close = difflib.get_close_matches(name, known, 1, 0.7)
    return f"write {close[0]}= for {name}=" if close else None


def came(text: str, of_self: bool = False) -> str:
    """What Python says of a call, as a part of our text; a `self` is not counted."""
    _, _, text = text.partition("() ")
    if text.startswith("takes"):  # 1 positional argument but 2 were given
        count = int(text.partition(" but ")[2].split()[0]) - of_self
        return counted(count, "positional argument")
    return f"one {text}".replace("one got", "one with")
