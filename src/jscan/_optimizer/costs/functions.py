"""The cost model, steps: of which does XLA's CPU compiler make one function?

A loop whose step moves little is compiled as a whole. Any other step calls a function
for each group of operations that are fused, and many of them are run by a pool of
threads. What counts are the bytes of operands and results of those groups.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from jscan._jax.equations import unique_variables
from jscan._jax.jaxprs import is_variable, number_of_bytes
from jscan._jax.operations import (
    MOVES_DATA,
    RANDOM,
    REDUCTIONS,
    TRANSCENDENTAL,
    dot_sizes,
    is_elementwise,
    is_expensive,
)
from jscan._optimizer.costs.savings import Savings

_PIECES = "dynamic_slice", "gather"
IN_PLACE = ("scatter", "dynamic_update_slice")


@dataclass(frozen=True)
class Moved:
    """About what the fused operations of a step read and write.

    Attributes:
        bytes: Of all operands and results.
        stored: How many results there are.
        surely: How many of them no reader would rather work out again.
    """

    bytes: int
    stored: int
    surely: int = 0


def moved(
    equations: Iterable[Any], outside: Iterable[Any], fused: Collection[int] = ()
) -> Moved:
    """The same of these equations, of whose results some are read outside.

    What one operation reads, and what is not the operand of a call, is not stored. Of
    what is `fused`, given by `id`, nothing is.
    """
    reads: Counter[Any] = Counter()
    cheap: set[Any] = set()
    made, kept = set(), set(filter(is_variable, outside))
    pieces = 0
    for equation in equations:
        operands = unique_variables(equation.invars)
        name = equation.primitive.name
        if name.startswith((*_PIECES, *IN_PLACE)) and equation.invars[0] not in made:
            # Of a whole array that is there a piece is read, or written.
            operands = unique_variables(equation.invars[1:])
            size = number_of_bytes(equation.outvars[0])
            pieces += size if name in _PIECES else -size
        reads.update(operands)
        made.update(equation.outvars)
        if is_fused(equation) and name not in TRANSCENDENTAL:
            cheap.update(equation.outvars)
        if id(equation) not in fused and not is_fused(equation):
            kept.update(equation.outvars)
            if equation.primitive.name not in REDUCTIONS:
                kept.update(operands)
    stored = {v for v in made if reads[v] != 1 or v in kept}
    times = {v: reads[v] + (v in made) for v in {*reads, *stored} - (made - stored)}
    size = pieces + sum(n * number_of_bytes(v) for v, n in times.items())
    return Moved(size, len(stored), len((stored - cheap) | (stored & kept)))


def has_opaque(equations: Iterable[Any]) -> bool:
    """Whether one does what is neither arithmetic nor a product, like a sort."""
    known = {"dot_general", *TRANSCENDENTAL, *RANDOM}
    names = (e.primitive.name for e in equations if is_expensive(e))
    return any(name not in known for name in names)


def is_fused(equation: Any) -> bool:
    """Whether the compiler fuses an operation with what reads it."""
    name = equation.primitive.name
    if name == "dot_general" and dot_sizes(equation).contracted == 1:
        return True
    known = name in MOVES_DATA or name in RANDOM or name in TRANSCENDENTAL
    return known or is_elementwise(equation)


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
        pooled_calls: Results of such operations from which a step that is none takes as
            long as `called_step`.
        ready_calls: Functions of a program that may be ready at once before the
            executor wakes threads for them; 0 if any number may.
    """

    called_step: float = 0.0
    product_bytes: int = 0
    calls_vectors: bool = True
    function_bytes: int = 0
    pooled_calls: int = 0
    ready_calls: int = 0

    def freed(
        self, before: Sequence[Any], after: Sequence[Any], outside: Iterable[Any] = ()
    ) -> float:
        """About what one step saves besides if it becomes one function of machine code.

        Given are its equations as they are, those that stay, and what others read.
        """
        outside = set(outside)
        was, then = moved(before, outside), moved(after, outside)
        called = self._read_by_products(before) > self.product_bytes
        many = (
            was.surely + 1 >= self.pooled_calls
        )  # a step has others besides, its counter's
        called = called or (many and self._is_pooled(was, _A_LITTLE))
        called = called and not self._is_pooled(then)
        called = called and not has_opaque(before) and self.is_function(after)
        return self.called_step if called else 0.0

    def relieved(
        self, before: Sequence[Any], after: Sequence[Any], outside: Iterable[Any]
    ) -> float:
        """About what one step saves besides by the calls that it no longer makes.

        Given are the same; what stays of it may be no function either.
        """
        outside = set(outside)
        was, then = moved(before, outside), moved(after, outside)
        surely = replace(then, stored=then.stored + 1)
        if self._is_pooled(was) and not self._is_pooled(surely):
            return self.called_step
        return CALLED * max(0, self.calls(was) - then.stored)

    def _is_pooled(self, step: Moved, margin: float = 1.0) -> bool:
        least = margin * self.function_bytes
        return 0 < least <= step.bytes and step.stored >= self.pooled_calls

    def calls(self, step: Moved) -> int:
        """Calls of a step that surely is no function of machine code."""
        surely = step.bytes >= _SURELY * self.function_bytes > 0
        surely = surely or self._is_pooled(step)
        return step.stored if surely else 0

    def becomes_one(
        self, step: Sequence[Any], products: Iterable[Any], outside: Collection[Any]
    ) -> bool:
        """Whether a step is one function only with these products as sums."""
        was = moved(step, outside)
        then = moved(step, outside, fused=set(map(id, products)))
        return _AS_SUMS * then.bytes < self.function_bytes <= _AS_CALLS * was.bytes

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
