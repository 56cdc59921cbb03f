"""The cost model, steps: of which does XLA's CPU compiler make one function?

A loop whose step moves little is compiled as a whole. Any other step calls a function
for each group of operations that are fused, and many of them are run by a pool of
threads. What counts are the bytes of operands and results of those groups.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
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

_PIECES = "dynamic_slice", "gather"
IN_PLACE = ("scatter", "dynamic_update_slice")


@dataclass(frozen=True)
class Moved:
    """About what the fused operations of a step read and write.

    Attributes:
        bytes: Of all operands and results.
        stored: How many results there are.
    """

    bytes: int
    stored: int


def moved(equations: Iterable[Any], outside: Iterable[Any]) -> Moved:
    """The same of these equations, of whose results some are read outside.

    What one operation reads, and what is not the operand of a call, is not stored.
    """
    reads: Counter[Any] = Counter()
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
        if not _is_fused(equation):
            kept.update(equation.outvars)
            if equation.primitive.name not in REDUCTIONS:
                kept.update(operands)
    stored = {v for v in made if reads[v] != 1 or v in kept}
    times = {v: reads[v] + (v in made) for v in {*reads, *stored} - (made - stored)}
    size = pieces + sum(n * number_of_bytes(v) for v, n in times.items())
    return Moved(size, len(stored))


def read_by_products(equations: Iterable[Any]) -> int:
    """Bytes of the operands of all products."""
    products = (e for e in equations if e.primitive.name == "dot_general")
    return sum(number_of_bytes(atom) for e in products for atom in e.invars)


def has_opaque(equations: Iterable[Any]) -> bool:
    """Whether one does what is neither arithmetic nor a product, like a sort."""
    known = {"dot_general", *TRANSCENDENTAL, *RANDOM}
    names = (e.primitive.name for e in equations if is_expensive(e))
    return any(name not in known for name in names)


def _is_fused(equation: Any) -> bool:
    name = equation.primitive.name
    if name == "dot_general" and dot_sizes(equation).contracted == 1:
        return True
    known = name in MOVES_DATA or name in RANDOM or name in TRANSCENDENTAL
    return known or is_elementwise(equation)
