"""Run rules, in order, each one guarded."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterable
from typing import Any, TypeVar

import jax

from jscan._base.kinds import counted
from jscan._optimizer.analysis.index import Flat
from jscan._optimizer.costs.machine import EXCHANGED
from jscan._optimizer.costs.machines import is_measured
from jscan._optimizer.options import Options
from jscan._optimizer.record.cleanup import drop_unused
from jscan._optimizer.record.context import Context
from jscan._optimizer.record.loop import Loop
from jscan._optimizer.record.rule import Rule
from jscan._optimizer.record.verifying import verify
from jscan._optimizer.rules import DERIVATIVE_RULES, LOOP_RULES
from jscan._optimizer.switches import attempt, debugging, enabled, failure

# What rules change: the record of a loop, or the list of a whole program.
Subject = TypeVar("Subject", Loop, Flat)


def run_rules(rules: Iterable[Rule], subject: Subject, context: Context) -> Subject:
    """Run the rules that are asked for, in order.

    A rule that fails is skipped: what it was to change stays as it was, and a note says
    so. With `JSCAN_DEBUG=1` the error is raised, and every record is verified. What
    nobody reads any more behind a rule is dropped from the record.
    """
    for rule in rules:
        subject = _guarded(rule, subject, context)
    return subject


def run_loop_rules(loop: Loop, context: Context) -> Loop:
    """Run all rules for a loop."""
    if loop.length < 2:
        text = f"a loop of {counted(loop.length, 'step')} is left alone"
        return loop.refused(text).signed("pipeline")
    return run_rules(LOOP_RULES, loop, context)


def storing_less(closed_jaxpr: Any, options: Options) -> Any:
    """A program whose loops will store less for a derivative, if one is taken."""
    if not enabled() or (options.unasked and not is_measured(jax.default_backend())):
        return closed_jaxpr
    runs = filter(None, (rule.chosen(options) for rule in DERIVATIVE_RULES))
    return attempt(
        lambda: functools.reduce(lambda program, run: run(program), runs, closed_jaxpr),
        lambda _: closed_jaxpr,
    )


def _guarded(rule: Rule, subject: Subject, context: Context) -> Subject:
    run = rule.chosen(context.options)
    if run is None:
        return subject
    start = time.perf_counter()
    new: Any = attempt(
        lambda: _tidied(run(subject, context), subject),
        lambda error: subject.refused(failure(error)),
    )
    context.seconds[rule.name] += time.perf_counter() - start
    if isinstance(subject, Loop) and rule.mixes and context.is_split:
        # The loop as it was, which says what was not done to it.
        texts = [note.text for note in new.notes[len(subject.notes) :]]
        new = subject
        for text in texts:
            new = new.refused(f"{EXCHANGED}: {text}")
    new = new.signed(rule.name)
    if isinstance(subject, Loop) and debugging():
        verify(new, rule.name)
    return new


def _tidied(new: Any, old: Any) -> Any:
    """What a rule made of a loop, without what nobody reads any more."""
    if not isinstance(new, Loop):
        return new
    parts = "carries", "equations", "after", "results"
    changed = any(getattr(new, part) is not getattr(old, part) for part in parts)
    return drop_unused(new) if changed else new
