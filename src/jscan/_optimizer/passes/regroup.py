"""regroup: two constants that a step multiplies by in turn are multiplied once.

An attention decoder asks ``K @ (s @ W)`` at each step, where `K` and `W` are the same
at all of them: ``s @ (W @ K.T)`` takes one product, whose constant part is done once.
Whether that is less work depends on the sizes alone; a matrix that was factored on
purpose, as a product of two thin ones, stays so. It is done where it is asked for: what
two constants make of each other may lie outside the range of their type, however
harmless each is.
"""

from dataclasses import dataclass
from typing import Any

import jax
from jax.lax import dot_general

from jscan._base.kinds import counted
from jscan._jax.equations import splice
from jscan._jax.jaxprs import Atom, is_variable, number_of_bytes
from jscan._jax.names import primitives
from jscan._jax.operations import dot_sizes
from jscan._optimizer.analysis.dependence import Dependence, Level
from jscan._optimizer.analysis.linearity import WIDE_TYPES
from jscan._optimizer.record.cleanup import drop_unused
from jscan._optimizer.record.context import Context
from jscan._optimizer.record.loop import Loop


@dataclass(frozen=True)
class _Product:
    """A product with a constant: which axes of each operand are added up, in pairs."""

    equation: Any
    constant: Atom
    other: Atom
    constant_axes: tuple[int, ...]
    other_axes: tuple[int, ...]
    constant_is_left: bool

    @property
    def multiplications(self) -> int:
        return dot_sizes(self.equation).multiplications


def run(loop: Loop, context: Context) -> Loop:
    """Put the constants of such products together, from the first to the last."""
    new, count = _regrouped(loop, context)
    if not count:
        return loop
    return new.fired(f"{counted(count, 'product')} of two constants done once")


def suggest(loop: Loop, context: Context) -> Loop:
    """Say what `run` would gain, where it is not asked for."""
    new, count = _regrouped(loop, context)
    if not count:
        return loop
    before, after = map(_multiplications, (loop, new))
    return loop.refused(
        f"not asked for: with constants multiplied once, a step does {after} "
        f"multiplications of {before}, rounded in another order"
    )


def _regrouped(loop: Loop, context: Context) -> tuple[Loop, int]:
    count = 0
    while (new := _found(loop, context)) is not None:
        loop, count = drop_unused(loop.exchanged(new)), count + 1
    return loop, count


def _multiplications(loop: Loop) -> int:
    """Of the products of a step that cannot be done before it."""
    level_of = Dependence(loop).level_of
    return sum(
        dot_sizes(e).multiplications
        for e in loop.equations
        if e.primitive is primitives.dot_general_p and level_of(e) is not Level.CONSTANT
    )


def _found(loop: Loop, context: Context) -> dict[int, list[Any]] | None:
    dependence = Dependence(loop)
    elsewhere = dependence.read_elsewhere()
    for equation in loop.equations:
        outer = _product(equation, dependence)
        made = outer and dependence.producer(outer.other)
        inner = made and _product(made, dependence)
        if not outer or not inner or not _in_turn(inner, outer):
            continue
        between = outer.other
        read_once = len(dependence.users[between]) == 1 and between not in elsewhere
        new = _together(inner, outer)
        before = outer.multiplications + read_once * inner.multiplications
        put_together, after = (dot_sizes(e).multiplications for e in new[-2:])
        pays = loop.length * (before - after) > put_together
        if pays and number_of_bytes(new[-2].outvars[0]) <= context.budget:
            return {id(equation): new}
    return None


def _product(equation: Any, dependence: Dependence) -> _Product | None:
    """A product of something that changes by a constant, without batch axes."""
    if equation.primitive is not primitives.dot_general_p:
        return None
    axes, batch = equation.params["dimension_numbers"]
    changing = [dependence.changes(atom) for atom in equation.invars]
    if batch != ((), ()) or sum(changing) != 1:
        return None
    constant = changing.index(False)
    if not is_variable(equation.invars[constant]):
        return None
    return _Product(
        equation,
        equation.invars[constant],
        equation.invars[1 - constant],
        tuple(axes[constant]),
        tuple(axes[1 - constant]),
        constant == 0,
    )


def _in_turn(inner: _Product, outer: _Product) -> bool:
    """Whether the second product adds up all that the first took of its constant."""
    left, right = inner.equation, outer.equation
    types = {a.aval.dtype for e in (left, right) for a in (*e.invars, *e.outvars)}
    how = "precision", "preferred_element_type", "out_sharding"
    alike = all(left.params.get(name) == right.params.get(name) for name in how)
    if not alike or len(types) > 1 or not types <= WIDE_TYPES:
        return False
    free = inner.constant.aval.ndim - len(inner.constant_axes)
    first = 0 if inner.constant_is_left else left.outvars[0].aval.ndim - free
    return sorted(outer.other_axes) == list(range(first, first + free))


def _together(inner: _Product, outer: _Product) -> list[Any]:
    """The equations of the product of both constants, and of the one with it."""
    params = outer.equation.params
    how = {name: params[name] for name in ("precision", "preferred_element_type")}
    taken = [a for a in range(inner.constant.aval.ndim) if a not in inner.constant_axes]
    first = min(outer.other_axes, default=0)
    contracted = tuple(taken[axis - first] for axis in outer.other_axes)
    kept = sorted(inner.constant_axes)
    axes = tuple(map(kept.index, inner.constant_axes))

    def value(first: jax.Array, second: jax.Array, other: jax.Array) -> jax.Array:
        numbers = (contracted, outer.constant_axes), ((), ())
        both = dot_general(first, second, numbers, **how)
        if outer.constant_is_left:
            return dot_general(both, other, ((axes, inner.other_axes), ((), ())), **how)
        return dot_general(other, both, ((inner.other_axes, axes), ((), ())), **how)

    operands = [inner.constant, outer.constant, inner.other]
    return splice(value, operands, outer.equation)
