"""Move work on constants before the loop."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from jscan._base.kinds import counted
from jscan._jax.equations import evaluate, free_variables
from jscan._jax.jaxprs import fills_with_zero
from jscan._jax.operations import is_cut, is_elementwise, is_expensive, picks_a_number
from jscan._optimizer.analysis.dependence import Dependence, Level
from jscan._optimizer.record.context import Context
from jscan._optimizer.record.loop import Loop

_NUMBERS = "dimension_numbers"


def hoist_constants(loop: Loop, _: Context) -> Loop:
    """Evaluate once what depends on constants alone."""
    loop = _with_turned_products(loop)
    dependence = Dependence(loop)
    fixed = [e for e in loop.equations if dependence.level_of(e) is Level.CONSTANT]
    if not fixed:
        return loop
    rest = loop.without(fixed)
    pieces = {e.outvars[0]: e for e in fixed if picks_a_number(e) or is_cut(e)}
    read = dependence.read_elsewhere()
    read.update(free_variables([*rest.equations, *pieces.values()]))
    wanted = [v for e in fixed for v in e.outvars if v in read]
    values = evaluate(fixed, loop.constants, wanted)
    loop = replace(
        rest,
        constants={**loop.constants, **dict(zip(wanted, values, strict=True))},
        zeros=loop.zeros | {e.outvars[0] for e in fixed if fills_with_zero(e)},
        pieces={**loop.pieces, **pieces},
    )
    moved = sum(map(is_expensive, fixed))
    if not moved:
        return loop
    return loop.fired(f"{counted(moved, 'operation')} on constants alone, done once")


def _with_turned_products(loop: Loop) -> Loop:
    """Products of a matrix, not of the transposed one, if it is constant.

    The compiler writes ``A.T @ x`` so, and is up to 2 times as fast as with a matrix
    that is transposed before the loop. Which of both is stored, `small_dots` asks.
    """
    dependence, new = Dependence(loop), {}
    for equation in loop.equations:
        if equation.primitive.name != "dot_general" or equation.params[_NUMBERS][1][0]:
            continue
        operands, contracted = list(equation.invars), list(equation.params[_NUMBERS][0])
        for side, atom in enumerate(operands):
            made = dependence.producer(atom)
            if made is None or made.primitive.name != "transpose":
                continue
            turns = made.params["permutation"] == (1, 0) and len(contracted[side]) == 1
            if turns and dependence.level(atom) is Level.CONSTANT:
                (operands[side],) = made.invars
                contracted[side] = (1 - contracted[side][0],)
        if operands != equation.invars:
            numbers = tuple(contracted), equation.params[_NUMBERS][1]
            params = {**equation.params, _NUMBERS: numbers}
            new[id(equation)] = [equation.replace(invars=operands, params=params)]
    return loop.exchanged(new)


def return_pieces(loop: Loop, _: Context) -> Loop:
    """Read pieces of a constant array in the step again, where that costs nothing.

    Hoisting them helps other rules see constants, but each would be one more thing
    the loop carries along, and one more kernel to compile before it. A step reads a
    number of an array just as fast, and elementwise work a part of it. Parts of arrays
    return only to steps with a product, which XLA does not make one function of.
    """
    returned: dict[Any, Any] = {}
    wanted = [v for v in free_variables(loop.equations) if v.aval.size == 1]
    wanted += _parts_read_elementwise(loop)
    while wanted:
        picks = [loop.pieces[v] for v in wanted if v in loop.pieces]
        returned = {**{e.outvars[0]: e for e in picks}, **returned}
        wanted = [v for v in free_variables(picks) if v not in loop.constants]
    if not loop.constants.keys() >= set(free_variables(returned.values())):
        return loop
    return replace(loop, equations=(*returned.values(), *loop.equations))


def _parts_read_elementwise(loop: Loop) -> list[Any]:
    """The cut constants that elementwise work alone reads, beside a product."""
    if all(e.primitive.name != "dot_general" for e in loop.equations):
        return []
    others = [e for e in loop.equations if not is_elementwise(e)]
    elsewhere = {*Dependence(loop).read_elsewhere(), *free_variables(others)}
    read = free_variables(e for e in loop.equations if is_elementwise(e))
    return [v for v in read if v in loop.pieces and v not in elsewhere]
