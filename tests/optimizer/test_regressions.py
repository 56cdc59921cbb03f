"""Programs the fuzzer found wrong, as it left them; each was fixed."""

from __future__ import annotations

from typing import Any

import pytest

from support.optimizer.checking import SETUPS, check
from support.optimizer.programs import Instruction, Output, Program, Slot

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

TIED_MAXIMUM = Program(
    number="float64",
    integer="int8",
    length=7,
    width=3,
    reverse=False,
    unroll=1,
    carries=(Slot("vector"),),
    sequences=(),
    invariants=(),
    body=(Instruction("branch", (2, 6, 5), 2),),
    carried=(8,),
    outputs=(Output(8, use="unused"), Output(3, use="max")),
    special="zero",
    seed=3,
)

WRITE_AT_A_SUM = Program(
    number="float32",
    integer="int32",
    length=4,
    width=3,
    reverse=False,
    unroll=1,
    carries=(Slot("vector", integer=True), Slot("vector", integer=True)),
    sequences=(Slot("scalar"),),
    invariants=(),
    body=(
        Instruction("integer_sum", (2, 0, 0)),
        Instruction("integer_add", (0, 1, 0)),
        Instruction("write"),
    ),
    carried=(0, 9),
    outputs=(Output(0),),
)

RESULT_THAT_IS_AN_OPERAND = Program(
    number="float32",
    integer="int32",
    length=4,
    width=3,
    reverse=False,
    unroll=1,
    carries=(Slot("scalar", change="add"), Slot("scalar")),
    sequences=(Slot("scalar"),),
    invariants=(Slot("scalar"),),
    body=(*[Instruction("add")] * 7, Instruction("multiply", (0, 1, 0))),
    carried=(0, 0),
    outputs=(Output(0),),
)

MAXIMUM_OF_ROWS_NO_LOOP_STORES = Program(
    number="complex64",
    integer="int32",
    length=4,
    width=3,
    reverse=False,
    unroll=1,
    carries=(Slot("scalar"), Slot("rows")),
    sequences=(Slot("scalar"),),
    invariants=(Slot("scalar"),),
    body=(Instruction("add"), Instruction("add"), Instruction("lags")),
    carried=(1, 1),
    outputs=(Output(0, use="max"),),
)

FOUND: dict[str, tuple[Any, ...]] = {
    "write-at-a-sum": ("optimize-grad", WRITE_AT_A_SUM, "keen"),
    # The derivative of a maximum is shared equally among equal rows.
    "tied-maximum": ("jvp-optimize", TIED_MAXIMUM),
    "tied-maximum-grad": ("grad-optimize", TIED_MAXIMUM),
    # Compiled quickly, rows made anew for each reader are not equal to their maximum.
    "maximum-of-rows-no-loop-stores": (
        "optimize-jvp",
        MAXIMUM_OF_ROWS_NO_LOOP_STORES,
        "associate",
    ),
    "tangent-of-an-integer": ("optimize-jvp", TANGENT_OF_AN_INTEGER),
    "result-that-is-an-operand": (
        "optimize-grad",
        RESULT_THAT_IS_AN_OPERAND,
        "associate",
    ),
    "literal-from-an-inner-loop": ("optimize-grad", LITERAL_FROM_AN_INNER_LOOP),
}


@pytest.mark.parametrize("name", FOUND)
def test_found_by_the_fuzzer(name: str):
    """The program agrees with itself as it was written."""
    transform, program, *setup = FOUND[name]
    check(program, transform, *[SETUPS[key] for key in setup])
