"""What was measured of a loop, and what follows from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

AS_WRITTEN = "as written"
ESTIMATED = "estimated"


@dataclass(frozen=True)
class Verdict:
    """Which form of a loop runs, and how long each that was tried takes.

    Attributes:
        form: `"as written"`, `"estimated"` (what the costs say), or another one.
        times: Seconds that a run of the loop takes in each form that was tried, with
            what is computed of its results alone; empty if none was.
        why: Why it was not measured.
        stopped: The budget in seconds that ended the search, if it did.
        remembered: Whether the times were taken earlier.
    """

    form: str = ESTIMATED
    times: Mapping[str, float] = field(default_factory=dict)
    why: str = ""
    stopped: float | None = None
    remembered: bool = False

    @property
    def gain(self) -> float | None:
        """How many times as fast as it is written it runs, if that was measured."""
        new = self.times.get(self.form)
        return self.times[AS_WRITTEN] / new if new else None

    def __str__(self) -> str:
        if self.gain is None:
            return f"estimated, not measured: {self.why}"
        texts = {
            name: f"{as_seconds(taken)} {name}" for name, taken in self.times.items()
        }
        parts = ["measured: " + texts.pop(AS_WRITTEN)]
        if self.form != AS_WRITTEN:
            parts.append(f"{texts.pop(self.form)}, {self.gain:.2f}x as fast")
        text = ", ".join(parts)
        text += f" ({', '.join(texts.values())})" if texts else ""
        text += "; the times are of an earlier run" if self.remembered else ""
        if self.stopped is not None:
            text += f"; no more was tried, {self.stopped:g} s are spent"
        return text


def as_seconds(value: float) -> str:
    """A time with three digits, in a unit that suits it."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if value >= 0.9995 * size:
            return f"{value / size:.3g} {unit}"
    return f"{value / 1e-6:.3g} us"
