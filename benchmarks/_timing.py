"""Paired timing: what every script of this folder measures with.

The machines this runs on are shared, so an absolute time says little: a neighbour
who takes a core doubles it. What survives is the *ratio* of two programs that took
turns. Each round runs every program once, in an order that is turned around from
round to round, and the figure reported is the median of the rounds' ratios.

Where neighbours want more cores than there are, even that ratio drowns: a program that
uses two cores is punished for it. `--cpu` then counts the processor time of all threads
instead, which says how much work a program is, though not what two cores make of it.
`--busy` has a neighbour of its own: what wakes threads for little loses beside it.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jaxlib

from _code import code_of

MEBIBYTE = 2**20
DOUBTFUL = 0.97


@dataclasses.dataclass(frozen=True)
class Settings:
    """How long to measure, and which rows.

    Attributes:
        quick: Tiny sizes, two rounds: the script still works, its figures mean nothing.
        rounds: How often every program takes its turn.
        block_seconds: A turn repeats its program until it lasts about this long.
        only: Rows whose name does not match this are left out.
        busy: Another process keeps a core busy meanwhile.
        cpu: Count processor time of all threads instead of the time on the wall.
        steps: Most steps of a loop, for devices where each takes microseconds.
        seeds: What sizes are drawn from, where they are drawn.
    """

    quick: bool = False
    rounds: int = 9
    block_seconds: float = 0.03
    only: re.Pattern[str] = re.compile("")
    busy: bool = False
    cpu: bool = False
    steps: int | None = None
    seeds: tuple[int, ...] = (0, 1)

    def wants(self, name: str) -> bool:
        """Whether the row of this name is asked for."""
        return self.only.search(name) is not None


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled program, and what compiling it cost.

    Attributes:
        call: Runs the program on its arguments.
        lower_seconds: Tracing, rewriting and lowering.
        compile_seconds: XLA's part.
        temp_bytes: Scratch memory of one call, as XLA plans it.
        code: What it was compiled to.
    """

    call: Callable[[], object]
    lower_seconds: float
    compile_seconds: float
    temp_bytes: int
    code: str = ""

    @property
    def build_seconds(self) -> float:
        """What a user waits for before the first call."""
        return self.lower_seconds + self.compile_seconds


@dataclasses.dataclass(frozen=True)
class Timing:
    """One program beside the first of its group.

    Attributes:
        seconds: Median time of one call.
        ratio: Median over the rounds of (first program's time / this one's).
        low: Lower quartile of those ratios.
        high: Upper quartile of those ratios.
    """

    seconds: float
    ratio: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.ratio:.2f}x [{self.low:.2f}, {self.high:.2f}]"


def settings(description: str, arguments: Sequence[str] | None = None) -> Settings:
    """Reads the command line that all scripts share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, for CI")
    parser.add_argument("--only", default="", help="regular expression of row names")
    parser.add_argument("--rounds", type=int, default=9, help="turns per program")
    parser.add_argument("--busy", action="store_true", help="with a busy neighbour")
    parser.add_argument("--cpu", action="store_true", help="count processor time")
    parser.add_argument("--steps", type=int, help="most steps, where they take long")
    parser.add_argument("--seeds", default="0,1", help="of sizes that are drawn")
    given = parser.parse_args(arguments)
    only = re.compile(given.only)
    if given.quick:
        quickly = Settings(quick=True, rounds=2, block_seconds=0.0, only=only)
        return dataclasses.replace(quickly, seeds=(0,))
    seeds = tuple(map(int, given.seeds.split(",")))
    how = Settings(rounds=given.rounds, only=only, cpu=given.cpu, steps=given.steps)
    return dataclasses.replace(how, busy=given.busy, seeds=seeds)


def print_machine() -> None:
    """Prints what a figure is worthless without: versions, device, date, load."""
    device = jax.devices()[0]
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    print(
        f"jax {jax.__version__}, jaxlib {jaxlib.__version__}, "
        f"Python {platform.python_version()}, {device.platform} "
        f"({device.device_kind}), {platform.machine()}, {os.cpu_count()} cores, "
        f"load {load:.1f}, {date}\n",
        flush=True,
    )


def build(
    function: Callable[..., object],
    arguments: tuple[object, ...],
    clock: Callable[[], float] = time.perf_counter,
) -> Program:
    """Compiles `function` for `arguments` and times that."""
    start = clock()
    lowered = jax.jit(function).lower(*arguments)
    middle = clock()
    compiled = lowered.compile()
    end = clock()
    memory = compiled.memory_analysis()
    temp_bytes = 0 if memory is None else int(memory.temp_size_in_bytes)
    call = lambda: compiled(*arguments)
    code = code_of(compiled)
    return Program(call, middle - start, end - middle, temp_bytes, code)


def measure_pair(baseline: Program, contender: Program, how: Settings) -> Timing:
    """Times `contender` beside `baseline`; a doubtful ratio is measured again.

    A neighbour on the machine can hold a core for the whole length of a row, so a row
    that looks slower gets a second, longer look, whose figure is the one reported.
    """
    pair = {"baseline": baseline.call, "contender": contender.call}
    timing = measure(pair, how)["contender"]
    if timing.ratio < DOUBTFUL and not how.quick:
        longer = dataclasses.replace(how, rounds=3 * how.rounds)
        timing = measure(pair, longer)["contender"]
    return timing


def measure(
    programs: Mapping[str, Callable[[], object]], how: Settings
) -> dict[str, Timing]:
    """Times programs that take turns; the first is the one others are divided by."""
    if how.busy:
        with _neighbour():
            return measure(programs, dataclasses.replace(how, busy=False))
    clock = time.process_time if how.cpu else time.perf_counter
    repeats = {name: _repeats(call, how) for name, call in programs.items()}
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    order = list(programs)
    for _ in range(how.rounds):
        for name in order:
            seconds[name].append(_block(programs[name], repeats[name], clock))
        # Whoever runs second finds the caches as the first left them.
        order.reverse()
    first = seconds[next(iter(programs))]
    return {name: _timing(first, own) for name, own in seconds.items()}


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Prints a Markdown table row by row, as the rows are made."""
    print("| " + " | ".join(header) + " |")
    print("|" + "---|" * len(header), flush=True)
    for row in rows:
        print("| " + " | ".join(row) + " |", flush=True)


def collected(header: Sequence[str], rows: Iterable[Any]) -> list[Any]:
    """Prints the `cells` of rows as they are made, and returns the rows."""
    found: list[Any] = []

    def cells() -> Iterable[Sequence[str]]:
        for row in rows:
            found.append(row)
            yield row.cells()

    table(header, cells())
    return found


def run_script(
    description: str | None,
    header: Sequence[str],
    rows: Callable[[Settings], Iterable[Sequence[str]]],
) -> None:
    """What a script that is one table does: options, machine, rows."""
    how = settings(description or "")
    print_machine()
    table(header, rows(how))


def geometric_mean(values: Sequence[float]) -> float:
    """The mean that ratios have."""
    return statistics.geometric_mean(values) if values else float("nan")


def mebibytes(size: int) -> str:
    """A size in MiB, with the digits a table has room for."""
    return f"{size / MEBIBYTE:.2f}"


def duration(seconds: float) -> str:
    """A time in the unit that suits it."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


@contextlib.contextmanager
def _neighbour() -> Iterator[None]:
    """While another process keeps a core busy."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as other:
        time.sleep(0.1)  # until it has started
        try:
            yield
        finally:
            other.kill()


def _repeats(call: Callable[[], object], how: Settings) -> int:
    _block(call, 1)  # the first call pays for page faults and caches
    once = min(_block(call, 1) for _ in range(2))
    return max(1, min(5000, int(how.block_seconds / max(once, 1e-9))))


def _block(
    call: Callable[[], object],
    repeats: int,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    start = clock()
    for _ in range(repeats):
        # Waiting each time keeps calls from overlapping; what is not a JAX array
        # (a torch tensor, a number) passes through.
        jax.block_until_ready(call())
    return (clock() - start) / repeats


def _timing(first: list[float], own: list[float]) -> Timing:
    ratios = sorted(a / b for a, b in zip(first, own, strict=True))
    quarter = len(ratios) // 4
    return Timing(
        seconds=statistics.median(own),
        ratio=statistics.median(ratios),
        low=ratios[quarter],
        high=ratios[-1 - quarter],
    )
