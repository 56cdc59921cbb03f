"""associate (opt-in): a linear recurrence is an associative scan over time.

A carry with ``c_next = a_t * c + b_t`` element by element, where neither `a_t` nor
`b_t` depends on the state, composes: two steps are one step of the same form. So does
``max(c, x_t)``, and `min`. All states then come from ``jax.lax.associative_scan`` in
about log(T) batched operations, and of rows that are split in time each device works
on its own. Rounding changes more than by the other rules, infinite coefficients may
become NaN, and on a CPU with few cores it is slower than the loop: it runs only if
asked for.
"""

import itertools
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from jscan._jax.equations import evaluate, free_variables, needed
from jscan._jax.jaxprs import stack_bytes
from jscan._optimizer.analysis.dependence import Dependence, Level, batchable
from jscan._optimizer.analysis.placement import whole_in_time
from jscan._optimizer.record.cleanup import without_carries
from jscan._optimizer.record.context import Context
from jscan._optimizer.record.loop import Carry, Known, Loop, strong
from jscan._optimizer.writing.batches import batched
from jscan._optimizer.writing.extremes import larger, smaller
from jscan._optimizer.writing.prefixes import LINEAR, Steps, extreme, states

_SUMS = frozenset({"add", "add_any", "sub", "neg"})
_EXTREMES = {"max": extreme(larger), "min": extreme(smaller)}


def run(loop: Loop, context: Context) -> Loop:
    """Replace every carry whose steps compose by rows known beforehand."""
    reasons = [_why_not(loop, context, carry) for carry in loop.carries]
    while None in reasons:  # others may have waited for this one
        loop = _replaced(loop, context, loop.carries[reasons.index(None)])
        reasons = [_why_not(loop, context, carry) for carry in loop.carries]
    for carry, why in zip(loop.carries, reasons, strict=True):
        name = carry.variable.aval.str_short()
        loop = loop.refused(f"the state {name} stays: {why}")
    if context.splits_time and loop.carries:  # step by step, each device reads all rows
        rows = {v: whole_in_time(x) for v, x in loop.sequences.items()}
        loop = replace(loop, sequences=rows)
    return loop


def suggest(loop: Loop, context: Context) -> Loop:
    """Name the states that `run` would solve, where it is not asked for and pays."""
    for carry in loop.carries if context.machine.associates else ():
        if _why_not(loop, context, carry) is None:
            name = carry.variable.aval.str_short()
            loop = loop.refused(
                f"not asked for: the state {name} is a linear recurrence, of which it "
                "makes a few operations on all steps, rounded in another order"
            )
    return loop


def _path(loop: Loop, carry: Carry) -> list[Any]:
    """The equations of a step that a carry's next value needs."""
    return needed([e for e in loop.equations if not e.effects], [carry.update])


def _why_not(loop: Loop, context: Context, carry: Carry) -> str | None:
    """The reason why a carry is not a recurrence of its own that composes, if so."""
    variable, path = carry.variable, _path(loop, carry)
    states = {c.variable for c in loop.carries} & set(free_variables(path))
    keeps = _extreme(loop, carry) is not None
    if not (keeps or jnp.issubdtype(variable.aval.dtype, jnp.inexact)):
        return "it is not a floating point number"
    if states != {variable}:
        return "it depends on other state, or not on itself"
    if not all(batchable(e, loop.length) for e in path):
        return "its update cannot be batched"
    if stack_bytes([variable] * 3, loop.length) > context.budget:
        return f"its rows do not fit the memory budget of {context.budget} bytes"
    dependence = Dependence(loop)
    for equation in path:
        moves = dependence.level_of(equation) is Level.STATE
        if moves and not keeps and not _is_linear(equation, dependence, variable):
            return f"{equation.primitive.name} is not linear in it, element by element"
    return None


def _extreme(loop: Loop, carry: Carry) -> Steps | None:
    """What a carry keeps, if that is the largest or the smallest of all that came."""
    dependence = Dependence(loop)
    equation = dependence.producer(carry.update)
    if equation is None or equation.primitive.name not in _EXTREMES:
        return None
    if any(a.aval.shape != carry.variable.aval.shape for a in equation.invars):
        return None  # a number, which is spread over the state
    moving = [a for a in equation.invars if dependence.level(a) is Level.STATE]
    return _EXTREMES[equation.primitive.name] if moving == [carry.variable] else None


def _is_linear(equation: Any, dependence: Dependence, variable: Any) -> bool:
    """Whether an equation of the update is linear in the state, element by element."""
    name, operands = equation.primitive.name, equation.invars
    moving = [dependence.level(a) is Level.STATE for a in operands]
    alike = [equation.outvars[0], *itertools.compress(operands, moving)]
    kind = variable.aval.shape, variable.aval.dtype
    if any((a.aval.shape, a.aval.dtype) != kind for a in alike):
        return False
    if name == "mul":
        return sum(moving) == 1
    return name in _SUMS or (name == "div" and moving == [True, False])


def _replaced(loop: Loop, context: Context, carry: Carry) -> Loop:
    variable, kind = carry.variable, _extreme(loop, carry)
    if kind is None:
        kind, rows = LINEAR, _coefficients(loop, context, carry)
    else:
        (equation,) = (e for e in loop.equations if carry.update in e.outvars)
        others = [a for a in equation.invars if a is not variable]
        rows = batched(loop, loop.equations, others, context)
    found = states(
        kind, rows, strong(carry), reverse=loop.reverse, is_split=context.is_split
    )
    more = {variable: found.before, carry.update: found.after}
    loop = replace(
        loop,
        sequences={**loop.sequences, **more},
        equations=tuple(e for e in loop.equations if carry.update not in e.outvars),
    )
    loop = without_carries(loop, {variable: Known(found.final)})
    what = "a linear recurrence" if kind is LINEAR else "a running extreme"
    return loop.fired(f"{what} is an associative scan over time")


def _coefficients(loop: Loop, context: Context, carry: Carry) -> tuple[Any, Any]:
    """Rows `[T, ...]` of the factor and the offset of the update."""
    dependence, path = Dependence(loop), _path(loop, carry)
    fixed = [e for e in path if dependence.level_of(e) < Level.STATE]
    moving = [e for e in path if dependence.level_of(e) is Level.STATE]
    inputs = [v for v in free_variables(moving) if v is not carry.variable]
    values = batched(loop, fixed, inputs, context)
    aval = carry.variable.aval
    zero, one = jnp.zeros(aval.shape, aval.dtype), jnp.ones(aval.shape, aval.dtype)

    def step(*operands: Any) -> tuple[Any, Any]:
        known = dict(zip(inputs, operands, strict=True))

        def update(state: Any) -> Any:
            return evaluate(moving, {**known, carry.variable: state}, [carry.update])[0]

        # Linear and element by element: its derivative is the factor.
        offset, factor = jax.jvp(update, (zero,), (one,))
        return factor, offset

    return jax.vmap(step, axis_size=loop.length)(*values)
