"""How many tiny steps one iteration of a loop should do, as part of the cost model."""

from dataclasses import dataclass


@dataclass(frozen=True)
class StepSize:
    """What one step touches.

    Attributes:
        touched: Bytes of all operands and results.
        rows_read: Sequences it reads a row of.
        rows_written: Stacks it writes a row of.
        scalar: Whether all of it is single numbers.
    """

    touched: int
    rows_read: int
    rows_written: int
    scalar: bool


@dataclass(frozen=True)
class Unrolling:
    """Limits within which unrolled steps were measured to be faster.

    A compiler makes one function of a loop as long as its body is small. Numbers stay
    in registers, so that a body of numbers may do more than one of arrays; each row
    read or written is a separate instruction in either. Beyond these limits a step
    took up to a hundred times as long.

    Attributes:
        shortest: Steps from which a loop is worth it.
        factor: Steps an iteration.
        numbers: Bytes that a step on single numbers may touch.
        rows: Rows that such an iteration may read and write.
        high_factor: Steps an iteration of the smallest ones.
        high_numbers: Bytes that a step of those may touch.
        arrays: Bytes that a step on arrays may touch.
        without_rows: The same if it reads and writes no rows.
    """

    shortest: int
    factor: int
    numbers: int
    rows: int
    high_factor: int
    high_numbers: int
    arrays: int
    without_rows: int

    def steps(self, step: StepSize) -> tuple[int, str]:
        """Steps an iteration, 1 for a loop that stays as it is, and why."""
        rows = step.rows_read + step.rows_written
        if not rows:
            limit = self.without_rows
        else:
            limit = self.numbers if step.scalar else self.arrays
        if step.touched > limit:
            return 1, f"a step touches {step.touched} bytes, which is not tiny"
        if rows * self.factor > self.rows:
            return 1, f"a step reads and writes {rows} rows, too many to do several"
        smallest = step.scalar and step.touched <= self.high_numbers
        many = smallest and rows * self.high_factor <= self.rows
        factor = self.high_factor if many else self.factor
        return factor, f"a step touches {step.touched} bytes: {factor} per iteration"
