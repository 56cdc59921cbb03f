"""For tests of plans by measuring: a folder of their own, and times of their own."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from jscan._base.caches import clear_caches
from jscan._optimizer import LoopReport
from jscan._optimizer.planning import planner
from jscan._optimizer.record.verdict import Verdict


@contextmanager
def kept_in(folder: Path) -> Iterator[Path]:
    """While what is measured is remembered there, and nothing is known before."""
    clear_caches()
    with mock.patch.dict("os.environ", {"XDG_CACHE_HOME": str(folder)}):
        yield folder / "jscan" / "wisdom"
    clear_caches()


@contextmanager
def times(seconds: Mapping[str, float]) -> Iterator[list[list[str]]]:
    """While forms of a loop take these times; the races that were run.

    What has no time takes a second. Nothing is compiled for it, which takes long.
    """
    races: list[list[str]] = []

    def race(programs, operands, share):
        races.append(sorted(programs))
        return {name: seconds.get(name, 1.0) for name in programs}

    with (
        mock.patch.object(planner, "race", race),
        mock.patch.object(planner, "compiled", lambda program: program),
    ):
        yield races


def timing_of(loop: LoopReport) -> Verdict:
    """What the report says was measured of a loop, or why not."""
    assert loop.timing is not None
    return loop.timing
