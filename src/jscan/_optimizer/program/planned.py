"""Loops of a program under `plan="measure"`: each in the form that was fastest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from jscan._jax.jaxprs import run_jaxpr
from jscan._optimizer.analysis.index import Flat
from jscan._optimizer.planning.alone import Alone, alone
from jscan._optimizer.planning.forms import WRITTEN, Form
from jscan._optimizer.planning.planner import Written, plan
from jscan._optimizer.program.session import Session
from jscan._optimizer.record.verdict import Verdict
from jscan._optimizer.switches import attempt, failure

Rewrite = Callable[[Session, Any], Any]
"""The walk through a program."""


class Planned:
    """Loops that run as one, cut out of their program to be measured."""

    def __init__(
        self, session: Session, flat: Flat, group: Sequence[Any], rewrite: Rewrite
    ) -> None:
        self.part: Alone = alone(flat, group)
        self.session, self.rewrite = session, rewrite

    def verdict(self) -> Verdict:
        """Which form is fastest; the estimate's where that cannot be told."""
        context, budget = self.session.context, self.session.budget
        return attempt(
            lambda: plan(self.part, context, budget, lambda form: self.write(form)[0]),
            lambda error: Verdict(why=f"measuring {failure(error)}"),
        )

    def write(self, form: Form) -> tuple[Written, Session]:
        """The loops in a form, and what the report will say of it."""
        options = form.options(self.session.context.options)
        session = self.session.leaning(form.leaning, options)
        if form == WRITTEN:
            return Written(form, self.part.program), session
        program = self.rewrite(session, self.part.program)
        notes = [n for r in session.records.values() for n in r.after.notes if n.fired]
        return Written(form, program, [note.rule for note in notes]), session

    def run(self, verdict: Verdict, operands: Sequence[Any]) -> dict[Any, Any]:
        """The values that the form of a verdict computes."""
        written, session = self.write(Form.named(verdict.form))
        values = run_jaxpr(written.program, *operands)
        self.session.take(session, verdict)
        return dict(zip(self.part.outputs, values, strict=True))
