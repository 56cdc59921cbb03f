"""Programs the fuzzer found wrong, as it left them; each was fixed."""

from __future__ import annotations

import pytest

from optimize.checking import check
from optimize.programs import Instruction, Program, Slot

LITERAL_FROM_AN_INNER_LOOP = Program(
    number="float32",
    integer="int32",
    length=4,
    width=3,
    reverse=False,
    unroll=1,
    carries=(Slot("scalar"),),
    sequences=(),
    invariants=(Slot("scalar"),),
    body=(Instruction("add", (1, 1, 0)), Instruction("inner_scan")),
    carried=(0,),
    outputs=(),
)

TANGENT_OF_AN_INTEGER = Program(
    number="float32",
    integer="int32",
    length=4,
    width=3,
    reverse=False,
    unroll=1,
    carries=(Slot("square", integer=True),),
    sequences=(),
    invariants=(),
    body=(Instruction("add"),),
    carried=(0,),
    outputs=(),
)

FOUND = {
    "tangent-of-an-integer": ("optimize-jvp", TANGENT_OF_AN_INTEGER),
    "literal-from-an-inner-loop": ("optimize-grad", LITERAL_FROM_AN_INNER_LOOP),
}


@pytest.mark.parametrize("name", FOUND)
def test_found_by_the_fuzzer(name: str):
    """The program agrees with itself as it was written."""
    transform, program = FOUND[name]
    check(program, transform)
