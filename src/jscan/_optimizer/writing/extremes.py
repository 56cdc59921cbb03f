"""Maxima and minima of many rows that keep NaN, as those of one row do.

XLA's CPU compiler hands sums and extremes of 4,096 numbers or more to a library
(YNNPACK, in JAX 0.10 to 0.12) that drops NaN: the maximum of ``[nan, 1, ...]`` is 1
there, and so is NaN gone from the mean of ``maximum(x, 0)``. A loop works on smaller
rows, which the compiler does itself. So where steps are done at once, extremes (of
pairs, along axes, so far, in windows) are written in a way that the library does not
know. The reductions are faster, too.

What a softmax subtracts stays as it is: all that reads it also reads the sum of the
exponentials, which is NaN then, and the library does a softmax in one piece.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from jscan._jax.equations import splice, with_body
from jscan._jax.jaxprs import Atom, is_jaxpr, is_variable, open_jaxpr
from jscan._jax.scans import is_scan
from jscan._optimizer.record.inlining import CALLS

_TYPES = (np.float32, np.float64, jnp.bfloat16)  # of which the library knows extremes
_BEYOND: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(("max", "cummax", "reduce_window_max"), lax.gt),
    **dict.fromkeys(("min", "cummin", "reduce_window_min"), lax.lt),
    "reduce_max": lax.max,
    "reduce_min": lax.min,
}
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
    left = _of_softmaxes(equations, outputs)
    written: list[Any] = []
    for equation in equations:
        name = equation.primitive.name
        if name not in _BEYOND or equation.outvars[0].aval.dtype not in _TYPES:
            written.append(_with_inner(equation, is_split))
        elif id(equation) in left:
            written.append(equation)
        else:
            function = _FORMS.get(name) or (_by_parts if is_split else _at_once)
            arguments = {**equation.params, "beyond": _BEYOND[name]}
            write = lambda *x, f=function, given=arguments: [f(*x, **given)]
            written += splice(write, equation.invars, equation)
    return written


def _with_inner(equation: Any, is_split: bool) -> Any:
    """The equation, its own programs written in the same way."""
    opened = CALLS | {"reduce", "reduce_window"}
    if equation.primitive.name not in opened and not is_scan(equation):
        return equation  # those of `scatter` stay what they are
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
    x, y = jnp.broadcast_arrays(x, y)
    return lax.select(beyond(x, y) | (x != x), x, y)


larger, smaller = (functools.partial(_pair, beyond=each) for each in (lax.gt, lax.lt))
"""The larger, or smaller, one of each pair, or NaN."""


def _so_far(x: Any, beyond: Any, axis: int, reverse: bool) -> Any:
    return lax.associative_scan(
        functools.partial(_pair, beyond=beyond), x, reverse, axis
    )


def _in_windows(x: Any, beyond: Any, **windows: Any) -> Any:
    start = x.dtype.type(-np.inf if beyond is lax.gt else np.inf)
    further = functools.partial(_pair, beyond=beyond)
    return lax.reduce_window(x, start, further, **windows)


_FORMS: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(("max", "min"), _pair),
    **dict.fromkeys(("cummax", "cummin"), _so_far),
    **dict.fromkeys(("reduce_window_max", "reduce_window_min"), _in_windows),
}


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


def _of_softmaxes(equations: Sequence[Any], outputs: Sequence[Atom]) -> set[int]:
    """The maxima (by `id`) that softmaxes subtract."""
    maxima = [e for e in equations if e.primitive.name == "reduce_max"]
    if not maxima or all(e.primitive.name != "exp" for e in equations):
        return set()
    found = (_of_softmax(e, equations, outputs) for e in maxima)
    return {number for numbers in found for number in numbers}


def _of_softmax(
    maximum: Any, equations: Sequence[Any], outputs: Sequence[Atom]
) -> set[int]:
    """A maximum and what limits it, if NaN reaches all its readers by a sum as well.

    That is the sum, over the same axes, of the exponentials of what it is the maximum
    of: NaN of another array, or along another axis, would be lost.
    """
    (whole,), axes = maximum.invars, maximum.params["axes"]
    same, moved, exponentials = {*maximum.outvars}, set(), set()
    read, summed, left = {*maximum.outvars}, set(), {id(maximum)}
    for other in equations:
        name, invars = other.primitive.name, {*filter(is_variable, other.invars)}
        if invars & same and name in _SAME_NUMBERS:
            same |= {*other.outvars}
            left.add(id(other))
        elif name == "sub" and other.invars[0] is whole and invars & (same - {whole}):
            moved |= {*other.outvars}
        elif name == "exp" and invars & moved:
            exponentials |= {*other.outvars}
        elif name == "reduce_sum" and invars & exponentials:
            summed |= {*other.outvars} if other.params["axes"] == axes else set()
        if invars & summed:
            summed |= {*other.outvars}
        if invars & read:
            read |= {*other.outvars}
    ends = {v for v in outputs if is_variable(v)} & read
    return left if summed and ends <= summed else set()
