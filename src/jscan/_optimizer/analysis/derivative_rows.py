"""What JAX stores of a loop's step for its derivative, before there is one.

A product stores either operand where the other one moves, a quotient its own. What the
step reads anyway, a sequence or a constant, takes no row of its own. This is what the
derivative by states and constants needs: sequences are mostly data.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from jscan._base.lists import cut
from jscan._jax.jaxprs import Atom, is_variable
from jscan._jax.operations import (
    CHEAPER_THAN_A_ROW,
    ELEMENTWISE,
    MOVES_DATA,
    REDUCTIONS,
    TRANSCENDENTAL,
)
from jscan._jax.scans import ScanParameters
from jscan._optimizer.record.inlining import inline_calls, is_plain_call

_PRODUCTS = frozenset({"mul", "dot_general"})
# Of these JAX stores a power of the operand, or its sign.
_POWERS = frozenset({"integer_pow", "square", "abs"})
_OTHERS = ELEMENTWISE | TRANSCENDENTAL | MOVES_DATA | REDUCTIONS | {"sort", "cumsum"}


@dataclass(frozen=True)
class DerivativeRows:
    """Rows that are stored, as JAX does it and with cheap arithmetic done again.

    Attributes:
        stored: Variables that JAX stores a row of.
        fewer: Those from which all of these can be made by cheap arithmetic.
        again: The results of that arithmetic.
    """

    stored: list[Any]
    fewer: list[Any]
    again: list[Any]


def derivative_rows(scan: ScanParameters) -> DerivativeRows | None:
    """The same of a loop; `None` where a step, or the size of a row, is not known."""
    body = scan.body
    counts = [scan.num_constants, scan.num_carry]
    counts.append(len(body.invars) - sum(counts))
    constants, states, sequences = cut(body.invars, counts)
    equations, _ = inline_calls(body.eqns, is_plain_call)
    fixed = _made_of(constants, equations)
    needed = list(_needed(equations, {*filter(_moves, [*constants, *states])}))
    if None in needed:
        return None
    free = {*fixed, *sequences}
    stored = [v for v in dict.fromkeys(needed) if v not in free]
    made = {result: e for e in equations for result in e.outvars}
    fewer, again = _trace_back(stored, made, free)
    sizes = (v.aval.size for v in (*stored, *fewer, *again))
    if not all(isinstance(size, int) for size in sizes):
        return None
    return DerivativeRows(stored, fewer, again)


def _needed(equations: Sequence[Any], moving: set[Any]) -> Iterator[Any]:
    """What the derivative of each equation reads; `None` for an unknown one."""
    for equation in equations:
        if moving.isdisjoint(filter(is_variable, equation.invars)):
            continue
        moving.update(filter(_moves, equation.outvars))
        name = equation.primitive.name
        if name in _PRODUCTS or name == "div":
            yield from _of_product(equation, moving)
        elif name in _POWERS:
            yield equation.outvars[0]  # something of that size, as cheap to make
        elif name not in _OTHERS:
            yield None


def _of_product(equation: Any, moving: set[Any]) -> Iterator[Any]:
    left, right = equation.invars
    if not is_variable(right):
        return
    if is_variable(left) and left in moving:
        yield right
    if right in moving:
        if is_variable(left):
            yield left
        if equation.primitive.name == "div":
            yield equation.outvars[0]


def _trace_back(
    stored: list[Any], made: dict[Any, Any], free: set[Any]
) -> tuple[list[Any], list[Any]]:
    """What these rows can be made from, and the results of what makes them."""
    fewer: list[Any] = []
    again: list[Any] = []
    waiting, seen = list(stored), set(free)
    while waiting:
        variable = waiting.pop()
        if not is_variable(variable) or variable in seen:
            continue
        seen.add(variable)
        equation = made.get(variable)
        if equation is not None and equation.primitive.name in CHEAPER_THAN_A_ROW:
            again.append(variable)
            waiting += equation.invars
        else:
            fewer.append(variable)
    return fewer, again


def _made_of(constants: Iterable[Any], equations: Iterable[Any]) -> set[Any]:
    """The constants, and what is made of nothing else."""
    fixed = set(constants)
    for equation in equations:
        if all(v in fixed for v in filter(is_variable, equation.invars)):
            fixed.update(equation.outvars)
    return fixed


def _moves(atom: Atom) -> bool:
    return is_variable(atom) and jnp.issubdtype(atom.aval.dtype, jnp.inexact)
