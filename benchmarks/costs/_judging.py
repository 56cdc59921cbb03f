"""What a table of decisions shows: how much time is lost, and which law loses less.

Time lost is that of what was chosen over the faster of both outcomes, as a geometric
mean over all decisions of a rule, those that were right included. Loops of which two
copies differ by a tenth and more say nothing, and are left out.
"""

from __future__ import annotations

import csv
import dataclasses
import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

COPY = "(a copy)"
"""Instead of a rule: the same program compiled twice, which is the noise."""

WRONG, UNSTEADY = 1.05, 1.1
FIRST_JUDGE = 5  # the seed from which rows judge
FEWEST = 6  # decisions of a rule for which a law is looked for


@dataclasses.dataclass(frozen=True)
class Decision:
    """One decision of a rule, and what both outcomes take.

    Attributes:
        loop: Number among the loops of its program in which something is decided.
        chose: What the costs of the day said: `"on"` or `"off"`.
        steps, state, row, constants, operations, flops, bytes: Of a step: what it
            carries, reads and writes a row of, and does.
        saves_us, costs_us: What the rule held against each other, if it did.
    """

    version: str
    family: str
    seed: int
    direction: str
    loop: int
    rule: str
    steps: int
    state: int
    row: int
    constants: int
    operations: int
    flops: int
    bytes: int
    chose: str
    on_us: float
    off_us: float
    saves_us: float | None = None
    costs_us: float | None = None

    @property
    def judges(self) -> bool:
        """Whether it is of a seed to which nothing is fitted."""
        return self.seed >= FIRST_JUDGE

    def lost(self, on: bool) -> float:
        """Time of an outcome over that of the faster one."""
        return (self.on_us if on else self.off_us) / min(self.on_us, self.off_us)

    @property
    def lost_now(self) -> float:
        """The same of what was chosen."""
        return self.lost(self.chose == "on")


def read(path: Path) -> list[Decision]:
    """The decisions of a table."""
    whole = {f.name: f.type for f in dataclasses.fields(Decision)}
    kinds = {"int": int, "float": float, "str": str}
    kinds["float | None"] = lambda text: float(text) if text else None
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [
        Decision(**{n: kinds[str(whole[n])](v) for n, v in r.items()}) for r in rows
    ]


def steady(decisions: Sequence[Decision]) -> list[Decision]:
    """Those of loops of which two copies took about the same; copies stay."""

    def place(one: Decision) -> tuple[object, ...]:
        return one.version, one.family, one.seed, one.direction, one.loop

    copies = [one for one in decisions if one.rule == COPY]
    far = (one for one in copies if max(one.lost(True), one.lost(False)) > UNSTEADY)
    left_out = set(map(place, far))
    return [one for one in decisions if one.rule == COPY or place(one) not in left_out]


def mean(values: Sequence[float]) -> float:
    """Geometric."""
    return math.exp(sum(map(math.log, values)) / len(values)) if values else math.nan


def losses(decisions: Sequence[Decision]) -> Iterator[list[str]]:
    """For each rule, version and part: how often and how dearly it was wrong."""
    groups: defaultdict[tuple[str, str, bool], list[Decision]] = defaultdict(list)
    for one in decisions:
        groups[one.rule, one.version, one.judges].append(one)
        if one.rule != COPY:
            groups["(all rules)", one.version, one.judges].append(one)
    for (rule, version, judges), found in sorted(groups.items()):
        wrong = [one for one in found if one.lost_now > WRONG]
        yield [
            rule,
            version,
            "judges" if judges else "fitted to",
            str(len(found)),
            f"{len(wrong)} ({100 * len(wrong) / len(found):.0f}%)",
            str(sum(one.chose == "on" for one in wrong)),
            *(_percent([one.lost_now for one in found]),),
            f"{1 / max(one.lost_now for one in found):.2f}x",
            *(_percent([one.lost(on) for one in found]) for on in (True, False)),
        ]


def _percent(values: Sequence[float]) -> str:
    return f"{100 * (mean(values) - 1):.1f}%"


@dataclasses.dataclass(frozen=True)
class Law:
    """A rule is on where a feature is large, or where it is small; or always the same.

    Attributes:
        feature: Its name; empty for a law that does not look.
        limit: From which on, in the unit of the feature.
        large: Whether it is on from there on, and not below.
    """

    feature: str
    limit: float
    large: bool

    def on(self, one: Decision) -> bool:
        value = FEATURES[self.feature](one) if self.feature else math.inf
        return (value >= self.limit) is self.large

    def lost(self, decisions: Sequence[Decision]) -> float:
        return mean([one.lost(self.on(one)) for one in decisions])

    def __str__(self) -> str:
        if not self.feature:
            return "always" if self.large else "never"
        return f"{self.feature} {'>=' if self.large else '<'} {self.limit:.3g}"


def _of(name: str) -> Callable[[Decision], float]:
    return lambda one: float(getattr(one, name))


FEATURES: dict[str, Callable[[Decision], float]] = {
    name: _of(name)
    for name in ("steps", "state", "row", "constants", "operations", "flops", "bytes")
}
FEATURES["steps * row"] = lambda one: one.steps * one.row
FEATURES["steps * flops"] = lambda one: one.steps * one.flops
FEATURES["saves / costs"] = lambda one: (one.saves_us or 0.0) / (one.costs_us or 1.0)


def fitted(decisions: Sequence[Decision]) -> Law:
    """The law by which least time is lost; of equals the one that is first."""
    best = min(
        (Law("", 0.0, True), Law("", 0.0, False)), key=lambda w: w.lost(decisions)
    )
    least = best.lost(decisions)
    for name, feature in FEATURES.items():
        if name == "saves / costs" and not any(one.saves_us for one in decisions):
            continue
        values = sorted({feature(one) for one in decisions})
        for low, high in itertools.pairwise(values):
            for large in (True, False):
                law = Law(name, math.sqrt(max(low, 1e-9) * high), large)
                # A law with a limit has to be better by more than chance is.
                if (lost := law.lost(decisions)) < least - 0.002:
                    best, least = law, lost
    return best


def laws(decisions: Sequence[Decision]) -> Iterator[list[str]]:
    """For each rule and version: its law, and the time lost by it and now."""
    groups: defaultdict[tuple[str, str], list[Decision]] = defaultdict(list)
    for one in decisions:
        if one.rule != COPY:
            groups[one.rule, one.version].append(one)
    for (rule, version), found in sorted(groups.items()):
        first = [one for one in found if not one.judges]
        judges = [one for one in found if one.judges]
        if len(first) < FEWEST or not judges:
            continue
        law, parts = fitted(first), (first, judges)
        cells = []
        for part in parts:
            cells.append(_percent([one.lost_now for one in part]))
            cells.append(_percent([one.lost(law.on(one)) for one in part]))
        yield [rule, version, str(law), *cells]
