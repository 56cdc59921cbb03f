"""One rewrite of one program: what its parts share, and what the report will say."""

from dataclasses import dataclass, field, replace
from typing import Any

from jscan._optimizer.record.context import Context
from jscan._optimizer.record.loop import Loop
from jscan._optimizer.record.names import STRETCHES
from jscan._optimizer.record.notes import Note
from jscan._optimizer.switches import failure


@dataclass
class Session:
    """One rewrite of one program: what every part of the walk shares."""

    context: Context
    records: dict[int, tuple[Any, Loop, Loop]] = field(default_factory=dict)

    def where(self, *, is_split: bool) -> "Session":
        """The same rewrite, of a part that runs on more or fewer devices."""
        return replace(self, context=replace(self.context, is_split=is_split))

    def record(self, equation: Any, before: Loop, after: Loop) -> None:
        """Remember a loop for the report; one traced twice counts once."""
        if before.scope.split("/")[-1] == STRETCHES:
            return  # it cuts another loop in stretches, for a bar
        scope = "/".join(filter(None, (*self.context.scopes, before.scope)))
        before = replace(before.without_values(), scope=scope)
        self.records[id(equation)] = (equation, before, after.without_values())

    def failed(self, equation: Any, loop: Loop, error: Exception) -> None:
        """Say in the report that a loop runs as it was."""
        record = loop.refused(failure(error)).signed("pipeline")
        self.record(equation, record, record)

    def noted(self, equation: Any, note: Note) -> None:
        """Tell the report more of the loop that was written as this equation."""
        scope = str(equation.source_info.name_stack)
        for key, (old, before, after) in reversed(self.records.items()):
            # A loop that another one runs has nothing left.
            alike = (before.scope, after.length) == (scope, equation.params["length"])
            if alike and after.results:
                self.records[key] = old, before, after.noted(note)
                return
