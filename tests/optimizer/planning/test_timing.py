"""How programs are timed beside each other, by a clock that the tests turn."""

import pytest

from jscan._optimizer.planning import timing


class Clock:
    """A program is what it takes: a number, or one number after the other."""

    now = 0.0
    runs = 0

    def perf_counter(self):
        return self.now

    def run(self, program, operands):
        self.runs += 1
        taken = program if isinstance(program, float) else next(program)
        self.now += taken
        return taken


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch):
    clock = Clock()
    monkeypatch.setattr(timing, "time", clock)
    monkeypatch.setattr(timing, "seconds_of", clock.run)
    return clock


def test_the_first_run_and_disturbed_ones_do_not_count(clock):
    def disturbed():
        yield 9.0
        while True:
            yield from (1e-3, 5e-2)

    times = timing.race({"a": disturbed(), "b": 2e-3}, [], 60.0)
    assert times == {"a": 1e-3, "b": 2e-3}


def test_long_programs_are_run_once(clock):
    """And of several only two, without which there is nothing to compare."""
    times = timing.race({"a": 5.0, "b": 4.0, "c": 1.0}, [], 2.0)
    assert times == {"a": 5.0, "b": 4.0}
    assert clock.now == 9
    assert len(timing.race({"a": 5.0, "b": 4.0, "c": 1.0}, [], 2.0, whole=True)) == 3


def test_what_is_far_behind_is_not_run_on(clock):
    programs = {"slow": 1e-2, "near": 1.1e-3, "fast": 1e-3}
    times = timing.race(programs, [], 60.0)
    assert times == programs
    assert clock.now < 0.5
    assert clock.runs > 150
    clock.now = 0.0
    assert timing.race(programs, [], 60.0, whole=True) == programs
    assert clock.now > 0.35


def test_a_race_ends(clock):
    timing.race({"a": 1e-6, "b": 1e-6}, [], 60.0)
    assert clock.runs < 300
    clock.now = 0.0
    timing.race({"a": 0.1, "b": 0.1}, [], 60.0)
    assert clock.now < 1.5


def test_nothing_is_begun_that_may_take_too_long(clock):
    budget = timing.Budget(10.0)
    with budget.taking():
        clock.now += 4
    assert not budget.is_over
    with budget.taking():
        clock.now += 3
    assert budget.left == 3
    assert budget.is_over  # the dearest so far took four
