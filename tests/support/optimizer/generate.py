"""Hypothesis strategies for `Program`."""

from __future__ import annotations

from hypothesis import strategies as st

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

# The first of each list is what hypothesis shrinks to.
NUMBERS = ("float32", "float64", "float16", "bfloat16", "complex64")
INTEGERS = ("int32", "int8", "uint32", "int64")
LENGTHS = (4, 5, 7, 4, 5, 7, 4, 5, 7, 3, 2, 1, 0)
WIDTHS = (3, 24)


def slots(starts: tuple[str, ...]) -> st.SearchStrategy[Slot]:
    """Arrays of any shape; integers are the rarer kind."""
    return st.builds(
        Slot,
        shape=st.sampled_from(SHAPES),
        integer=st.sampled_from((False, False, False, True)),
        start=st.sampled_from(starts),
        change=st.sampled_from(("value", *CHANGES)),
    )


def instructions(transform: str) -> st.SearchStrategy[Instruction]:
    """Lines of a body, without operations that the transform cannot differentiate."""
    names = [
        name
        for name, operation in OPERATIONS.items()
        if not ("grad" in transform and operation.no_reverse)
        and not ("jvp" in transform and operation.no_forward)
    ]
    return st.builds(
        Instruction,
        operation=st.sampled_from(names),
        operands=st.tuples(*[st.integers(0, 6)] * 3),
        option=st.integers(0, 3),
    )


@st.composite
def programs(
    draw: st.DrawFn, transform: str, twins: tuple[str, ...] = ("none",)
) -> Program:
    """A program that the transform of this name can be applied to."""
    carries = draw(st.lists(slots(STARTS), max_size=4))
    index = st.integers(0, 9)
    return Program(
        number=draw(st.sampled_from(NUMBERS)),
        integer=draw(st.sampled_from(INTEGERS)),
        length=draw(st.sampled_from(LENGTHS)),
        width=draw(st.sampled_from(WIDTHS)),
        reverse=draw(st.booleans()),
        unroll=draw(st.sampled_from((1, 1, 1, 2))),
        carries=tuple(carries),
        sequences=tuple(draw(st.lists(slots(("argument",)), min_size=1, max_size=2))),
        invariants=tuple(draw(st.lists(slots(("argument",)), min_size=1, max_size=2))),
        body=tuple(draw(st.lists(instructions(transform), min_size=3, max_size=9))),
        carried=tuple(draw(index) for _ in carries),
        outputs=tuple(
            draw(
                st.lists(
                    st.builds(
                        Output,
                        value=index,
                        integer=st.sampled_from((False, False, False, True)),
                        use=st.sampled_from(USES),
                    ),
                    min_size=1,
                    max_size=3,
                )
            )
        ),
        special=draw(st.sampled_from(("none", *SPECIALS))),
        seed=draw(st.integers(0, 3)),
        twin=draw(st.sampled_from(twins)),
    )
