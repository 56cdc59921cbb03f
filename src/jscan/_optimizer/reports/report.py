"""What the optimizer did to each loop of a program, what it did not, and why."""

import html
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jscan._optimizer.analysis.size import Size
from jscan._optimizer.record.loop import Note


@dataclass(frozen=True)
class LoopReport:
    """One loop: its name, the decisions, and its size before and after.

    Attributes:
        name: From `jax.named_scope` or the loop's `name=`; else ``loop 1``, ...
        steps: Number of steps the program asks for.
        notes: What each pass did or refused, in order.
        before: Size as written.
        after: Size as rewritten.
    """

    name: str
    steps: int
    notes: tuple[Note, ...]
    before: Size
    after: Size

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
        before, after = self.before, self.after
        return [
            ("steps", str(before.steps), str(after.steps)),
            ("operations a step", str(before.operations), str(after.operations)),
            ("operations on all steps", str(before.batched), str(after.batched)),
            ("flops", _number(before.flops), _number(after.flops)),
            ("bytes moved", _bytes(before.moved_bytes), _bytes(after.moved_bytes)),
            ("rows held between", _bytes(before.held_bytes), _bytes(after.held_bytes)),
        ]

    def __str__(self) -> str:
        lines = [f"{self.name}: {self.steps} steps"]
        for note in self.notes:
            lines.append(f"  {_mark(note)} {note.rule or note.pass_name}: {note.text}")
        if not self.notes:
            lines.append("  nothing to do")
        lines += [f"  {what:24}{old:>12} -> {new}" for what, old, new in self.rows()]
        return "\n".join(lines)


@dataclass(frozen=True)
class Report:
    """What `explain` returns; prints as text, shows as tables in a notebook.

    Attributes:
        loops: One entry a loop, in the order the program runs them, inner loops
            before the loop around them.
        temporary_bytes: Peak temporary memory of the compiled program, before and
            after, as XLA reports it; `None` where it does not.
        failure: Why the program was left as it was, if rewriting failed.
        seconds: What each rule of the optimizer took.

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
    seconds: Mapping[str, float] = field(default_factory=dict)

    def __getitem__(self, name: str) -> LoopReport:
        """The loop of that name."""
        for loop in self.loops:
            if loop.name == name:
                return loop
        raise KeyError(f"no loop {name!r}; there are {[x.name for x in self.loops]}")

    def __str__(self) -> str:
        parts = [str(loop) for loop in self.loops] or ["no loops"]
        if self.failure:
            parts.insert(0, f"the program runs as written: {self.failure}")
        if self.temporary_bytes:
            old, new = map(_bytes, self.temporary_bytes)
            parts.append(f"temporary memory of the program: {old} -> {new}")
        if self.seconds:
            parts.append(self._time())
        return "\n\n".join(parts)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        parts = [_loop_html(loop) for loop in self.loops] or ["<p>no loops</p>"]
        if self.failure:
            text = html.escape(self.failure)
            parts.insert(0, f"<p>The program runs as written: {text}</p>")
        if self.temporary_bytes:
            old, new = map(_bytes, self.temporary_bytes)
            parts.append(f"<p>Temporary memory of the program: {old} → {new}</p>")
        if self.seconds:
            parts.append(f"<p>{self._time().capitalize()}</p>")
        return "\n".join(parts)

    def _time(self) -> str:
        """What the rules took, and the one that took most."""
        most = max(self.seconds, key=lambda rule: self.seconds[rule])
        total = 1e3 * sum(self.seconds.values())
        return (
            f"time of the rules: {total:.3g} ms, of which {most} took "
            f"{1e3 * self.seconds[most]:.3g} ms"
        )

    def plot(self) -> Any:
        """Draw each loop before and after: the step, and what left it.

        Needs matplotlib (``pip install "jscan[plot]"``).

        Returns:
            A matplotlib figure.

        Raises:
            ImportError: If matplotlib is not installed.
        """
        from jscan._optimizer.reports.plot import draw

        return draw(self)


def _loop_html(loop: LoopReport) -> str:
    notes = "".join(
        f"<li>{_mark(note)} <b>{html.escape(note.rule or note.pass_name)}</b>: "
        f"{html.escape(note.text)}</li>"
        for note in loop.notes
    )
    rows = "".join(
        f"<tr><td>{what}</td><td>{old}</td><td>{new}</td></tr>"
        for what, old, new in loop.rows()
    )
    return (
        f"<h4>{html.escape(loop.name)}: {loop.steps} steps</h4><ul>{notes}</ul>"
        f"<table><tr><th></th><th>before</th><th>after</th></tr>{rows}</table>"
    )


def _mark(note: Note) -> str:
    return "+" if note.fired else "-"


def _number(value: int) -> str:
    return f"{value:.3g}" if value >= 1e6 else str(value)


def _bytes(value: int) -> str:
    size = float(value)
    for unit in ("B", "KiB", "MiB"):
        if size < 999.5:  # three digits, not 1e+03
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:.3g} GiB"
