"""What a caller may choose, and what the passes are told about their surroundings."""

from dataclasses import dataclass
from typing import Any

from jscan._base.errors import ScanTypeError, ScanValueError, Subject, explain_error
from jscan._optimizer.costs.budget import DEFAULT_BUDGET

_SUBJECT = Subject("jscan.optimize")

PASS_NAMES = (
    *("merge", "save_memory", "hoist", "accumulate", "vectorise", "sink"),
    *("small_dots", "unroll", "associate"),
)
"""The names of the passes, in the order in which they first run."""

OPT_IN = frozenset({"associate"})
"""Passes that run only when asked for by name, because they change rounding more."""


@dataclass(frozen=True)
class Options:
    """The caller's choices.

    Attributes:
        passes: Names of the passes to run.
        memory_budget: Bytes that one rewrite of one loop may add.
        unasked: Nobody asked for a rewrite, so that one is made only for devices on
            which its gains were measured.
    """

    passes: frozenset[str] = frozenset(PASS_NAMES) - OPT_IN
    memory_budget: int = DEFAULT_BUDGET
    unasked: bool = False


DEFAULT = frozenset(PASS_NAMES) - OPT_IN
"""What `"default"` stands for: all passes that keep rounding close."""


def make_options(passes: Any = None, memory_budget: int | None = None) -> Options:
    """Check and complete the arguments of `optimize`.

    Args:
        passes: `None` for the default, or names: a collection, or one string with a
            plus between them; `"default"` is short for all that keep rounding close.
        memory_budget: Bytes; `None` for 32 MiB.

    Raises:
        ScanValueError: A name that is not one of the passes, or a negative budget.
        ScanTypeError: `passes` is no collection of names, or the budget no number.
    """
    asked = passes.split("+") if isinstance(passes, str) else passes
    try:
        names = DEFAULT if asked is None else frozenset(asked)
    except TypeError:
        raise ScanTypeError(
            explain_error(
                _SUBJECT,
                "passes",
                needed="names of passes",
                came=f"{passes!r:.60}",
                fix='write passes=["hoist", "merge"] or passes="default+associate"',
            )
        ) from None
    if "default" in names:
        names = names - {"default"} | DEFAULT
    unknown = sorted(map(str, names - set(PASS_NAMES)))
    if unknown:
        raise ScanValueError(
            explain_error(
                _SUBJECT,
                "passes",
                needed=f"names among {', '.join(PASS_NAMES)} and default",
                came=f"unknown passes {', '.join(unknown)}",
                fix="leave passes out for all that keep rounding close",
            )
        )
    try:
        budget = DEFAULT_BUDGET if memory_budget is None else int(memory_budget)
    except (TypeError, ValueError):
        raise ScanTypeError(_bad_budget(memory_budget)) from None
    if budget < 0:
        raise ScanValueError(_bad_budget(budget))
    return Options(names, budget)


def _bad_budget(budget: Any) -> str:
    return explain_error(
        _SUBJECT,
        "memory_budget",
        needed="0 or more bytes",
        came=repr(budget),
        fix="leave memory_budget out for 32 MiB",
    )
