"""The cost model, steps: of which does XLA's CPU compiler make one function?

A loop whose step moves little is compiled as a whole. Any other step calls a function
for each group of operations that are fused (`fusions.py` counts them), and many of them
go through a queue. What counts are the bytes of operands and results of those groups.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from jscan._jax.equations import unique_variables
from jscan._jax.jaxprs import number_of_bytes
from jscan._jax.operations import (
    RANDOM,
    REDUCTIONS,
    TRANSCENDENTAL,
    dot_sizes,
    is_expensive,
)
from jscan._optimizer.costs.fusions import Step, is_fused, number_of_calls
from jscan._optimizer.costs.savings import Savings

_PIECES = "dynamic_slice", "gather"
IN_PLACE = ("scatter", "dynamic_update_slice")


def moved(step: Step, fused: Collection[int] = ()) -> int:
    """About how many bytes the fused operations of a step read and write.

    What one operation reads, and what is not the operand of a call, is not stored. Of
    what is `fused`, given by `id`, nothing is.
    """
    reads: Counter[Any] = Counter()
    made, kept = set(), step.outside
    pieces = 0
    for equation in step.equations:
        operands = unique_variables(equation.invars)
        name = equation.primitive.name
        if name.startswith((*_PIECES, *IN_PLACE)) and equation.invars[0] not in made:
            # Of a whole array that is there a piece is read, or written.
            operands = unique_variables(equation.invars[1:])
            size = number_of_bytes(equation.outvars[0])
            pieces += size if name in _PIECES else -size
        reads.update(operands)
        made.update(equation.outvars)
        if id(equation) not in fused and not is_fused(equation):
            kept.update(equation.outvars)
            if equation.primitive.name not in REDUCTIONS:
                kept.update(operands)
    stored = {v for v in made if reads[v] != 1 or v in kept}
    times = {v: reads[v] + (v in made) for v in {*reads, *stored} - (made - stored)}
    return pieces + sum(n * number_of_bytes(v) for v, n in times.items())


def has_opaque(equations: Iterable[Any]) -> bool:
    """Whether one does what is neither arithmetic nor a product, like a sort."""
    known = {"dot_general", *TRANSCENDENTAL, *RANDOM}
    names = (e.primitive.name for e in equations if is_expensive(e))
    return any(name not in known for name in names)


_LATER = 2  # calls that others save of a step without some sums
CALLED = 30.0
"""Nanoseconds of each group of operations that a step calls."""
# Times the bytes from which a step is none: a little above them it may be one still,
# and surely is none from so many more.
_A_LITTLE, _SURELY = 1.15, 1.3
# What a step moves is known up to this part, with products that are calls, and as sums.
_AS_CALLS, _AS_SUMS = 1.15, 1.25


@dataclass(frozen=True)
class StepCosts(Savings):
    """What it costs that a step is no function.

    Attributes:
        called_step: Nanoseconds of a step that is not one function of machine code, but
            calls for its operations; 0 if steps are never one function.
        product_bytes: Bytes that the products of a step may read for it to be one.
        calls_vectors: Whether those with a vector count, too.
        function_bytes: Bytes that its operations, as they are fused, have to move for
            it to be none, whatever the products; 0 if they may be any.
        most_calls: Calls of a step that is none, one after the other; more of them go
            through a queue. 0 if any number may.
        queued_step: Nanoseconds that a step takes longer then.
        ready_calls: Functions of a program that may be ready at once before the
            executor wakes threads for them; 0 if any number may.
    """

    called_step: float = 0.0
    product_bytes: int = 0
    calls_vectors: bool = True
    function_bytes: int = 0
    most_calls: int = 0
    queued_step: float = 0.0
    ready_calls: int = 0

    def freed(self, before: Step, after: Step) -> float:
        """About what one step saves besides if it makes fewer calls, or none at all.

        It becomes one function of machine code, or needs no queue any more.
        """
        if self._leaves_queue(before, after):
            return self.queued_step
        called = self._read_by_products(before.equations) > self.product_bytes
        called = called and not has_opaque(before.equations)
        if called and self.is_function(after.equations) and not self._is_queued(after):
            return self.called_step
        return 0.0

    def relieved(self, before: Step, after: Step) -> float:
        """The same, with the calls that it no longer makes, where it is none either.

        Rules that come later take more out of it, behind the loop.
        """
        calls = self.calls(before)
        if not calls:
            return 0.0
        left = self._number_of_calls(after)
        if 0 < self.most_calls < calls and left <= self.most_calls + _LATER:
            return self.queued_step
        return CALLED * max(0, calls - left)

    def calls_too_many(self, step: Step, but: Iterable[Any]) -> bool:
        """Whether a step needs a queue, and none if these products are sums."""
        sums = set(map(id, but))
        queued = sums and self._is_queued(step, sums=())
        return bool(queued) and number_of_calls(step, sums) <= self.most_calls

    def _leaves_queue(self, before: Step, after: Step) -> bool:
        was_queued = self._is_queued(before, margin=_A_LITTLE)
        return was_queued and not self._is_queued(after)

    def _is_queued(
        self, step: Step, margin: float = 1.0, sums: Collection[int] | None = None
    ) -> bool:
        if not self.most_calls or self._is_small(step, margin):
            return False
        sums = self._sums_of(step) if sums is None else sums
        return number_of_calls(step, sums) > self.most_calls

    def _is_small(self, step: Step, margin: float) -> bool:
        """Whether it may be one function, if that is known up to a margin."""
        limit = margin * self.function_bytes
        return self.is_function(step.equations) and moved(step) < limit

    def _sums_of(self, step: Step) -> set[int]:
        """The products of a step that will be sums."""
        products = (e for e in step.equations if e.primitive.name == "dot_general")
        return {id(e) for e in products if self.is_no_call(e)}

    def _number_of_calls(self, step: Step) -> int:
        return number_of_calls(step, self._sums_of(step))

    def calls(self, step: Step) -> int:
        """Calls of a step that surely is no function of machine code."""
        if not self.function_bytes or self._is_small(step, _A_LITTLE):
            return 0
        calls = self._number_of_calls(step)
        surely = moved(step) >= _SURELY * self.function_bytes
        return calls if surely or 0 < self.most_calls < calls else 0

    def becomes_one(self, step: Step, products: Iterable[Any]) -> bool:
        """Whether a step is one function only with these products as sums."""
        then = moved(step, fused=set(map(id, products)))
        return _AS_SUMS * then < self.function_bytes <= _AS_CALLS * moved(step)

    def is_function(self, equations: Sequence[Any]) -> bool:
        """Whether the compiler makes one function of a step."""
        is_small = self._read_by_products(equations) <= self.product_bytes
        return is_small and not has_opaque(equations)

    def _read_by_products(self, equations: Iterable[Any]) -> int:
        """Bytes of the operands of all products that may be calls."""
        products = (e for e in equations if e.primitive.name == "dot_general")
        calls = filter(self.is_call, products)
        return sum(number_of_bytes(atom) for e in calls for atom in e.invars)

    def is_call(self, product: Any) -> bool:
        """Whether a product that reads much is a call in a step."""
        return self.calls_vectors or not dot_sizes(product).is_of_vector
