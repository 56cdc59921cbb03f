"""Find the fastest form of a loop, within a budget."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from jscan._jax.jaxprs import avals_of
from jscan._optimizer.planning.alone import Alone, least_seconds, refusal
from jscan._optimizer.planning.forms import ESTIMATE, FIRST, WRITTEN, Form
from jscan._optimizer.planning.timing import (
    Budget,
    apart,
    compiled,
    operands_for,
    race,
)
from jscan._optimizer.planning.wisdom import key_of, recall, remember
from jscan._optimizer.record.context import Context
from jscan._optimizer.record.verdict import Verdict

# Of the time of what the estimate chose, and seconds less: then another form is kept.
_CLEARLY, _CLOCK = 0.97, 1e-6


@dataclass(frozen=True)
class Written:
    """A loop, written in a form: a closed program, and the rules that changed it."""

    form: Form
    program: Any
    fired: list[str] = field(default_factory=list)


def plan(
    part: Alone, context: Context, budget: Budget, write: Callable[[Form], Written]
) -> Verdict:
    """Which form of a loop is fastest here; `write` writes it in one."""
    why = refusal(part, context.platform, is_split=context.is_split)
    if why is not None:
        return Verdict(why=why)
    key = key_of(part.program, context)
    known = recall(key, budget.seconds)
    if known is not None:
        return known
    if budget.is_over or least_seconds(part) > budget.left / 4:
        return Verdict(why=f"it might take more than the {budget.seconds:g} s allowed")
    with budget.taking():
        search = _Search(part, write, Budget(budget.left))
        search.run()
    stopped = budget.seconds if search.budget.is_over else None
    found = Verdict(search.best(), search.times, stopped=stopped)
    remember(key, found)
    return found


class _Search:
    """The forms of one loop that were tried so far."""

    def __init__(
        self, part: Alone, write: Callable[[Form], Written], budget: Budget
    ) -> None:
        self.write, self.budget = write, budget
        with apart():
            self.operands = operands_for(avals_of(part.inputs))
        self.texts: set[str] = set()
        self.forms: dict[str, Written] = {}
        self.programs: dict[str, Any] = {}
        self.times: dict[str, float] = {}

    def run(self) -> None:
        """Try forms until none is better, or the budget is spent."""
        self._try(FIRST)
        best = None
        while best != (best := self.best()) and not self.budget.is_over:
            form = self.forms[best]
            self._try(form.form.fewer(form.fired))

    def best(self) -> str:
        """The fastest form; the estimate's unless another one is clearly faster."""
        fastest = min(self.times, key=self.times.__getitem__)
        clearly = self.times[fastest] < _CLEARLY * self.times[ESTIMATE.name] - _CLOCK
        return fastest if clearly else ESTIMATE.name

    def _try(self, forms: Iterable[Form]) -> None:
        """Time new forms, beside the loop as it is and the best so far."""
        fresh = []
        for form in forms:
            # As written and as estimated are what all else is compared with.
            if self.budget.is_over and form not in (WRITTEN, ESTIMATE):
                break
            with self.budget.taking():
                fresh += self._enter(form)
        if not fresh:
            return
        beside = [WRITTEN.name, self.best()] if self.times else []
        programs = {name: self.programs[name] for name in (*beside, *fresh)}
        with self.budget.taking(), apart():
            self.times |= race(programs, self.operands, self.budget.left / 2)
        self.times.setdefault(ESTIMATE.name, self.times[WRITTEN.name])

    def _enter(self, form: Form) -> list[str]:
        """Compile a form, unless another one gives the same program."""
        written = self.write(form)
        self.forms[form.name] = written
        text = str(written.program)
        if text in self.texts:
            return []
        self.texts.add(text)
        self.programs[form.name] = compiled(written.program)
        return [form.name]
