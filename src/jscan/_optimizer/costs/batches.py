"""The cost model, work for all steps at once: when does it pay to leave the loop?"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from jscan._jax.jaxprs import number_of_bytes
from jscan._jax.operations import (
    MOVES_DATA,
    RANDOM,
    TRANSCENDENTAL,
    dot_sizes,
    is_expensive,
)
from jscan._optimizer.costs.budget import DEFAULT_BUDGET
from jscan._optimizer.costs.savings import (
    ADDED_ELEMENT,
    VECTOR_CALL,
    VECTOR_ROW,
    Savings,
    elements_of,
)

# Nanoseconds one step saves, in the loop less batched, measured on a CPU.
_ROUND = 1.5
_STREAMED_ELEMENT = 0.14
_FAULTING_BYTE = 0.4  # of an allocation so large that the system makes it anew


@dataclass(frozen=True)
class BatchCosts(Savings):
    """Whether work leaves a loop to be done for all steps at once.

    Attributes:
        batch_start: Nanoseconds that work done for all steps at once has to save
            before it is worth it; 0 if all expensive work is. On a CPU a batched
            operation wakes threads, which alone takes as long as some whole loops.
        threads_start: Nanoseconds that a batch costs besides if it is so large that
            the compiler divides it among threads.
        threaded_elements: Elements of an operation from which it does.
        called_step: Nanoseconds of a step that is not one function of machine code, but
            calls for its operations; 0 if steps are never one function.
        function_bytes: Bytes that the products of a step may read for it to be one.
        lone_dot: If all that could leave a loop are one or two products with a vector,
            they stay up to so many multiplications together, for a narrow row and for
            a wide one: the step is one short function with them as without.
    """

    batch_start: int = 0
    threads_start: int = 0
    threaded_elements: int = 0
    called_step: float = 0.0
    function_bytes: int = 0
    lone_dot: tuple[int, int] = (0, 0)

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
        step: Sequence[Any] = (),
        held: int = 0,
        new: int = 0,
    ) -> str | None:
        """Why equations save too little over all steps to leave the loop, if so.

        They are part of `step`, of which each saves `extra` nanoseconds besides. The
        loop holds rows of `held` bytes anyway, and would hold `new` more.
        """
        if not self.batch_start:
            return None
        equations = list(equations)
        worth = list(filter(is_expensive, equations))
        if not worth:
            return "it is cheap, and another pass over memory is not"
        lone = not extra and self._lone_multiplications(worth)
        if lone:
            return f"a step does {lone} multiplications by a vector as fast"
        if self._is_function(step or equations):  # where no product is a call
            extra -= VECTOR_CALL * sum(map(_is_of_vector, worth))
        saved = length * (extra + sum(map(self.saved_nanoseconds, equations)))
        cost = self.batch_start + self._faults(held, held + new)
        if any(self._is_threaded(e, length) for e in equations):
            cost += self.threads_start
        if saved >= cost:
            return None
        saves = f"over {length} steps it saves {max(0, saved) / 1000:.1f} us"
        return f"{saves}, a batch costs {cost / 1000:.0f} us"

    def freed(self, before: Sequence[Any], after: Sequence[Any]) -> float:
        """About what one step saves besides if it becomes one function of machine code.

        Given are its equations as they are, and those that stay.
        """
        calls = _read_by_products(before) > self.function_bytes
        called = calls and self._is_function(after)
        return self.called_step if called and not _has_opaque(before) else 0.0

    def _is_function(self, equations: Sequence[Any]) -> bool:
        """Whether the compiler makes one function of a step."""
        is_small = _read_by_products(equations) <= self.function_bytes
        return is_small and not _has_opaque(equations)

    def _is_threaded(self, equation: Any, length: int) -> bool:
        """Whether an operation on all steps wakes threads, where it need not pay."""
        name = equation.primitive.name
        if name == "dot_general" or name in MOVES_DATA:
            return False
        return length * elements_of(equation.outvars) >= self.threaded_elements

    def _faults(self, *sizes: int) -> float:
        """Nanoseconds that the pages of fresh memory cost a call besides.

        All rows of a program are one allocation, and the system makes a large one anew
        at each call: to cross the limit makes the rows below it slower as well.
        """
        before, after = (size if size > DEFAULT_BUDGET else 0 for size in sizes)
        return self.speeds.memory * _FAULTING_BYTE * (after - before)

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
        extra = max(_ROUND, self.freed(equations, ()))
        extra += _STREAMED_ELEMENT * elements_of(rows) / 2
        if summed:
            products = [e for e in equations if e.primitive.name == "dot_general"]
            extra += ADDED_ELEMENT * sum(elements_of(e.outvars) for e in products)
        return self.keeps_in_loop(equations, length, extra)

    def _lone_multiplications(self, equations: Sequence[Any]) -> int:
        """How many one or two products with a vector do that stay; 0 if they leave."""
        names = {equation.primitive.name for equation in equations}
        if len(equations) > 2 or names - {"dot_general"}:
            return 0
        sizes = list(map(dot_sizes, equations))
        together = sum(one.multiplications for one in sizes)
        narrow, wide = self.lone_dot
        columns = max(max(one.rows, one.columns) for one in sizes)
        most = narrow if columns < VECTOR_ROW else wide
        stay = all(one.is_of_vector for one in sizes) and together <= most
        return together if stay else 0


def _is_of_vector(equation: Any) -> bool:
    return equation.primitive.name == "dot_general" and dot_sizes(equation).is_of_vector


def _read_by_products(equations: Iterable[Any]) -> int:
    products = (e for e in equations if e.primitive.name == "dot_general")
    return sum(number_of_bytes(atom) for e in products for atom in e.invars)


def _has_opaque(equations: Iterable[Any]) -> bool:
    """Whether one does what is neither arithmetic nor a product, like a sort."""
    known = {"dot_general", *TRANSCENDENTAL, *RANDOM}
    names = (e.primitive.name for e in equations if is_expensive(e))
    return any(name not in known for name in names)
