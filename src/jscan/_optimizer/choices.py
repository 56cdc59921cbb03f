"""The arguments of `optimize` and `explain`, checked."""

import os
from dataclasses import replace
from typing import Any

from jscan._base.errors import ScanTypeError, ScanValueError, Subject
from jscan._base.kinds import shown
from jscan._optimizer.costs.budget import DEFAULT_BUDGET
from jscan._optimizer.costs.tables import choose
from jscan._optimizer.options import DEFAULT_PLAN_MS, Options
from jscan._optimizer.rules import DEFAULT, PASS_NAMES, RULE_NAMES

_SUBJECT = Subject("jscan.optimize")


def make_options(
    passes: Any = None,
    memory_budget: int | None = None,
    plan: Any = None,
    plan_seconds: Any = None,
    machine: Any = None,
) -> Options:
    """Check and complete the arguments of `optimize`.

    Args:
        passes: `None` for the default, or names of families or of single rules: a
            collection, or one string with a plus between them; `"default"` is short
            for all that keep rounding close.
        memory_budget: Bytes; `None` for 32 MiB.
        plan: `"estimate"` or `"measure"`; `None` for what `JSCAN_PLAN` says.
        plan_seconds: Seconds; `None` for 10.
        machine: A file, or `"calibrated"`; `None` for what `JSCAN_MACHINE` says.

    Raises:
        ScanValueError: A name that no rule, plan or file bears, or a negative budget.
        ScanTypeError: `passes` is no collection of names, the budget no number, or
            `machine` no path.
    """
    options = Options(_names(passes), _budget(memory_budget))
    return chosen(options, plan, plan_seconds, machine)


def chosen(
    options: Options, plan: Any = None, seconds: Any = None, machine: Any = None
) -> Options:
    """The choices with a plan and a table: of the caller, or else of the environment.

    Raises:
        ScanValueError: No plan of that name, less than no seconds, or no such file.
        ScanTypeError: A table that is no file.
    """
    options = replace(options, machine=choose(machine))
    place = "plan" if plan is not None else "the variable JSCAN_PLAN"
    plan = (os.environ.get("JSCAN_PLAN") or "estimate") if plan is None else plan
    if plan not in ("estimate", "measure"):
        raise ScanValueError(
            place,
            needed="'estimate' or 'measure'",
            came=shown(plan),
            fix="leave it out for the estimate, which takes no time",
            owner=_SUBJECT,
        )
    milliseconds = DEFAULT_PLAN_MS if seconds is None else _milliseconds(seconds)
    if plan == "estimate":
        return options
    return replace(options, plan=plan, plan_ms=milliseconds)


def _milliseconds(seconds: Any) -> int:
    try:
        milliseconds = round(1000 * float(seconds))
    except (TypeError, ValueError, OverflowError):
        milliseconds = -1
    if milliseconds < 0:
        raise ScanValueError(
            "plan_seconds",
            needed="0 or more seconds",
            came=shown(seconds),
            fix=f"leave it out for {DEFAULT_PLAN_MS // 1000} s",
            owner=_SUBJECT,
        )
    return milliseconds


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
    except (TypeError, ValueError, OverflowError):
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
