"""The cost model, operations: what one step saves that does not do them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from jscan._jax.operations import (
    INDEXED,
    RANDOM,
    REDUCTIONS,
    TRANSCENDENTAL,
    DotSizes,
    dot_sizes,
    is_expensive,
)
from jscan._optimizer.costs.layouts import NARROW
from jscan._optimizer.costs.reductions import Reductions, elements_of
from jscan._optimizer.costs.speeds import AS_SHIPPED, Speeds
from jscan._optimizer.costs.tiny import AT_ONCE

# Nanoseconds one step saves, in the loop less batched, measured on a CPU.
ADDED_ELEMENT = 0.3
STREAMED_ELEMENT = 0.14
MULTIPLICATION = 0.025
_INDEXED_ROW = 2.0
_INDEXED_ELEMENT = 0.02
_VECTOR_ROW = 16  # elements from which a row counts as wide
# The same of some functions, alone and beside other work. Few numbers are written out
# one by one, and the fewer the more is done to each.
_VECTOR_ROWS = dict.fromkeys(("exp", "exp2"), (40, 24))
_VECTOR_ROWS |= dict.fromkeys(("log", "logistic"), (28, 22))
_LESS_BESIDE = {"exp": 1.0}  # nanoseconds of a narrow number, beside other work
# A transcendental function, by the element of a narrow row and of a wide one. XLA's CPU
# compiler uses vector instructions in a loop for wide rows only, and for some functions
# nowhere: these gain by the second core, of which half is counted.
_TRANSCENDENTAL = (1.5, 0.12)
_TRANSCENDENTALS = {
    **dict.fromkeys(("sin", "cos"), (-0.5, 0.3)),
    **dict.fromkeys(("asin", "acos", "lgamma"), (2.0, 1.0)),
    "sqrt": (0.2, 0.0),
    **dict.fromkeys(("exp", "log", "logistic"), (3.0, 0.12)),
    "pow": (0.0, 1.0),
    "tan": (0.0, 0.5),
    "cbrt": (0.0, 0.0),
    "atan2": (0.0, 4.0),
    "log1p": (20.0, 0.9),  # with what `softplus` does besides; by itself 8
    "erf_inv": (2.0, 0.8),
    "digamma": (4.0, 3.0),
}
# What is saved besides if the loop hands its row out, for which it is worked out again:
# narrow and wide, and where no vector instruction does it.
_AGAIN, _AGAIN_ONE_BY_ONE = (1.0, 0.3), 5.0
# The sum of products of two rows, by each number above so many, and as the row does not
# fill the registers of eight whole.
_INNER_ELEMENT, _INNER_ROW, _INNER_REST = 0.35, 16, -8.0
# A vector times a matrix, that the loop has in its best layout (`layouts.py`): a
# multiplication, a row if it lies in rows, and a number of a result to store and read.
_VECTOR_DOT, _VECTOR_RESULT, _STORED_NUMBER = 0.02, 0.2, -0.35
MATRIX_CALL = 400.0
# A multiplication, by the fewest rows or columns of its product.
_MULTIPLICATIONS = ((64, 0.003), (16, 0.006), (0, MULTIPLICATION))
_OPAQUE = 100.0
_OPAQUE_ELEMENT = 0.35
# One row with one channel is convolved in a few instructions; many are not.
_CONVOLVED_ELEMENT = -30.0
_DRAW = 25.0  # what any number of random bits at once saves
_VECTOR_DRAW = 128  # random numbers from which more of them save no more


@dataclass(frozen=True)
class Savings(Reductions):
    """Nanoseconds that operations of a step take longer than in one batch of all steps.

    Attributes:
        whole_dot: Multiplications, more than and at most, for which a vector times a
            matrix wider than high stays in the loop: taken out, such steps of networks
            with fused gates were 0.75 to 0.9 times as fast.
        vector_call: Nanoseconds that a vector times a matrix takes longer; less than
            0 if to read its row takes longer.
        vector_added: The same for each number that is added up.
        rows_call: Numbers from which the sums of products of a row and three to eight
            others are a call, and the nanoseconds that it takes longer then.
        inner_call: Numbers from which the sum of products of two rows is a call, and
            the nanoseconds that it takes longer then.
        drawn_number: Nanoseconds that one of a step's random numbers takes longer.
        drawn_start: Nanoseconds that a batch takes besides if steps draw arrays.
        speeds: What was measured on the machine at hand.
    """

    whole_dot: tuple[int, int] = (0, 0)
    vector_call: float = 25.0
    vector_added: float = 1.3
    rows_call: tuple[int, float] = (0, 0.0)
    inner_call: tuple[int, float] = (0, 0.0)
    drawn_number: float = 0.0
    drawn_start: int = 0
    speeds: Speeds = AS_SHIPPED

    def saved_nanoseconds(self, equation: Any, *, beside: bool = False) -> float:
        """About what one step saves if the equation is done for all steps at once.

        A function may be part of what else a step does, which reads its row then.
        """
        return self.speeds.of(equation.primitive.name) * self._saved(equation, beside)

    def draw_cost(self, equations: Iterable[Any]) -> int:
        """What a batch of these costs besides, however long, if they draw arrays."""
        drawn = (e.outvars[0] for e in equations if e.primitive.name in RANDOM)
        return self.drawn_start * any(variable.aval.shape for variable in drawn)

    def saved_again(self, function: Any) -> float:
        """What a transcendental function saves besides if a step hands its row out."""
        elements, name = elements_of(function.outvars), function.primitive.name
        if name in ("sin", "cos"):
            return _AGAIN_ONE_BY_ONE * elements
        alone, _ = _VECTOR_ROWS.get(name, (_VECTOR_ROW, _VECTOR_ROW))
        return _AGAIN[elements >= alone] * elements

    def _saved(self, equation: Any, beside: bool) -> float:
        name = equation.primitive.name
        elements = elements_of(equation.outvars)
        if name in INDEXED or name.startswith("scatter"):
            return -_INDEXED_ROW - _INDEXED_ELEMENT * elements
        if name == "dot_general":
            return self._saved_by_dot(dot_sizes(equation))
        if name in TRANSCENDENTAL:
            narrow, wide = _TRANSCENDENTALS.get(name, _TRANSCENDENTAL)
            narrow, wide = narrow * self.speeds.narrow, wide * self.speeds.wide
            least = _VECTOR_ROWS.get(name, (_VECTOR_ROW, _VECTOR_ROW))
            narrow -= _LESS_BESIDE.get(name, 0.0) * beside
            wide -= 2 * STREAMED_ELEMENT * beside
            return elements * (narrow if elements < least[beside] else max(0.0, wide))
        if name == "conv_general_dilated" and _is_of_one_row(equation):
            touched = (*equation.invars, *equation.outvars)
            return _CONVOLVED_ELEMENT * elements_of(touched)
        if name in RANDOM:
            return _DRAW + self.drawn_number * min(elements, _VECTOR_DRAW)
        if name in REDUCTIONS:
            return self.saved_by_reduction(equation)
        if name == "sort" or not is_expensive(equation):
            return 0
        # An inner loop saves as much at each of its steps.
        steps = equation.params["length"] if name == "scan" else 1
        return _OPAQUE * steps + _OPAQUE_ELEMENT * elements

    def _saved_by_dot(self, sizes: DotSizes) -> float:
        if sizes.is_elementwise:
            return 0
        least, most = self.whole_dot
        wide = sizes.batch == sizes.rows == 1 and sizes.columns > sizes.contracted
        if wide and least < sizes.multiplications <= most:
            return 0
        if sizes.contracted == 1:
            return 0  # each product is an element to store: nothing is gained
        if sizes.is_of_vector:
            return self._saved_by_vector(sizes)
        fewest = min(sizes.rows, sizes.columns)
        each = next(cost for least, cost in _MULTIPLICATIONS if fewest >= least)
        return MATRIX_CALL + each * sizes.multiplications

    def _saved_by_vector(self, sizes: DotSizes) -> float:
        columns = max(sizes.rows, sizes.columns)
        if columns == 1:
            return self._saved_by_inner(sizes.contracted)
        if columns <= NARROW * sizes.contracted:
            least, called = self.rows_call
            if 2 < columns <= AT_ONCE and 0 < least <= sizes.contracted:
                return called
            each = _VECTOR_RESULT * columns
        else:
            each = self.vector_added * sizes.contracted + _STORED_NUMBER * columns
        each += _VECTOR_DOT * sizes.multiplications
        return max(0.0, self.vector_call + each)

    def _saved_by_inner(self, numbers: int) -> float:
        least, called = self.inner_call
        saved = _INNER_ELEMENT * (numbers - _INNER_ROW)
        saved += _INNER_REST if numbers % 8 > 2 else 0
        return saved + (called if least <= numbers else 0)


def _is_of_one_row(convolution: Any) -> bool:
    """Whether it convolves two rows of numbers: all other axes have one element."""
    shapes = [atom.aval.shape for atom in convolution.invars]
    return all(sum(size > 1 for size in shape) <= 1 for shape in shapes)
