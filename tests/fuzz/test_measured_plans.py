"""Random programs under `plan="measure"`: whichever form wins, results are the same."""

import random
import zlib
from unittest import mock

import pytest

from fuzz import optimizer
from fuzz.choices import Choices
from jscan._jax.names import JAX_VERSION
from jscan._optimizer.planning import planner

PROGRAMS, GROUPS = 40, 4
PART = JAX_VERSION >= (0, 11)  # each version has programs of its own


def draw(programs, operands, seconds):
    """Times that say nothing, but are the same for one loop in both of its runs."""
    seed = zlib.crc32(" ".join(map(str, programs.values())).encode())
    times = random.Random(seed)
    return {name: times.random() for name in programs}


@pytest.mark.parametrize("group", range(GROUPS))
def test_random_programs_in_random_forms(group: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("JSCAN_PLAN", "measure")
    with (
        mock.patch.object(planner, "race", draw),
        mock.patch.object(planner, "compiled", lambda program: program),
        mock.patch.object(planner, "recall", return_value=None),
        mock.patch.object(planner, "remember"),
    ):
        for seed in range(2 * group + PART, PROGRAMS, 2 * GROUPS):
            try:
                optimizer.run(Choices(seed))
            except Exception as error:
                error.add_note(f"the program of seed {seed}, with JSCAN_PLAN=measure")
                raise
