"""The cost model, work for all steps at once: when does it pay to leave the loop?"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from jscan._jax.operations import (
    INDEXED,
    RANDOM,
    TRANSCENDENTAL,
    DotSizes,
    dot_sizes,
    is_expensive,
)
from jscan._optimizer.costs.budget import DEFAULT_BUDGET

# Nanoseconds one step saves, in the loop less batched, measured on a CPU.
ADDED_ELEMENT = 0.1
MULTIPLICATION = 0.025
_ROUND = 1.5
_STREAMED_ELEMENT = 0.14
_INDEXED_ROW = 2.0
_INDEXED_ELEMENT = 0.02
_VECTOR_ROW = 32  # elements from which a row counts as wide
# A transcendental function, by the element of a narrow row and of a wide one. XLA's CPU
# compiler uses vector instructions in a loop for wide rows only, and for some functions
# nowhere: these gain by the second core, of which half is counted.
_TRANSCENDENTAL = (2.0, 0.35)
_TRANSCENDENTALS = {
    **dict.fromkeys(("sin", "cos"), (0.7, 1.2)),
    **dict.fromkeys(("asin", "acos", "lgamma"), (2.0, 1.0)),
    "pow": (0.0, 1.0),
    "tan": (0.0, 0.5),
    "cbrt": (0.0, 0.0),
    "atan2": (0.0, 4.0),
    "log1p": (8.0, 0.9),
    "erf_inv": (2.0, 0.8),
    "digamma": (4.0, 3.0),
}
_VECTOR_CALL = 50.0
_MATRIX_CALL = 400.0
# A multiplication, by the fewest rows or columns of its product.
_MULTIPLICATIONS = ((64, 0.003), (16, 0.006), (0, MULTIPLICATION))
_OPAQUE = 100.0
_OPAQUE_ELEMENT = 0.35
_DRAW = 25.0  # what any number of random bits at once saves
_VECTOR_DRAW = 128  # random numbers from which more of them save no more
_FAULTING_BYTE = 0.4  # of an allocation so large that the system makes it anew


@dataclass(frozen=True)
class BatchCosts:
    """Whether work leaves a loop to be done for all steps at once.

    Attributes:
        batch_start: Nanoseconds that work done for all steps at once has to save
            before it is worth it; 0 if all expensive work is. On a CPU a batched
            operation wakes threads, which alone takes as long as some whole loops.
        whole_dot: Multiplications, more than and at most, for which a vector times a
            matrix wider than high stays in the loop: taken out, such steps of networks
            with fused gates were 0.75 to 0.9 times as fast.
        lone_dot: If all that could leave a loop are one or two products with a vector,
            they stay up to so many multiplications together: the step is one short
            function with them as without.
        drawn_number: Nanoseconds that one of a step's random numbers takes longer.
    """

    batch_start: int = 0
    whole_dot: tuple[int, int] = (0, 0)
    lone_dot: int = 0
    drawn_number: float = 0.0

    def gains_batched(self, equation: Any) -> bool:
        """Whether an equation runs faster for all steps at once, however long."""
        always = not self.batch_start
        saves = always or self.saved_nanoseconds(equation) > 0
        return is_expensive(equation) and saves

    def keeps_in_loop(
        self,
        equations: Iterable[Any],
        length: int,
        extra: float = 0,
        *,
        held: int = 0,
        new: int = 0,
    ) -> str | None:
        """Why equations save too little over all steps to leave the loop, if so.

        A step saves `extra` nanoseconds besides. The loop holds rows of `held` bytes
        anyway, and would hold `new` more.
        """
        if not self.batch_start:
            return None
        equations = list(equations)
        worth = list(filter(is_expensive, equations))
        if not worth:
            return "it is cheap, and another pass over memory is not"
        if self._are_lone_dots(worth):
            return f"a step does {self.lone_dot} multiplications by a vector as fast"
        saved = length * (extra + sum(map(self.saved_nanoseconds, equations)))
        cost = self.batch_start + self._faults(held, held + new)
        if saved >= cost:
            return None
        saves = f"over {length} steps it saves {max(0, saved) / 1000:.1f} us"
        return f"{saves}, a batch costs {cost / 1000:.0f} us"

    def _faults(self, *sizes: int) -> float:
        """Nanoseconds that the pages of fresh memory cost a call besides.

        All rows of a program are one allocation, and the system makes a large one anew
        at each call: to cross the limit makes the rows below it slower as well.
        """
        before, after = (size if size > DEFAULT_BUDGET else 0 for size in sizes)
        return _FAULTING_BYTE * (after - before)

    def saved_nanoseconds(self, equation: Any) -> float:
        """About what one step saves if the equation is done for all steps at once."""
        name = equation.primitive.name
        elements = _elements(equation.outvars)
        if name in INDEXED or name.startswith("scatter"):
            return -_INDEXED_ROW - _INDEXED_ELEMENT * elements
        if name == "dot_general":
            return self._saved_by_dot(dot_sizes(equation))
        if name in TRANSCENDENTAL:
            narrow, wide = _TRANSCENDENTALS.get(name, _TRANSCENDENTAL)
            return elements * (narrow if elements < _VECTOR_ROW else wide)
        if name in RANDOM:
            return _DRAW + self.drawn_number * min(elements, _VECTOR_DRAW)
        if not is_expensive(equation):
            return 0
        # An inner loop saves as much at each of its steps.
        steps = equation.params["length"] if name == "scan" else 1
        return _OPAQUE * steps + _OPAQUE_ELEMENT * elements

    def keeps_map_in_loop(
        self,
        equations: Sequence[Any],
        rows: Sequence[Any],
        length: int,
        summed: bool = False,
    ) -> str | None:
        """Why a loop without state does not pay as one batch, if so.

        A step reads or hands out a row of each of `rows`. With `summed`, its products
        are summed over all steps.
        """
        extra = _ROUND + _STREAMED_ELEMENT * _elements(rows) / 2
        if summed:
            products = [e for e in equations if e.primitive.name == "dot_general"]
            extra += ADDED_ELEMENT * sum(_elements(e.outvars) for e in products)
        return self.keeps_in_loop(equations, length, extra)

    def _saved_by_dot(self, sizes: DotSizes) -> float:
        least, most = self.whole_dot
        wide = sizes.batch == sizes.rows == 1 and sizes.columns > sizes.contracted
        if wide and least < sizes.multiplications <= most:
            return 0
        if sizes.contracted == 1:
            return 0  # each product is an element to store: nothing is gained
        call = _VECTOR_CALL if sizes.is_of_vector else _MATRIX_CALL
        fewest = min(sizes.rows, sizes.columns)
        each = next(cost for least, cost in _MULTIPLICATIONS if fewest >= least)
        return call + each * sizes.multiplications

    def _are_lone_dots(self, equations: Sequence[Any]) -> bool:
        names = {equation.primitive.name for equation in equations}
        if len(equations) > 2 or names - {"dot_general"}:
            return False
        sizes = list(map(dot_sizes, equations))
        together = sum(one.multiplications for one in sizes)
        return all(one.is_of_vector for one in sizes) and together <= self.lone_dot


def _elements(variables: Iterable[Any]) -> int:
    return sum(variable.aval.size for variable in variables)
