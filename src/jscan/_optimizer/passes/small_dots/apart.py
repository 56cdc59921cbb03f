"""small_dots, products that stay apart from what reads them.

A product that is written as a sum runs within the operations that read it. Functions
among them are then computed number by number, unless one vector instruction does all
numbers: a step with ``tanh(h @ W)`` of 12 numbers takes 2 times as long by JAX 0.12.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from jscan._jax.jaxprs import is_variable
from jscan._jax.operations import (
    MOVES_DATA,
    POLYNOMIALS,
    TRANSCENDENTAL,
    dot_sizes,
    is_elementwise,
)
from jscan._optimizer.analysis.dependence import Dependence, Level
from jscan._optimizer.costs.machine import Machine
from jscan._optimizer.costs.tiny import AT_ONCE, matrix_of
from jscan._optimizer.record.loop import Loop

_NUMBER_BY_NUMBER = frozenset({"erf", "erfc", "sin", "cos"})
_FARTHEST = 32  # equations that are looked at behind a product


def apart(
    products: Sequence[Any], loop: Loop, machine: Machine, turned: Collection[int]
) -> set[int]:
    """The `id` of the products with vectors that pay as they are.

    With a matrix that lies in rows would be `turned`, given by `id`, for its columns to
    be added up: where a step waits for each of many such additions, it takes longer.
    """
    dependence = Dependence(loop)
    vectors = [e for e in products if dot_sizes(e).is_of_vector]
    becomes_one = machine.becomes_one(dependence.step(), products)
    readers = [_readers(product, dependence) for product in vectors]
    linear = Counter(i for one in readers for i in one.linear)
    behind = Counter(i for one in readers for i in one.functions_of_it)
    found = set()
    for one in readers:
        added = any(linear[i] > 1 for i in one.linear)
        meets = any(behind[i] > (i in one.functions_of_it) for i in one.everything)
        makes_one = added and becomes_one
        alone = len(readers) == 1
        sizes = dot_sizes(one.product)
        fills = not alone and machine.fills_a_register(sizes)
        waits = _waits(one, id(one.product) in turned, machine)
        if (
            (fills and "tanh" in one.beside)
            or (waits and not becomes_one)
            or _is_apart(one, meets and not added, makes_one, alone)
        ):
            found.add(id(one.product))
    return found


@dataclass(frozen=True)
class _Readers:
    """What a product runs with if it is a sum; equations are known by their `id`.

    Attributes:
        added: How many numbers are added up for each of `columns`.
        by_rows: Whether it has a constant matrix with a row for each.
        is_of_state: Whether the vector is one of the state.
        linear: What is computed of it before any function is.
        functions_of_it: What is computed of functions of it.
        names: Functions of it.
        beside: The same, with those that are read beside it.
    """

    product: Any
    columns: int
    added: int
    by_rows: bool
    is_of_state: bool
    linear: frozenset[int]
    functions_of_it: frozenset[int]
    names: frozenset[str]
    beside: frozenset[str]

    @property
    def everything(self) -> frozenset[int]:
        return self.linear | self.functions_of_it


def _waits(one: _Readers, turned: bool, machine: Machine) -> bool:
    """Whether a step waits for one addition after the other, of rows or of columns."""
    if not (one.by_rows and one.is_of_state):
        return False
    if turned:
        return one.added > machine.longest_row and not one.names
    return one.columns < AT_ONCE < one.added


def _is_apart(one: _Readers, meets: bool, makes_one: bool, alone: bool) -> bool:
    """Whether it is faster as a product.

    Args:
        one: A product and its readers.
        meets: Whether functions of it meet those of others.
        makes_one: Whether others are added to it, and the sums of all make one function
            of a step that would otherwise call for its operations.
        alone: Whether there are no others.
    """
    if one.columns == AT_ONCE:
        # Eight numbers of eight each are as fast, or faster, as they are.
        return alone and one.added == AT_ONCE and not one.names
    if one.columns < AT_ONCE:
        fits = meets or one.by_rows or (alone and one.is_of_state)
        return fits and not one.names.isdisjoint(POLYNOMIALS)
    if meets or not one.beside.isdisjoint(_NUMBER_BY_NUMBER):
        return True
    return one.columns < 2 * AT_ONCE and "tanh" in one.beside and not makes_one


def _readers(product: Any, dependence: Dependence) -> _Readers:
    sizes, (matrix, axes) = dot_sizes(product), matrix_of(product)
    read = lambda e: (user for v in e.outvars for user in dependence.users.get(v, ()))
    made = lambda e: (dependence.producer(v) for v in e.invars if is_variable(v))
    behind = _closure(read(product), read, _is_light)
    linear = _closure(read(product), read, _is_cheap)
    beside = _closure(behind.values(), made, _is_light)
    names = lambda found: frozenset(e.primitive.name for e in found.values())
    return _Readers(
        product,
        max(sizes.rows, sizes.columns),
        sizes.contracted,
        axes != (0,) and matrix in dependence.loop.constants,
        dependence.level_of(product) is Level.STATE,
        frozenset(linear),
        frozenset(behind.keys() - linear.keys()),
        names(behind) & TRANSCENDENTAL,
        names(beside) & TRANSCENDENTAL,
    )


def _closure(
    first: Iterable[Any], step: Callable[[Any], Iterable[Any]], fits: Any
) -> dict[int, Any]:
    """Equations that are reached through others that fit, by their `id`."""
    reached: dict[int, Any] = {}
    pending = list(first)
    while pending and len(reached) < _FARTHEST:
        equation = pending.pop()
        if equation is None or id(equation) in reached or not fits(equation):
            continue
        reached[id(equation)] = equation
        pending += step(equation)
    return reached


def _is_cheap(equation: Any) -> bool:
    return _is_light(equation) and equation.primitive.name not in TRANSCENDENTAL


def _is_light(equation: Any) -> bool:
    name = equation.primitive.name
    return is_elementwise(equation) or name in TRANSCENDENTAL or name in MOVES_DATA
