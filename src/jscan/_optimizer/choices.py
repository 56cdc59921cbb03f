"""The arguments of `optimize` and `explain`, checked."""

from typing import Any

from jscan._base.errors import ScanTypeError, ScanValueError, Subject
from jscan._optimizer.costs.budget import DEFAULT_BUDGET
from jscan._optimizer.options import Options
from jscan._optimizer.rules import DEFAULT, PASS_NAMES, RULE_NAMES

_SUBJECT = Subject("jscan.optimize")


def make_options(passes: Any = None, memory_budget: int | None = None) -> Options:
    """Check and complete the arguments of `optimize`.

    Args:
        passes: `None` for the default, or names of families or of single rules: a
            collection, or one string with a plus between them; `"default"` is short
            for all that keep rounding close.
        memory_budget: Bytes; `None` for 32 MiB.

    Raises:
        ScanValueError: A name that no rule bears, or a negative budget.
        ScanTypeError: `passes` is no collection of names, or the budget no number.
    """
    return Options(_names(passes), _budget(memory_budget))


def _names(passes: Any) -> frozenset[str] | None:
    asked = passes.split("+") if isinstance(passes, str) else passes
    try:
        names = None if asked is None else frozenset(asked)
    except TypeError:
        raise ScanTypeError(
            "passes",
            needed="names of passes",
            came=f"{passes!r:.60}",
            fix='write passes=["hoist", "merge"] or passes="default+associate"',
            owner=_SUBJECT,
        ) from None
    if names is not None and "default" in names:
        names = names - {"default"} | DEFAULT
    unknown = sorted(map(str, (names or DEFAULT) - {*PASS_NAMES, *RULE_NAMES}))
    if unknown:
        raise ScanValueError(
            "passes",
            needed=f"names among {', '.join(PASS_NAMES)} and default",
            came=f"unknown passes {', '.join(unknown)}",
            fix="leave passes out for all that keep rounding close",
            owner=_SUBJECT,
        )
    return names


def _budget(memory_budget: Any) -> int:
    try:
        budget = DEFAULT_BUDGET if memory_budget is None else int(memory_budget)
    except (TypeError, ValueError):
        budget = None
    if budget is None or budget < 0:
        error = ScanTypeError if budget is None else ScanValueError
        raise error(
            "memory_budget",
            needed="0 or more bytes",
            came=repr(memory_budget),
            fix="leave memory_budget out for 32 MiB",
            owner=_SUBJECT,
        )
    return budget
