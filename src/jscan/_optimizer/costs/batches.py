"""The cost model, work for all steps at once: when does it pay to leave the loop?"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from jscan._jax.equations import free_variables
from jscan._jax.jaxprs import is_variable
from jscan._jax.operations import (
    RANDOM,
    REDUCTIONS,
    TRANSCENDENTAL,
    dot_sizes,
    is_elementwise,
    is_expensive,
)
from jscan._optimizer.costs.budget import DEFAULT_BUDGET
from jscan._optimizer.costs.flops import counted_flops
from jscan._optimizer.costs.functions import CALLED, IN_PLACE, StepCosts
from jscan._optimizer.costs.fusions import Step
from jscan._optimizer.costs.reductions import elements_of
from jscan._optimizer.costs.savings import ADDED_ELEMENT, MATRIX_CALL, STREAMED_ELEMENT

# Nanoseconds one step saves, in the loop less batched, measured on a CPU.
_ROUND = 1.5
_WRITTEN_OUT = 0.3  # of a multiplication that is done in such a step
_LONG_SUM = 0.4  # the same with a vector, where many rows are added up
# Of a step that is no function, besides its calls.
_ITERATION = 50.0
_CALL = 60.0  # of an operation that is a call of its own in a step that calls
_THREADED_BYTES = 2**19  # of a result that is divided whatever is done to it
_LIGHT = 10  # times as many elements of another function are, unless it is alone
# What the compiler writes out in many operations, or gains by a second core alone.
_HEAVY = frozenset(
    {
        *("logistic", "log", "log1p", "pow", "tan", "atan2"),
        *("erf_inv", "lgamma", "digamma", "sin", "cos", "asin", "acos", "cbrt"),
    }
)
# Of a term that is written and read again, and how many elements stay in the caches.
_SPILLED, _CACHED = 2.0, 2**18
_FAULTING_BYTE = 0.4  # of an allocation so large that the system makes it anew


@dataclass(frozen=True)
class BatchCosts(StepCosts):
    """Whether work leaves a loop to be done for all steps at once.

    Attributes:
        batch_start: Nanoseconds that work done for all steps at once has to save
            before it is worth it; 0 if all expensive work is.
        whole_start: The same of all that a loop does, on one core: the loop takes some
            time to start itself.
        stored_start: The same if it hands out rows besides, so that a product is read
            several times.
        whole_products: Multiplications of a vector by a matrix from which they start
            as other batches do.
        threads_start: Nanoseconds that a batch costs besides if the compiler divides
            it among threads, and nothing else in the program wakes them: the loop is
            one function of machine code.
        threaded_elements: Elements of a heavy operation from which it does; three
            times as many of others.
        dispatch_start: The same if a program is handed to another thread because of it:
            counted as if that slept, or its core was busy, since the calls of a program
            seldom follow each other at once.
        dispatched_flops: Operations in a program from which XLA does that (`flops.py`).
        threaded_work: How many of those there have to be, if none is a reduction: with
            fewer, memory is what takes the time.
    """

    batch_start: int = 0
    whole_start: int = 0
    stored_start: int = 0
    whole_products: int = 0
    threads_start: int = 0
    dispatch_start: int = 0
    dispatched_flops: int = 0
    threaded_elements: int = 0
    threaded_work: int = 0

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
        calls: int = 0,
        start: int = 0,
        held: int = 0,
        new: int = 0,
    ) -> str | None:
        """Why equations save too little over all steps to leave the loop, if so.

        They are part of `step`, of which each saves `extra` nanoseconds besides, or all
        of it, which makes so many `calls` and, if it is short, has a `start` of so many
        nanoseconds. The loop holds rows of `held` bytes anyway, and would hold `new`
        more.
        """
        if not self.batch_start:
            return None
        equations = list(equations)
        worth = list(filter(is_expensive, equations))
        if not worth and not calls:
            return "it is cheap, and another pass over memory is not"
        saved = extra + self.saved_by_reductions(equations)
        saved += sum(map(self.saved_nanoseconds, equations))
        saved = length * (saved + (calls and _ITERATION + CALLED * calls))
        cost = self.batch_start + self._faults(held, held + new) + self.draw_cost(worth)
        if not self.is_function(step or equations):
            saved += length * _CALL * sum(map(_is_reduction, equations))
        else:  # where no product is a call
            tiny = self.are_tiny(step or equations)
            excess = (self._called_too_much(e, tiny) for e in equations)
            saved -= length * sum(excess)
            wakes = self._dispatch_cost(equations, length)
            if self._wakes_threads(equations, length, is_map=not step):
                wakes = max(wakes, self.threads_start)
            elif start and self._is_short(equations, length):
                cost -= self.batch_start - start
            cost += wakes
        if saved >= cost:
            return None
        saves = f"over {length} steps it saves {max(0, saved) / 1000:.1f} us"
        return f"{saves}, a batch costs {cost / 1000:.0f} us"

    def _dispatch_cost(self, equations: Sequence[Any], length: int) -> int:
        """What a batch costs, if no program that has it runs in its caller's thread."""
        # Where a draw is slow in a loop, more is saved than is counted.
        slow = self.drawn_number and any(e.primitive.name in RANDOM for e in equations)
        if slow or not self.dispatch_start:
            return 0
        is_small = length * counted_flops(equations) < self.dispatched_flops
        return 0 if is_small else self.dispatch_start

    def saved_beside(
        self, equations: Iterable[Any], handed: Collection[Any], read: Collection[Any]
    ) -> float:
        """What functions save more, or less, in a loop that stays than in a map.

        Rows of `handed` it hands out: those that it has `read`, too, are worked out for
        that again.
        """
        saved = 0.0
        for function in (e for e in equations if e.primitive.name in TRANSCENDENTAL):
            (made,) = function.outvars
            if made in handed:
                saved += self.saved_again(function) if made in read else 0.0
            else:
                saved += self.saved_nanoseconds(function, beside=True)
                saved -= self.saved_nanoseconds(function)
        return saved

    def stores(self, rows: Iterable[Any]) -> float:
        """About what one step takes to store a row of each, to be read once more."""
        return 2 * STREAMED_ELEMENT * elements_of(rows)

    def _called_too_much(self, equation: Any, tiny: bool) -> float:
        """What a product does not take where it is no call.

        One with a vector is none where all of a step are written as sums.
        """
        if equation.primitive.name != "dot_general":
            return 0.0
        sizes = dot_sizes(equation)
        if sizes.contracted == 1:
            return 0.0
        if sizes.is_of_vector:
            if not tiny or max(sizes.rows, sizes.columns) == 1:
                return 0.0
            takes = _LONG_SUM if sizes.contracted > self.longest_sum else 0.0
            saved = self.saved_nanoseconds(equation)
            return max(0.0, saved - takes * sizes.multiplications)
        return max(0.0, MATRIX_CALL - _WRITTEN_OUT * sizes.multiplications)

    def _is_short(self, equations: Iterable[Any], length: int) -> bool:
        """Whether a batch of all that a loop does is surely done by one core."""
        if any(e.primitive.name in RANDOM for e in equations):
            return False
        products = (e for e in equations if e.primitive.name == "dot_general")
        multiplied = sum(dot_sizes(product).multiplications for product in products)
        functions = (e for e in equations if e.primitive.name in TRANSCENDENTAL)
        most = max((elements_of(e.outvars) for e in functions), default=0)
        few = 2 * length * most < 3 * self.threaded_elements
        return few and length * multiplied < self.whole_products

    def _wakes_threads(
        self, equations: Sequence[Any], length: int, is_map: bool
    ) -> bool:
        """Whether a batch is divided among threads, where it need not pay.

        A product of a matrix and a vector that nothing but a map reads is not.
        """
        products = [e for e in equations if e.primitive.name == "dot_general"]
        if any(not is_map or not _is_inner(e) for e in products):
            return True
        # Where a draw is slow in a loop, to divide it is worth it at any length.
        names = _HEAVY if self.drawn_number else _HEAVY | RANDOM
        is_heavy = lambda e: e.primitive.name in names
        arithmetic = [e for e in equations if is_elementwise(e) or is_heavy(e)]
        size = lambda e: length * elements_of(e.outvars)
        most, some = max(map(size, arithmetic), default=0), self.threaded_elements
        heavy = any(is_heavy(e) and size(e) >= some for e in arithmetic)
        adds_up = any(map(_is_reduction, equations))
        much = adds_up or len(arithmetic) >= self.threaded_work
        functions = (e for e in equations if e.primitive.name in TRANSCENDENTAL)
        light = max((elements_of(e.outvars) for e in functions), default=0)
        heavy |= len(arithmetic) > 1 and length * light >= _LIGHT * some
        return heavy or (much and most >= 3 * some) or 4 * most >= _THREADED_BYTES

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
        stored: bool = False,
    ) -> str | None:
        """Why a loop without state does not pay as one batch, if so.

        A step reads or hands out a row of each of `rows`. With `summed`, its products
        are summed over all steps; those of a number and a row are added as fast there.
        With `stored` it hands out rows, too.
        """
        equations = list(_once(equations))
        extra = max(_ROUND, self.freed(step := Step(equations, rows), Step(())))
        # What writes a row into zeros is done in place where its sum is carried.
        writes = any(e.primitive.name.startswith(IN_PLACE) for e in equations)
        calls = self.calls(step) if summed and not writes else 0
        extra += STREAMED_ELEMENT * elements_of(rows) / 2
        if summed:
            extra -= _spilled(equations, rows, length)
            if not any(map(_is_reduction, equations)):
                extra += self.saved_by_fusion(equations)
            outer = (e for e in equations if _is_outer(e))
            extra += ADDED_ELEMENT * sum(elements_of(e.outvars) for e in outer)
        start = self.stored_start if stored else self.whole_start
        return self.keeps_in_loop(equations, length, extra, calls=calls, start=start)


def _spilled(equations: Sequence[Any], rows: Sequence[Any], length: int) -> float:
    """What a step takes longer for all steps at once, where terms leave the caches.

    That is so of a constant matrix that each step scales.
    """
    constant = {*free_variables(equations)} - {*rows}
    matrices = {v for v in constant if v.aval.ndim > 1}
    scaled = (
        e
        for e in filter(_scales, equations)
        if not matrices.isdisjoint(filter(is_variable, e.invars))
    )
    most = max((elements_of(e.outvars) for e in scaled), default=0)
    return _SPILLED * most if length * most > _CACHED else 0.0


def _scales(equation: Any) -> bool:
    name = equation.primitive.name
    return name == "mul" or (
        name == "dot_general" and dot_sizes(equation).is_elementwise
    )


def _is_reduction(equation: Any) -> bool:
    return equation.primitive.name in REDUCTIONS


def _once(equations: Iterable[Any]) -> Iterable[Any]:
    """The equations without products that the compiler finds to be the same."""
    is_product = lambda e: e.primitive.name == "dot_general"
    how = lambda e: (*map(id, e.invars), e.params["dimension_numbers"])
    return {how(e) if is_product(e) else id(e): e for e in equations}.values()


def _is_outer(equation: Any) -> bool:
    """Whether it is a product that is no row."""
    if equation.primitive.name != "dot_general":
        return False
    sizes = dot_sizes(equation)
    return not sizes.is_of_vector and not sizes.is_elementwise


def _is_inner(product: Any) -> bool:
    sizes = dot_sizes(product)
    return sizes.is_of_vector and max(sizes.rows, sizes.columns) == 1
