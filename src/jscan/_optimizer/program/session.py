"""One rewrite of one program: what its parts share, and its report."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import jax

from jscan._jax.equations import with_body, with_type_of, without_dead_code
from jscan._jax.jaxprs import (
    NotUnderstoodError,
    avals_of,
    holds_wide,
    open_jaxpr,
    trace,
)
from jscan._jax.scans import is_scan
from jscan._optimizer.analysis.index import flattened
from jscan._optimizer.pipeline import run_rules
from jscan._optimizer.program.walk import Walk
from jscan._optimizer.record.context import Context
from jscan._optimizer.record.loop import Loop, Note
from jscan._optimizer.record.names import STRETCHES
from jscan._optimizer.rules import RECOMPUTED_ROWS
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

    def _add(self, note: Note, equation: Any) -> None:
        """Tell the report more of the loop that was written as this equation."""
        scope = str(equation.source_info.name_stack)
        for key, (old, before, after) in reversed(self.records.items()):
            # A loop that another one runs has nothing left.
            alike = (before.scope, after.length) == (scope, equation.params["length"])
            if alike and after.results:
                self.records[key] = old, before, after.noted(note)
                return

    def run(
        self, jaxpr: Any, constants: Sequence[Any], operands: Sequence[Any]
    ) -> list:
        """Run an open program with its loops rewritten."""
        return Walk(self, jaxpr, constants, operands).run()

    def rewritten(self, jaxpr: Any) -> Any:
        """A program of the same signature with its loops rewritten."""
        opened, constants = open_jaxpr(jaxpr)

        def function(*operands: Any) -> list[Any]:
            values = self.run(opened, constants, operands)
            return [
                with_type_of(value, atom)
                for value, atom in zip(values, opened.outvars, strict=True)
            ]

        # A program may compute with 64 bits where the setting of now says 32.
        wide = jax.enable_x64(True) if holds_wide(opened) else nullcontext()
        with wide:
            new = trace(function, avals_of(opened.invars))
        return self._settled(without_dead_code(new))

    def _settled(self, jaxpr: Any) -> Any:
        """The program with rows made where they are read, of loops as they are now.

        Loops that were merged may share rows that neither of them had alone.
        """
        flat = flattened(open_jaxpr(jaxpr)[0])
        if sum(map(is_scan, flat.equations)) < 2:
            return jaxpr
        again = run_rules((RECOMPUTED_ROWS,), flat, self.context)
        if again.equations == flat.equations:
            return jaxpr
        for equation in filter(is_scan, again.equations):
            for note in again.notes_of(equation):
                self._add(note, equation)
        new = with_body(jaxpr, again.equations, again.outputs)
        return without_dead_code(new)

    def rewritten_like(self, jaxpr: Any) -> Any:
        """As `rewritten`, and open if `jaxpr` is open."""
        new, constants = open_jaxpr(closed := self.rewritten(jaxpr))
        if type(closed) is type(jaxpr):
            return closed
        if constants:
            raise NotUnderstoodError("an inner program captured constants")
        return new
