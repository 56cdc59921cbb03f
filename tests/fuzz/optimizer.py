"""The optimizer's fuzzer: a random loop, optimized and as written, in one transform."""

from __future__ import annotations

from typing import Any

from fuzz.choices import Choices
from support.optimizer.checking import NAMES, SETUPS, check
from support.optimizer.generate import program_of
from support.optimizer.machines import KEEN, every_machine
from support.optimizer.programs import TWINS

# Two loops that may be joined; `associate`, which changes rounding, is tried on one.
PAIRS = ("value", "optimize-grad", "grad-optimize")
PAIR_SETUPS = ("default", "keen", "keen-little-memory")
CASES = (
    *((name, ("none",), tuple(SETUPS)) for name in NAMES),
    *((name, TWINS[1:], PAIR_SETUPS) for name in PAIRS),
)


def drawn(choices: Choices) -> tuple[Any, str, str]:
    """A program, the transform that it runs in, and how the optimizer is called."""
    transform, twins, setups = choices.pick(CASES)
    setup = choices.pick(setups)
    return program_of(choices, transform, twins), transform, setup


def run(choices: Choices) -> None:
    """Fails where the two disagree."""
    program, transform, setup = drawn(choices)
    with every_machine(KEEN):
        check(program, transform, SETUPS[setup])


def text(choices: Choices) -> str:
    """The program, as it can be pasted into a test."""
    program, transform, setup = drawn(choices)
    return f"check({program!r}, {transform!r}, SETUPS[{setup!r}])"
