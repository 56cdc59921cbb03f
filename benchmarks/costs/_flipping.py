"""Loops of a program with each decision of the optimizer turned around, one at a time.

A loop is cut out of its program and written again by the optimizer itself, as plans by
measuring do: once by the shipped costs, and then with one rule that changed it switched
off, or with one that refused asked as if it were clearly worth it. Who writes the same
program either way met no decision.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from unittest import mock

import jax

from jscan._jax.jaxprs import avals_of, open_jaxpr
from jscan._optimizer import pipeline, rules
from jscan._optimizer.analysis.size import measure
from jscan._optimizer.costs.batches import BatchCosts
from jscan._optimizer.costs.leanings import leaning
from jscan._optimizer.costs.machine import Machine
from jscan._optimizer.options import Options
from jscan._optimizer.planning.alone import refusal
from jscan._optimizer.planning.forms import ESTIMATE
from jscan._optimizer.planning.timing import Budget
from jscan._optimizer.program import walk
from jscan._optimizer.program.planned import Planned
from jscan._optimizer.program.session import Record, Session
from jscan._optimizer.record import context as contexts
from jscan._optimizer.record.context import Context
from jscan._optimizer.record.rule import Rule
from jscan._optimizer.record.verdict import ESTIMATED, Verdict

EAGER_RULE = "eager, as one rule is asked"
_HUGE = 10**15
_WEIGHED = re.compile(r"it saves ([\d.]+) us, a batch costs (\d+) us")
# They weigh nothing unless their costs say so; asked eagerly, others do the same.
_WEIGHING = (
    *("merge.siblings", "vectorise", "sink", "unroll"),
    *("hoist.split_products", "hoist.cut_rows", "hoist.sequences", "hoist.whole_rows"),
    *("accumulate.sums_out", "accumulate.linear"),
    *("small_dots.from_sums", "small_dots.lags", "small_dots.transposed"),
    *("small_dots.joined", "small_dots.tiny"),
)


@dataclass(frozen=True)
class Flip:
    """A decision, and the program in which it is the other one.

    Attributes:
        rule: Who decides; `"... (more)"` if it has changed the loop and could do more.
        fired: Whether it changed the loop.
        program: The loop with this decision turned around, a closed program.
        saves: Microseconds that the rule took the work to save; `None` if it did not
            weigh any.
        costs: What it held against that.
    """

    rule: str
    fired: bool
    program: Any
    saves: float | None = None
    costs: float | None = None


@dataclass(frozen=True)
class Met:
    """A loop that was met, or a whole program.

    Attributes:
        program: As the shipped costs have it written, a closed program.
        flips: Its decisions, turned around.
        features: What may tell which of both is faster.
    """

    program: Any
    flips: list[Flip]
    features: dict[str, int]

    @property
    def inputs(self) -> list[Any]:
        """The types of what it takes."""
        return avals_of(open_jaxpr(self.program)[0].invars)


def met(function: Callable[..., Any], arguments: Any) -> list[Met]:
    """The loops of a function whose decisions can be turned around, and it whole."""
    traced = jax.make_jaxpr(function)(*arguments)
    platform, found = jax.default_backend(), []

    class Logged(Planned):
        """Instead of being measured here, loops are written down."""

        def verdict(self) -> Verdict:
            if refusal(self.part, platform, is_split=False) is None:
                found.append(_loop(self))
            return Verdict(ESTIMATED, times={ESTIMATED: 1.0})  # no look at inner ones

    context = Context(Options(plan="measure"), platform)
    with mock.patch.object(walk, "Planned", Logged):
        walk.rewritten(Session(context, budget=Budget(1e9)), traced)
    found = [one for one in found if one.flips]
    return found + _whole(traced, platform)


def eager(machine: Machine) -> Machine:
    """Costs by which a rule does whatever it can do on this kind of device at all."""
    new = leaning(machine, "eager")
    switched = {name: min(4, getattr(new, name)) for name in ("cut_rows", "whole_rows")}
    least = dict(smallest_outer_product=1, smallest_side=2 * new.smallest_side)
    new = replace(new, **switched, **least)
    unrolling = new.unrolling
    if unrolling is not None and hasattr(unrolling, "arrays"):
        most = ("numbers", "rows", "arrays", "many_arrays")
        wide = {name: 4 * getattr(unrolling, name) for name in most}
        new = replace(new, unrolling=replace(unrolling, shortest=2, **wide))
    return new


def _loop(planned: Planned) -> Met:
    asked = _Asked()
    with _watched(asked):
        written, session = planned.write(ESTIMATE)
    texts = {str(written.program)}
    notes = [note for r in session.records.values() for note in r.after.notes]
    fired = dict.fromkeys(note.rule for note in notes if note.fired)
    flips = []

    def add(rule: str, program: Any, has_fired: bool) -> None:
        text = str(program)
        if text not in texts:
            texts.add(text)
            weighed = asked.of.get(rule, (None, None))
            name = rule if has_fired or rule not in fired else f"{rule} (more)"
            flips.append(Flip(name, has_fired, program, *weighed))

    for rule in fired:
        form = replace(ESTIMATE, without=(rule,))
        add(rule, planned.write(form)[0].program, True)
    for rule in _WEIGHING:
        with _watched(_Asked(), rule):
            add(rule, planned.write(ESTIMATE)[0].program, False)
    return Met(written.program, flips, _features(list(session.records.values())))


def _whole(traced: Any, platform: str) -> list[Met]:
    """The program, with rules turned around that look at all of it."""

    def written(*without: str) -> tuple[Any, Session]:
        options = replace(ESTIMATE, without=without).options(Options())
        session = Session(Context(options, platform))
        return walk.rewritten(session, traced), session

    program, session = written()
    records = list(session.records.values())
    notes = [note for r in records for note in r.after.notes if note.fired]
    flips = []
    for rule in dict.fromkeys(note.rule for note in notes):
        if rule in {one.name for one in rules.PROGRAM_RULES} - {"merge.siblings"}:
            other = written(rule)[0]
            if str(other) != str(program):
                flips.append(Flip(rule, True, other))
    return [Met(program, flips, _features(records))] if flips else []


def _features(records: list[Record]) -> dict[str, int]:
    """Of a step of the outermost loops; of what they do together."""
    depth = min(len(record.around) for record in records)
    loops = [record.before for record in records if len(record.around) == depth]
    elements = lambda variables: sum(v.aval.size for v in variables)
    sizes, steps = list(map(measure, loops)), max(loop.length for loop in loops)
    states = [c.variable for loop in loops for c in loop.carries]
    rows = [v for loop in loops for v in (*loop.sequences, *loop.stacked())]
    return {
        "steps": steps,
        "state": elements(states),
        "row": elements(rows),
        "constants": elements(v for loop in loops for v in loop.constants),
        "operations": sum(size.operations for size in sizes),
        "flops": sum(size.flops for size in sizes) // steps,
        "bytes": sum(size.moved_bytes for size in sizes) // steps,
    }


@dataclass
class _Asked:
    """What rules asked the costs: for each the question with the most to save."""

    rule: str = ""
    of: dict[str, tuple[float, float]] = field(default_factory=dict)

    def note(self, text: str | None) -> None:
        found = _WEIGHED.search(text or "")
        if found:
            saves, costs = float(found[1]), float(found[2]) - _HUGE / 1000
            before = self.of.get(self.rule, (-1.0, 0.0))
            self.of[self.rule] = max(before, (saves, costs))


@contextmanager
def _watched(asked: _Asked, eagerly: str = "") -> Iterator[None]:
    """While rules say what they weigh, and one of them is asked eagerly."""
    ask = BatchCosts.keeps_in_loop

    def keeps_in_loop(self: Any, equations: Any, *given: Any, **how: Any) -> Any:
        equations = list(equations)
        if self.batch_start:
            dear = replace(self, batch_start=self.batch_start + _HUGE)
            asked.note(ask(dear, equations, *given, **how))
        return ask(self, equations, *given, **how)

    def lean(machine: Machine, which: str) -> Machine:
        return eager(machine) if which == EAGER_RULE else leaning(machine, which)

    def named(rule: Rule) -> Rule:
        def run(subject: Any, context: Context) -> Any:
            asked.rule = rule.name
            if rule.name == eagerly:
                context = replace(context, leaning=EAGER_RULE)
            return rule.run(subject, context)

        return replace(rule, run=run)

    with ExitStack() as patched:
        for where, name, new in (
            (BatchCosts, "keeps_in_loop", keeps_in_loop),
            (contexts, "leaning", lean),
            (pipeline, "LOOP_RULES", tuple(map(named, rules.LOOP_RULES))),
            (walk, "PROGRAM_RULES", tuple(map(named, rules.PROGRAM_RULES))),
        ):
            patched.enter_context(mock.patch.object(where, name, new))
        yield
