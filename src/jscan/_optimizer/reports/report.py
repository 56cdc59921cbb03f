"""What the optimizer did to each loop of a program, what it did not, and why."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from jscan._base.errors import unknown_loop
from jscan._base.kinds import counted
from jscan._optimizer.analysis.size import Size
from jscan._optimizer.record.notes import Note
from jscan._optimizer.record.verdict import Verdict, as_seconds
from jscan._optimizer.reports.measuring import Runs
from jscan._optimizer.reports.plot import Panel, draw
from jscan._optimizer.reports.tree import as_page, as_text


@dataclass(frozen=True)
class LoopReport:
    """One loop: its name, the decisions, and its size before and after.

    Attributes:
        name: From `jax.named_scope` or the loop's `name=`; else ``loop 1``, ...
        steps: Number of steps the program asks for.
        notes: What each rule did or refused, in order.
        before: Size as written.
        after: Size as rewritten.
        place: File and line of the user's that it comes from; empty if unknown.
        depth: In how many other loops it is; those stand before it.
        timing: What was measured of it, under `plan="measure"`: the `form` that runs,
            the seconds (`times`) of each that was tried, its `gain` over the loop as
            it is written; or `why` there is no measuring it.

    Example:
        >>> import jax.numpy as jnp, jscan
        >>> def last(x):
        ...     return jscan.scan(lambda p: p * x, None, x, n_steps=100).outputs[-1]
        >>> (loop,) = jscan.explain(last)(jnp.ones(3)).loops
        >>> loop.steps, "save_memory" in loop.fired
        (100, True)
    """

    name: str
    steps: int
    notes: tuple[Note, ...]
    before: Size
    after: Size
    place: str = ""
    depth: int = 0
    timing: Verdict | None = None

    @property
    def fired(self) -> tuple[str, ...]:
        """Names of the passes that changed the loop."""
        return tuple(dict.fromkeys(n.pass_name for n in self.notes if n.fired))

    @property
    def refused(self) -> dict[str, str]:
        """For each pass that left something alone: its reasons, a sentence each."""
        reasons: dict[str, list[str]] = {}
        for note in self.notes:
            if not note.fired:
                reasons.setdefault(note.pass_name, []).append(note.text)
        return {name: "; ".join(texts) for name, texts in reasons.items()}

    def rows(self) -> list[tuple[str, str, str]]:
        """The figures: what, before, after."""
        before, after = asdict(self.before), asdict(self.after)
        return [(what, show(before[n]), show(after[n])) for n, what, show in _FIGURES]

    @property
    def facts(self) -> str:
        """What stands behind the name: steps and place."""
        return f": {counted(self.steps, 'step')}" + (self.place and f", {self.place}")

    def __str__(self) -> str:
        lines = [self.name + self.facts]
        lines += [f"  = {self.timing}"] if self.timing else []
        lines += [f"  {_mark(note)} {note.rule}: {note.text}" for note in self.notes]
        if not self.notes:
            lines.append("  nothing to do")
        lines += [f"  {what:24}{old:>12} -> {new}" for what, old, new in self.rows()]
        return "\n".join(lines)


@dataclass(frozen=True)
class Report:
    """What `explain` returns: a verdict, and what was done to each of a tree of loops.

    It prints as text and shows with colours in a notebook.

    Attributes:
        loops: One entry a loop, in the order the program runs them, each before the
            loops inside it.
        temporary_bytes: Peak temporary memory of the compiled program, before and
            after, as XLA reports it; `None` where it does not.
        failure: Why the program was left as it was, if rewriting failed.
        seconds: What each rule of the optimizer took.
        remark: What other loops the program has, and why they are not listed.
        times: Seconds that a call takes, before and after, once `measure` was asked.
        untimed: Why `measure` could not tell.
        costs: The table of costs by which the estimate decided.

    Example:
        >>> import jax.numpy as jnp, jscan
        >>> def cube(x):
        ...     rows, _ = jscan.scan(
        ...         lambda p, x: p * x, outputs_info=1.0, non_sequences=x, n_steps=3,
        ...         name="cube")
        ...     return rows[-1]
        >>> report = jscan.explain(cube)(2.0)
        >>> report["cube"].fired
        ('save_memory',)
    """

    loops: tuple[LoopReport, ...]
    temporary_bytes: tuple[int, int] | None = None
    failure: str | None = None
    seconds: Mapping[str, float] | None = None
    remark: str | None = None
    times: tuple[float, float] | None = None
    untimed: str | None = None
    costs: str = ""
    _runs: Runs | None = field(default=None, compare=False, repr=False)

    def __getitem__(self, name: str) -> LoopReport:
        """The loop of that name; raises a `ScanKeyError` if there is none."""
        for loop in self.loops:
            if loop.name == name:
                return loop
        raise unknown_loop(name, [loop.name for loop in self.loops], "Report")

    @property
    def verdict(self) -> str:
        """In a line: how many loops were rewritten, and what a call gains by it.

        Times are measured, never estimated: without `measure` there are none.
        """
        done = sum(bool(loop.fired) for loop in self.loops)
        parts = [f"{done} of {counted(len(self.loops), 'loop')} rewritten"]
        if self.failure:
            parts = [f"the program runs as written: {self.failure}"]
        elif not self.loops:
            parts = ["no loops"]
        if self.remark:
            parts[0] += f" ({self.remark})"
        if self.times:
            taken = _change(self.times, as_seconds)
            parts.append(f"a call took {taken}{self._gain()}")
        elif self.loops:
            parts.append(f"time {self.untimed or 'not measured, see measure()'}")
        if self.temporary_bytes:
            memory = _change(self.temporary_bytes, _bytes)
            parts.append(f"temporary memory of the program: {memory}")
        return "; ".join(parts)

    def _gain(self) -> str:
        old, new = self.times or (0.0, 0.0)
        return f", {old / new:.2f}x as fast" if old and new else ""

    def measure(self) -> Report:
        """Run the program as it is written and rewritten, and say what a call takes.

        On the arguments that `explain` was given: each form at least twice, in pairs,
        for a second if it is short; results are dropped, and no shared variable
        changes. The report holds the arguments and both compiled programs for it.

        Returns:
            The report with `times`. Without them where it is not possible, for the
            reason that its text gives: a program with effects, `explain` called on
            tracers, arguments that were donated since, a pickled report.

        Example:
            >>> import jax.numpy as jnp, jscan
            >>> def last(x):
            ...     return jscan.scan(lambda h: 2 * h, outputs_info=x, n_steps=9)[0][-1]
            >>> report = jscan.explain(last)(jnp.ones(3)).measure()
            >>> before, after = report.times
        """
        if self.times:
            return self
        reason = self._runs.refusal if self._runs else "the report is a copy"
        if reason or self._runs is None:
            return replace(self, untimed=f"cannot be measured: {reason}")
        return replace(self, times=self._runs.times())

    def __str__(self) -> str:
        return "\n\n".join([self.verdict, *self._tree(as_text), *self._rules_time()])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        verdict = html.escape(self.verdict[0].upper() + self.verdict[1:])
        ends = [f"<p>{html.escape(text)}</p>" for text in self._rules_time()]
        parts = [f"<p><b>{verdict}</b></p>", *self._tree(as_page), *ends]
        return "<div>" + "\n".join(parts) + "</div>"

    def _tree(self, write: Any) -> list[str]:
        return [write(self.loops)] if self.loops else []

    def _rules_time(self) -> list[str]:
        """What the rules took, and the one that took most."""
        if not self.seconds:
            return []
        most = max(self.seconds, key=self.seconds.__getitem__)
        whole, part = map(as_seconds, (sum(self.seconds.values()), self.seconds[most]))
        text = f"time of the rules: {whole}, of which {most} took {part}"
        return [f"{text}; costs of {self.costs}" if self.costs else text]

    def plot(self) -> Any:
        """Draw the time of a call and its temporary memory, before and after.

        The time is measured, see `measure`, unless the report has it. Of a program
        without loops the picture is a sentence. Needs matplotlib
        (``pip install "jscan[plot]"``).

        Returns:
            A matplotlib figure.

        Raises:
            ImportError: If matplotlib is not installed.
        """
        if not self.loops:
            return draw(self.verdict, [])
        report = self.measure()
        missing = report.untimed or ""
        panels: list[Panel] = [
            (f"time of a call{report._gain()}", report.times, as_seconds, missing),
            ("temporary memory", self.temporary_bytes, _bytes, "not told by XLA"),
        ]
        return draw(self.verdict.split(";")[0], panels)


def _mark(note: Note) -> str:
    return "+" if note.fired else "-"


def _number(value: int) -> str:
    return f"{value:.3g}" if value >= 1e6 else str(value)


def _change(pair: tuple[Any, Any], write: Callable[[Any], str]) -> str:
    return " -> ".join(map(write, pair))


def _bytes(value: int) -> str:
    """An amount of memory with three digits, in a unit that suits it."""
    size = float(value)
    for unit in ("B", "KiB", "MiB"):
        if size < 999.5:  # three digits, not 1e+03
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:.3g} GiB"


_FIGURES: tuple[tuple[str, str, Callable[[int], str]], ...] = (
    ("steps", "steps", str),
    ("operations", "operations a step", str),
    ("batched", "operations on all steps", str),
    ("flops", "flops, estimated", _number),
    ("moved_bytes", "bytes moved, estimated", _bytes),
    ("held_bytes", "rows held between", _bytes),
)
