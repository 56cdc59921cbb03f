"""How many steps one iteration of a loop should do, as part of the cost model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from jscan._jax.operations import (
    ELEMENTWISE,
    INDEXED,
    MOVES_DATA,
    RANDOM,
    REDUCTIONS,
    SHAPES_ONLY,
    TRANSCENDENTAL,
    dot_sizes,
    is_elementwise,
)

_SCALAR = (5, 6, 7, 3, 2)  # steps an iteration of single numbers that pay as well
_MANY = 7  # operations from which arrays gain as numbers do


@dataclass(frozen=True)
class StepSize:
    """What one step does and touches.

    Attributes:
        length: How many there are.
        work: Its equations, but for those that pick a number of a constant array.
        touched: Bytes of all operands and results.
        rows: Sequences and stacks it reads or writes a row of.
        states: What it hands to the next.
        results: Whether it hands out rows.
        scalar: Whether all of it is single numbers.
    """

    length: int
    work: Sequence[Any]
    touched: int
    rows: int
    states: int
    results: bool
    scalar: bool


@dataclass(frozen=True)
class NativeLoops:
    """For a compiler that makes one function of a loop as long as its body is small.

    Numbers stay in registers, so that a body of numbers may do more than one of arrays;
    each row read or written is a separate instruction in either. Beyond these limits a
    step took up to a hundred times as long.

    Attributes:
        shortest: Steps from which a loop is worth it.
        with_rest: The same if iterations of several steps leave some over.
        rest_arrays: Rows and states of a step up to which that pays: steps that are
            left are many operations, and several threads run more than eight at once.
        factor: Steps an iteration.
        numbers: Bytes that a step on single numbers may touch.
        rows: Rows that such an iteration may read and write.
        high_factor: Steps an iteration of the smallest ones.
        high_numbers: Bytes that a step of those may touch.
        high_work: Operations times states that one may have which hands out rows: each
            row is worked out anew from where the iteration began.
        arrays: Bytes that a step on arrays may touch.
        many_arrays: The same for a step of seven operations and more.
        without_rows: The same if it reads and writes no rows.
    """

    shortest: int
    with_rest: int
    rest_arrays: int
    factor: int
    numbers: int
    rows: int
    high_factor: int
    high_numbers: int
    high_work: int
    arrays: int
    many_arrays: int
    without_rows: int

    def steps(self, step: StepSize) -> tuple[int, str]:
        """Steps an iteration, 1 for a loop that stays as it is, and why."""
        names = [e.primitive.name for e in step.work]
        if not ELEMENTWISE.union(SHAPES_ONLY).issuperset(names):
            return 1, "a step does more than elementwise arithmetic"
        slow = next((name for name in names if name in TRANSCENDENTAL), None)
        if slow is not None:
            return 1, f"a step does {slow}, which outweighs an iteration"
        rows = step.rows
        arrays = self.many_arrays if len(names) >= _MANY else self.arrays
        limit = self.numbers if step.scalar else arrays
        limit = limit if rows else self.without_rows
        if step.touched > limit:
            return 1, f"a step touches {step.touched} bytes, several pay up to {limit}"
        if rows * self.factor > self.rows:
            many = f"{self.factor} steps more than {self.rows}"
            return 1, f"a step reads and writes {rows} rows, {many}"
        smallest = step.scalar and step.touched <= self.high_numbers
        many = smallest and rows * self.high_factor <= self.rows
        many = many and not self._is_worked_out(step)
        factor = self.high_factor if many else self.factor
        rest = step.length % factor
        few = rows + step.states <= self.rest_arrays and step.length >= self.with_rest
        if rest and not few:
            left = f"iterations of {factor} leave {rest} of {step.length} steps"
            factor = self._whole(step, factor)
            if factor == 1:
                return 1, f"{left}, which several threads would run"
        return factor, f"a step touches {step.touched} bytes: {factor} per iteration"

    def _whole(self, step: StepSize, most: int) -> int:
        """Steps an iteration that leave none over, near the most; 1 if there are none.

        Two or three elements of an array at once are no vector.
        """
        factors = (most, self.factor, *_SCALAR) if step.scalar else (most, self.factor)
        again = self._is_worked_out(step)
        room = (0, 0) if again else (self.numbers * self.factor, self.rows)
        for factor in factors:
            fits = factor * step.touched <= room[0] and factor * step.rows <= room[1]
            if step.length % factor == 0 and (fits or factor <= self.factor):
                return factor
        return 1

    def _is_worked_out(self, step: StepSize) -> bool:
        return step.results and len(step.work) * step.states > self.high_work


@dataclass(frozen=True)
class Launches:
    """For a device whose loops cost some microseconds an iteration, whatever they do.

    There an iteration starts a few kernels, and steps next to each other are fused.
    The price is compiling, which grows with the operations of an iteration.

    Attributes:
        shortest: Steps from which a loop is worth it.
        factor: Most steps an iteration.
        operations: Operations that an iteration may have.
        largest_dot: Multiplications of a product that takes as long as an iteration.
    """

    shortest: int
    factor: int
    operations: int
    largest_dot: int

    def steps(self, step: StepSize) -> tuple[int, str]:
        """The same: as many as compile fast, if none of them is long itself."""
        long = (e.primitive.name for e in step.work if not self._is_short(e))
        name = next(long, None)
        if name is not None:
            return 1, f"a step does {name}, beside which an iteration costs little"
        operations = max(1, sum(map(_operations, step.work)))
        factor = 1
        while 2 * factor <= self.factor and 2 * factor * operations <= self.operations:
            factor *= 2
        if factor == 1:
            most = f"two are more than {self.operations}"
            return 1, f"a step is {operations} operations, {most}"
        return factor, f"a step is {operations} operations: {factor} per iteration"

    def _is_short(self, equation: Any) -> bool:
        name = equation.primitive.name
        if name == "dot_general":
            return dot_sizes(equation).multiplications <= self.largest_dot
        known = TRANSCENDENTAL | MOVES_DATA | REDUCTIONS | INDEXED | RANDOM
        return is_elementwise(equation) or name in known or name.startswith("scatter")


Unrolling: TypeAlias = NativeLoops | Launches
"""When a kind of compiler gains by several steps an iteration."""


def _operations(equation: Any) -> int:
    """About how many elementwise operations take as long to compile."""
    name = equation.primitive.name
    if name == "dot_general":
        return 8
    return 32 if name in RANDOM else 1
