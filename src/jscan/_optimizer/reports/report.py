"""What the optimizer did to each loop of a program, what it did not, and why."""

import html
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from jscan._optimizer.analysis.size import Size
from jscan._optimizer.record.notes import Note
from jscan._optimizer.reports.plot import draw


@dataclass(frozen=True)
class LoopReport:
    """One loop: its name, the decisions, and its size before and after.

    Attributes:
        name: From `jax.named_scope` or the loop's `name=`; else ``loop 1``, ...
        steps: Number of steps the program asks for.
        notes: What each pass did or refused, in order.
        before: Size as written.
        after: Size as rewritten.

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
        lines += [f"  {_mark(note)} {note.rule}: {note.text}" for note in self.notes]
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
    seconds: Mapping[str, float] | None = None

    def __getitem__(self, name: str) -> LoopReport:
        """The loop of that name."""
        for loop in self.loops:
            if loop.name == name:
                return loop
        raise KeyError(f"no loop {name!r}; there are {[x.name for x in self.loops]}")

    def __str__(self) -> str:
        return "\n\n".join(self._parts(str, str))

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return "\n".join(self._parts(_loop_html, _paragraph))

    def _parts(
        self, show: Callable[[LoopReport], str], write: Callable[[str], str]
    ) -> list[str]:
        parts = [show(loop) for loop in self.loops] or [write("no loops")]
        if self.failure:
            parts.insert(0, write(f"the program runs as written: {self.failure}"))
        if self.temporary_bytes:
            old, new = map(_bytes, self.temporary_bytes)
            parts.append(write(f"temporary memory of the program: {old} -> {new}"))
        if self.seconds:
            parts.append(write(self._time()))
        return parts

    def _time(self) -> str:
        """What the rules took, and the one that took most."""
        times = {rule: 1e3 * seconds for rule, seconds in (self.seconds or {}).items()}
        total, most = sum(times.values()), max(times, key=times.__getitem__)
        whole = f"time of the rules: {total:.3g} ms"
        return f"{whole}, of which {most} took {times[most]:.3g} ms"

    def plot(self) -> Any:
        """Draw each loop before and after: the step, and what left it.

        Needs matplotlib (``pip install "jscan[plot]"``).

        Returns:
            A matplotlib figure.

        Raises:
            ImportError: If matplotlib is not installed.
        """
        names = [
            f"{x.name}, {when}" for x in self.loops for when in ("before", "after")
        ]
        sizes = [size for x in self.loops for size in (x.before, x.after)]
        return draw(names, [s.operations for s in sizes], [s.batched for s in sizes])


def _loop_html(loop: LoopReport) -> str:
    notes = "".join(
        f"<li>{_mark(note)} <b>{note.rule}</b>: {html.escape(note.text)}</li>"
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


def _paragraph(text: str) -> str:
    return f"<p>{html.escape(text[0].upper() + text[1:])}</p>"


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
