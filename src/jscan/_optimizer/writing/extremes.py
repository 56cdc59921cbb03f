"""Maxima and minima of many rows that keep NaN, as those of one row do.

XLA's CPU compiler hands sums and extremes of 4,096 numbers or more to a library
(YNNPACK, in JAX 0.10 to 0.12) that drops NaN: the maximum of ``[nan, 1, ...]`` is 1
there, and so is NaN gone from the mean of ``maximum(x, 0)``. A loop works on smaller
rows, which the compiler does itself. So where steps are done at once, extremes are
written in a way that the library does not know. The reductions are faster, too.

What a softmax subtracts stays as it is: all that reads it also reads the sum of the
exponentials, which is NaN then, and the library does a softmax in one piece.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from jscan._jax.equations import splice, with_body
from jscan._jax.jaxprs import Atom, is_jaxpr, is_variable, open_jaxpr

_WIDE = (np.float32, np.float64)
_BEYOND: dict[str, Callable[..., Any]] = {
    "max": lax.gt,
    "min": lax.lt,
    "reduce_max": lax.max,
    "reduce_min": lax.min,
}
# What runs a program as it stands; those of `reduce` or `scatter` stay what they are.
_CALLS = frozenset(
    {"jit", "closed_call", "scan", "remat2"} | {"custom_jvp_call", "custom_vjp_call"}
)
# Between a maximum and what it is subtracted from.
_SAME_NUMBERS = frozenset(
    {"broadcast_in_dim", "reshape", "squeeze", "stop_gradient", "is_finite", "max"}
    | {"select_n", "convert_element_type"}
)


def keeping_nan(
    equations: Sequence[Any], outputs: Sequence[Atom], is_split: bool
) -> list[Any]:
    """The equations of a step, fit to be batched on a CPU.

    With `is_split`, reductions are those that a compiler for several devices can do in
    parts.
    """
    left = {id(e) for e in equations if _is_softmax(e, equations, outputs)}
    written: list[Any] = []
    for equation in equations:
        name = equation.primitive.name
        if name not in _BEYOND or equation.outvars[0].aval.dtype not in _WIDE:
            written.append(_with_inner(equation, is_split))
        elif id(equation) in left:
            written.append(equation)
        else:
            function = _pair if name in ("max", "min") else _reduction(is_split)
            arguments = {**equation.params, "beyond": _BEYOND[name]}
            write = lambda *x, f=function, given=arguments: [f(*x, **given)]
            written += splice(write, equation.invars, equation)
    return written


def _with_inner(equation: Any, is_split: bool) -> Any:
    """The equation, its own programs written in the same way."""
    if equation.primitive.name not in _CALLS:
        return equation
    inner = {k: p for k, p in equation.params.items() if is_jaxpr(p)}
    for key, program in inner.items():
        body, _ = open_jaxpr(program)
        changed = keeping_nan(body.eqns, body.outvars, is_split)
        if program is body:
            inner[key] = body.replace(eqns=changed)
        else:
            inner[key] = with_body(program, changed, body.outvars)
    return equation.replace(params={**equation.params, **inner})


def _pair(x: Any, y: Any, beyond: Any) -> Any:
    """The larger or smaller one of each pair."""
    x, y = jnp.broadcast_arrays(x, y)
    return lax.select(beyond(x, y) | (x != x), x, y)


def _reduction(is_split: bool) -> Callable[..., Any]:
    return _by_parts if is_split else _at_once


def _by_parts(x: Any, beyond: Any, axes: Any, **_: Any) -> Any:
    reduce = lax.reduce_max if beyond is lax.max else lax.reduce_min
    is_nan = lax.reduce_or(x != x, axes)
    found = reduce(x, axes)
    return lax.select(is_nan, lax.full_like(found, np.nan), found)


def _at_once(x: Any, beyond: Any, axes: Any, **_: Any) -> Any:
    start = x.dtype.type(-np.inf if beyond is lax.max else np.inf)
    both = lambda a, b: (beyond(a[0], b[0]), a[1] | b[1])
    found, is_nan = lax.reduce((x, x != x), (start, np.bool_(False)), both, axes)
    return lax.select(is_nan, lax.full_like(found, np.nan), found)


def _is_softmax(
    equation: Any, equations: Sequence[Any], outputs: Sequence[Atom]
) -> bool:
    """Whether a NaN reaches all that reads a maximum by way of a sum as well."""
    if equation.primitive.name not in ("max", "reduce_max"):
        return False
    same, moved, exponentials = {*equation.outvars}, set(), set()
    read, summed = {*equation.outvars}, set()
    for other in equations:
        name, invars = other.primitive.name, {*filter(is_variable, other.invars)}
        taken = {*filter(is_variable, other.invars[1:])}
        if invars & same and name in _SAME_NUMBERS:
            same |= {*other.outvars}
        if name == "sub" and taken & same:
            moved |= {*other.outvars}
        if name == "exp" and invars & moved:
            exponentials |= {*other.outvars}
        if (name == "reduce_sum" and invars & exponentials) or invars & summed:
            summed |= {*other.outvars}
        if invars & read:
            read |= {*other.outvars}
    ends = {v for v in outputs if is_variable(v)} & read
    return bool(summed) and ends <= summed
