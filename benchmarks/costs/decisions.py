"""How often, and how dearly, are the optimizer's decisions wrong?

    decisions.py measure FILE [--seeds 0,1] [--only REGEX] [--part 1/3]
    decisions.py report FILE
    decisions.py fit FILE

`measure` walks through the families of loops, forward and gradient, has each decision
of each rule turned around, times both programs in turns, and adds a line for each to a
table. `report` says what the table shows, `fit` looks for the simplest law that would
have decided better. Seeds below 5 are what costs may be fitted to; the others judge.
`--quick` measures a few tiny loops and reports on them, which means nothing.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import gc
import random
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from _flipping import Met, met
from _judging import COPY, Decision, laws, losses, read, steady

import _timing
from against_lax import same
from families import FAMILIES, Family
from jscan._optimizer.planning.timing import compiled, operands_for, race
from regret import gradient

FIELDS = [field.name for field in dataclasses.fields(Decision)]


@dataclasses.dataclass(frozen=True)
class Asked:
    """Which loops are measured."""

    seeds: tuple[int, ...]
    only: str = ""
    part: tuple[int, int] = (1, 1)
    seconds: float = 0.4
    quick: bool = False

    def cases(self) -> Iterator[tuple[Family, int, str]]:
        """Family, seed and direction of each."""
        number, of = self.part
        families = FAMILIES[:: 17 if self.quick else 1][number - 1 :: of]
        for one in families:
            for seed in self.seeds if re.search(self.only, one.name) else ():
                yield one, seed, "forward"
                if one.gradient:
                    yield one, seed, "gradient"


def measured(asked: Asked) -> Iterator[Decision]:
    """Each decision of each loop, with the time of both outcomes."""
    for one, seed, direction in asked.cases():
        case = one.case(seed, asked.quick)
        function = gradient(case.plain) if direction == "gradient" else case.plain
        about = dict(family=one.name, seed=seed, direction=direction)
        for number, loop in enumerate(met(function, case.arguments), 1):
            yield from _decisions(loop, about | {"loop": number}, asked.seconds)
        jax.clear_caches()
        gc.collect()


def _decisions(loop: Met, about: dict[str, Any], seconds: float) -> Iterator[Decision]:
    programs = {"chosen": compiled(loop.program), COPY: compiled(loop.program)}
    for number, flip in enumerate(loop.flips):
        programs[str(number)] = compiled(flip.program)
    operands = operands_for(loop.inputs)
    times = _times(programs, operands, seconds)
    first = programs["chosen"](*operands)
    for name, program in programs.items() if not seconds else ():
        if not same(first, program(*operands)):
            raise SystemExit(f"different results: {about}, decision {name}")
    about |= loop.features | {"version": jax.__version__}
    microseconds = {name: round(1e6 * taken, 2) for name, taken in times.items()}
    chosen, copy = microseconds["chosen"], microseconds[COPY]
    yield Decision(**about, rule=COPY, chose="on", on_us=chosen, off_us=copy)
    chosen = round((chosen * copy) ** 0.5, 2)
    for number, flip in enumerate(loop.flips):
        if str(number) not in microseconds:
            continue  # there was no time for it
        pair = chosen, microseconds[str(number)]
        on, off = pair if flip.fired else reversed(pair)
        chose, weighed = "on" if flip.fired else "off", (flip.saves, flip.costs)
        yield Decision(**about, rule=flip.rule, chose=chose, on_us=on, off_us=off,
                       saves_us=weighed[0], costs_us=weighed[1])  # fmt: skip


def _times(programs: Any, operands: list[Any], seconds: float) -> dict[str, float]:
    """Medians of races, each in another order: who wakes threads helps the next."""
    races, end, order = [], time.perf_counter() + seconds, list(programs)
    turns = random.Random(0)
    while not races or time.perf_counter() < end:
        turns.shuffle(order)
        races.append(race({name: programs[name] for name in order}, operands, 1.0))
    both = [name for name in programs if all(name in one for one in races)]
    return {name: statistics.median(one[name] for one in races) for name in both}


def measure(path: Path, asked: Asked) -> None:
    """Add what is measured to a table."""
    fresh = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        if fresh:
            writer.writeheader()
        for one in measured(asked):
            writer.writerow(dataclasses.asdict(one))
            file.flush()


def report(decisions: Sequence[Decision]) -> None:
    """Print how often, and how dearly, each rule was wrong."""
    header = ("rule", "version", "part", "decisions", "wrong by > 5%", "of those on")
    _timing.table((*header, "time lost", "least", "always on", "always off"),
                  losses(steady(decisions)))  # fmt: skip


def fit(decisions: Sequence[Decision]) -> None:
    """Print the simplest law of each rule, and what it does on the part that judges."""
    header = ("rule", "version", "on if", "fitted: lost now", "by the law")
    _timing.table((*header, "judged: lost now", "by the law"), laws(steady(decisions)))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="?", choices=["measure", "report", "fit"])
    parser.add_argument("file", nargs="?", type=Path)
    parser.add_argument("--seeds", default="0", help="of sizes that are drawn")
    parser.add_argument("--only", default="", help="regular expression of families")
    parser.add_argument("--part", default="1/1", help="a third of it: 1/3")
    parser.add_argument("--seconds", type=float, default=0.4, help="for each loop")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, for CI")
    given = parser.parse_args()
    if not given.quick and None in (given.what, given.file):
        parser.error("say what to do, and the file: report decisions.csv")
    return given


def main() -> None:
    given = _arguments()
    if given.quick:
        _timing.print_machine()
        path = Path(tempfile.mkdtemp()) / "decisions.csv"
        measure(path, Asked((0, 7), seconds=0.0, quick=True))
        report(read(path)), print(), fit(read(path))
    elif given.what == "measure":
        number, of = map(int, given.part.split("/"))
        seeds = tuple(map(int, given.seeds.split(",")))
        measure(given.file, Asked(seeds, given.only, (number, of), given.seconds))
    else:
        dict(report=report, fit=fit)[given.what](read(given.file))


if __name__ == "__main__":
    main()
