"""One rewrite of one program: what its parts share, and what the report will say."""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from jscan._optimizer.options import Options
from jscan._optimizer.planning.timing import Budget
from jscan._optimizer.record.context import Context
from jscan._optimizer.record.loop import Loop
from jscan._optimizer.record.names import STRETCHES
from jscan._optimizer.record.notes import Note
from jscan._optimizer.record.verdict import Verdict
from jscan._optimizer.switches import failure


@dataclass(frozen=True)
class Record:
    """One loop: its equation, before and after, and what is around it.

    `around` holds the equations of loops, from the outermost, while a program is
    rewritten; in `Session.tree` their records.
    """

    equation: Any
    before: Loop
    after: Loop
    around: tuple[Any, ...]
    verdict: Verdict | None = None


@dataclass
class Session:
    """One rewrite of one program: what every part of the walk shares."""

    context: Context
    records: dict[int, Record] = field(default_factory=dict)
    around: list[Any] = field(default_factory=list)  # loops that are being rewritten
    budget: Budget = field(default_factory=Budget)

    def where(self, **surroundings: bool) -> "Session":
        """The same rewrite, of a part about which its context says something else."""
        return replace(self, context=replace(self.context, **surroundings))

    @property
    def is_inside(self) -> bool:
        """Whether the steps of a loop are rewritten."""
        return bool(self.around)

    @contextmanager
    def inside(self, equation: Any) -> Iterator[None]:
        """While the steps of a loop are rewritten."""
        self.around.append(equation)
        try:
            yield
        finally:
            self.around.pop()

    def leaning(self, leaning: str, options: Options) -> "Session":
        """A rewrite of a part of the program by other choices, to be tried."""
        context = replace(self.context, options=options, leaning=leaning)
        return replace(self, context=context, records={}, around=[*self.around])

    def settled(self) -> "Session":
        """The same rewrite, of a part in which nothing more is measured."""
        options = replace(self.context.options, plan="estimate")
        return replace(self, context=replace(self.context, options=options))

    def take(self, tried: "Session", verdict: Verdict) -> None:
        """What was tried is what runs, for the reason of a verdict."""
        for key, record in tried.records.items():
            outermost = len(record.around) == len(self.around)
            new = replace(record, verdict=verdict) if outermost else record
            self.records[key] = new

    def judge(self, equation: Any, verdict: Verdict) -> None:
        """Why a loop runs as it does."""
        record = self.records.get(id(equation))
        if record is not None:
            self.records[id(equation)] = replace(record, verdict=verdict)

    def record(self, equation: Any, before: Loop, after: Loop) -> None:
        """Remember a loop for the report; one traced twice counts once."""
        if before.scope.split("/")[-1] == STRETCHES:
            return  # it cuts another loop in stretches, for a bar
        scope = "/".join(filter(None, (*self.context.scopes, before.scope)))
        before = replace(before.without_values(), scope=scope)
        record = Record(equation, before, after.without_values(), (*self.around,))
        self.records[id(equation)] = record

    def tree(self) -> list[Record]:
        """The loops as they run, each before those inside it."""
        inside: defaultdict[int | None, list[Record]] = defaultdict(list)
        for record in self.records.values():
            outer = [id(e) for e in record.around if id(e) in self.records]
            inside[outer[-1] if outer else None].append(record)

        def below(key: int | None, around: tuple[Record, ...]) -> Iterator[Record]:
            for record in inside[key]:
                record = replace(record, around=around)
                yield record
                yield from below(id(record.equation), (*around, record))

        return list(below(None, ()))

    def failed(self, equation: Any, loop: Loop, error: Exception) -> None:
        """Say in the report that a loop runs as it was."""
        record = loop.refused(failure(error)).signed("pipeline")
        self.record(equation, record, record)

    def noted(self, equation: Any, note: Note) -> None:
        """Tell the report more of the loop that was written as this equation."""
        scope = str(equation.source_info.name_stack)
        for key, old in reversed(self.records.items()):
            after, wanted = old.after, (scope, equation.params["length"])
            # A loop that another one runs has nothing left.
            if (old.before.scope, after.length) == wanted and after.results:
                self.records[key] = replace(old, after=after.noted(note))
                return
