"""Random calls of scan and its views agree with the reference, in every transform.

A fixed set runs on each version; `scripts/fuzz frontend` runs as many more as you like.
"""

import pytest

from fuzz import frontend
from fuzz.choices import Choices, shrunk
from fuzz.generate import NOISES
from fuzz.loops import DTYPES, Loop
from jscan._jax.names import JAX_VERSION

PROGRAMS, GROUPS = 40, 5
PART = JAX_VERSION >= (0, 11)  # each version has programs of its own


@pytest.mark.parametrize("group", range(GROUPS))
def test_random_calls(group: int):
    for seed in range(2 * group + PART, PROGRAMS, 2 * GROUPS):
        try:
            frontend.run(Choices(seed))
        except Exception as error:
            error.add_note(f"scripts/fuzz frontend --first-seed {seed} --programs 1")
            raise


def test_random_calls_hold_everything():
    """What is drawn in a few thousand programs: all of what the generator knows."""
    loops: list[Loop] = []
    programs = [frontend.drawn(Choices(seed)) for seed in range(1500)]
    for program in programs:
        loops += program.loop.and_inner()
    options = {name for loop in loops for name in loop.options}
    assert options >= {
        *("name", "mode", "go_backwards", "truncate_gradient", "checkpoint", "unroll"),
        *("strict", "return_list", "allow_gc", "profile", "progress", "save_every_N"),
    }
    views = {"scan", "map", "reduce", "foldl", "foldr", "scan_checkpoints"}
    assert {loop.view for loop in loops} == views
    assert {noise.method for loop in loops for noise in loop.noises} == {
        name for name, *_ in NOISES
    }
    dtypes = {output.kind.dtype for loop in loops for output in loop.outputs}
    assert dtypes == set(DTYPES)
    kinds = {(p.derivative, p.inner, p.outer) for p in programs}
    assert len(kinds) > 150


def test_a_failure_is_shrunk_to_what_matters():
    """Choices that are not needed go, and the others get small."""

    def fails(given: list[int]) -> bool:
        choices = Choices(given=given)
        return any(choices.below(10) >= 7 for _ in range(20))

    whole = Choices(3)
    assert any(whole.below(10) >= 7 for _ in range(20))
    assert shrunk(whole.taken, fails) == [7]
