"""Random `Program`s, made of choices."""

from __future__ import annotations

from fuzz.choices import Choices
from support.optimizer.operations import OPERATIONS
from support.optimizer.programs import (
    CHANGES,
    SHAPES,
    SPECIALS,
    STARTS,
    USES,
    Instruction,
    Output,
    Program,
    Slot,
)

# The first of each list is the simplest.
NUMBERS = ("float32", "float64", "float16", "bfloat16", "complex64")
INTEGERS = ("int32", "int8", "uint32", "int64")
LENGTHS = (4, 5, 7, 4, 5, 7, 4, 5, 7, 3, 2, 1, 0)
WIDTHS = (3, 24)


def program_of(
    choices: Choices, transform: str, twins: tuple[str, ...] = ("none",)
) -> Program:
    """A program that the transform of this name can be applied to."""
    pick, many = choices.pick, choices.many
    names = operations_for(transform)

    def slot(starts: tuple[str, ...]) -> Slot:
        """An array of any shape; integers are the rarer kind."""
        return Slot(
            shape=pick(SHAPES),
            integer=choices.rarely(),
            start=pick(starts),
            change=pick(("value", *CHANGES)),
        )

    def instruction() -> Instruction:
        operands = (choices.below(7), choices.below(7), choices.below(7))
        return Instruction(pick(names), operands, option=choices.below(4))

    def output() -> Output:
        return Output(choices.below(10), integer=choices.rarely(), use=pick(USES))

    carries = many(lambda: slot(STARTS), 0, 4)
    return Program(
        number=pick(NUMBERS),
        integer=pick(INTEGERS),
        length=pick(LENGTHS),
        width=pick(WIDTHS),
        reverse=choices.rarely(2),
        unroll=pick((1, 1, 1, 2)),
        carries=tuple(carries),
        sequences=tuple(many(lambda: slot(("argument",)), 1, 2)),
        invariants=tuple(many(lambda: slot(("argument",)), 1, 2)),
        body=tuple(many(instruction, 3, 9)),
        carried=tuple(choices.below(10) for _ in carries),
        outputs=tuple(many(output, 1, 3)),
        special=pick(("none", *SPECIALS)),
        seed=choices.below(4),
        twin=pick(twins),
    )


def operations_for(transform: str) -> list[str]:
    """Without those that the transform cannot differentiate or batch."""
    return [
        name
        for name, operation in OPERATIONS.items()
        if not ("grad" in transform and operation.no_reverse)
        and not ("jvp" in transform and operation.no_forward)
        and not ("vmap" in transform and operation.no_batch)
    ]
