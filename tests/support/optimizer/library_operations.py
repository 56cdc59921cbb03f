"""What steps call of JAX's libraries: windows, solvers, transforms, callbacks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from support.optimizer.operation import (
    Operation,
    alike,
    at_least_vector,
    conform,
    elementwise,
    on_reals,
    pairwise,
)

Function = Callable[[jax.Array], jax.Array]


def pooled(a: jax.Array, option: int) -> jax.Array:
    """Extremes and sums of windows of the last axis."""
    a = at_least_vector(a)
    reals = a.real
    start, combine = ((-np.inf, lax.max), (0.0, lax.add), (np.inf, lax.min))[option % 3]
    ones = (1,) * (a.ndim - 1)
    padding = "SAME" if option % 2 else "VALID"
    start = np.asarray(start, reals.dtype)
    windows = lax.reduce_window(reals, start, combine, (*ones, 2), (*ones, 1), padding)
    return windows.astype(a.dtype) if windows.size else a


def cumulated(a: jax.Array, option: int) -> jax.Array:
    """Running extremes, products and sums of exponentials."""
    a = at_least_vector(a)
    function = (lax.cummax, lax.cummin, lax.cumprod, lax.cumlogsumexp)[option]
    return function(a.real, axis=a.ndim - 1, reverse=option % 2 == 1).astype(a.dtype)


def reduced(a: jax.Array, option: int) -> jax.Array:
    """A reduction that says itself how two numbers become one."""
    a = at_least_vector(a)
    combine = (lax.max, lax.min, lax.mul, lax.add)[option]
    start = (-jnp.inf, jnp.inf, 1.0, 0.0)[option]
    start = np.asarray(start, a.real.dtype)
    return lax.reduce(a.real, start, combine, (a.ndim - 1,)).astype(a.dtype)


def moments(a: jax.Array, option: int) -> jax.Array:
    """Means, variances and norms along the last axis or all of them."""
    axis = None if option % 2 else -1
    a = at_least_vector(a)
    if option // 2:
        return jnp.var(a, axis=axis).astype(a.dtype)
    return a.mean(axis=axis)


def best(a: jax.Array, i: jax.Array, option: int) -> jax.Array:
    """The place of an extreme."""
    find = jnp.argmin if option % 2 else jnp.argmax
    return find(at_least_vector(a.real), axis=-1).astype(i.dtype)


def ranked(a: jax.Array, option: int) -> jax.Array:
    """The largest numbers, or all of them in order of others."""
    a = at_least_vector(a)
    if option % 2:
        return lax.top_k(a.real, min(2, a.shape[-1]))[0].astype(a.dtype)
    order = jnp.argsort(-a.real, axis=-1)
    return jnp.take_along_axis(a, order, axis=-1)


def _wide(a: jax.Array) -> str:
    """The type that sums of such numbers are kept in."""
    return "float32" if a.dtype.itemsize == 2 else a.dtype.name


def in_single(function: Function) -> Callable[..., jax.Array]:
    """Lets a function of float32 and float64 take every type, by its real part."""

    def apply(a: jax.Array, option: int) -> jax.Array:
        wide = a.real.astype(_wide(a.real))
        return function(wide).astype(a.dtype)

    return apply


def _as_square(a: jax.Array) -> jax.Array:
    a = at_least_vector(a)
    size = min(3, a.shape[-1])
    square = conform(a, (size, size))
    return jnp.sin(square) + 4 * jnp.eye(size, dtype=a.dtype)


def solved(a: jax.Array) -> jax.Array:
    """A small system of equations."""
    square = _as_square(a)
    return jnp.linalg.solve(square, square[0])


def factored(a: jax.Array) -> jax.Array:
    """The Cholesky factor of a small covariance."""
    square = _as_square(a)
    return jnp.linalg.cholesky(square @ square.T)


def transformed(a: jax.Array) -> jax.Array:
    """The power of a signal."""
    return jnp.abs(jnp.fft.rfft(at_least_vector(a), axis=-1)) ** 2


def convolved(a: jax.Array, b: jax.Array, option: int) -> jax.Array:
    """A filter of two taps over each row; XLA pads with zeros, or does not multiply."""
    a = at_least_vector(a)
    taps = jnp.nan_to_num(conform(b, (2,)), posinf=1, neginf=-1)
    rows = a.reshape(-1, 1, a.shape[-1])
    kept = lax.conv_general_dilated(rows, taps[None, None], (1,), [(option % 2, 1)])
    return kept.reshape(*a.shape[:-1], kept.shape[-1])


def pairs(a: jax.Array, b: jax.Array, option: int) -> jax.Array:
    """Products of each row with itself, as attention makes them."""
    a, b = alike(at_least_vector(a), at_least_vector(b))
    heads = a.reshape(a.shape[0] if a.ndim == 2 else 1, -1)
    others = b.reshape(heads.shape)
    if option % 2:
        return jnp.einsum("hk,hk->h", heads, others)
    scores = jnp.einsum("hk,jk->hj", heads, others)
    return jax.nn.softmax(scores.real, axis=-1).astype(a.dtype) @ others


def precise(a: jax.Array, b: jax.Array, option: int) -> jax.Array:
    """A product that is added up in a wider type, or a sum that is."""
    a, b = alike(at_least_vector(a), at_least_vector(b))
    wide = _wide(a)
    if option % 2:
        return (a * b).sum(axis=-1, dtype=wide).astype(a.dtype)
    weight = conform(b, (a.shape[-1], a.shape[-1]))
    return jnp.matmul(a, weight, preferred_element_type=wide).astype(a.dtype)


def scattered(a: jax.Array, b: jax.Array, i: jax.Array, option: int) -> jax.Array:
    """Several rows added or compared at computed places, of which some are outside."""
    a = at_least_vector(a)
    b = conform(b, a.shape)
    places = a.real.at[conform(i, (a.shape[0],))]
    write = (places.add, places.max, places.min)[option % 3]
    return write(b.real).astype(a.dtype)


def window(a: jax.Array, i: jax.Array, option: int) -> jax.Array:
    """Neighbouring numbers from a computed place on, of which some may be outside."""
    a = at_least_vector(a)
    size = max(1, a.shape[0] - option)
    return lax.dynamic_slice_in_dim(a, conform(i, ()).astype(jnp.int32), size)


def by_recursion(a: jax.Array, option: int) -> jax.Array:
    """A recurrence taken by `lax.associative_scan`, or by a map over rows."""
    a = at_least_vector(a)
    if option % 2:
        return lax.map(lambda row: jnp.sin(row) * row.sum(), a)
    combine = lambda x, y: (x[0] * y[0], x[1] * y[0] + y[1])
    return lax.associative_scan(combine, (jnp.tanh(a), a), axis=0)[1]


@jax.custom_jvp
def half_derivative(a: jax.Array) -> jax.Array:
    return jnp.sin(a) * a


@half_derivative.defjvp
def _(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    (a,), (tangent,) = primals, tangents
    return half_derivative(a), 0.5 * jnp.cos(a) * tangent


def _sine_outside(method: str | None) -> Function:
    """A sine that NumPy takes, with a derivative."""

    @jax.custom_jvp
    def sine(a: jax.Array) -> jax.Array:
        shape = jax.ShapeDtypeStruct(a.shape, a.dtype)
        return jax.pure_callback(_numpy_sine, shape, a, vmap_method=method)

    @sine.defjvp
    def _(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
        (a,), (tangent,) = primals, tangents
        return sine(a), jnp.cos(a) * tangent

    return sine


def _numpy_sine(a: Any) -> Any:
    with np.errstate(invalid="ignore"):
        return np.sin(np.asarray(a)).astype(a.dtype)


_SINES = [_sine_outside(m) for m in ("sequential", "expand_dims", "broadcast_all")]
_ALONE = _sine_outside(None)

LIBRARY: dict[str, Operation] = {
    "pooled": Operation(1, 0, pooled),
    "cumulated": Operation(1, 0, cumulated),
    "reduced": Operation(1, 0, reduced),
    "moments": Operation(1, 0, moments),
    "best": Operation(1, 1, best, gives_integer=True),
    "ranked": Operation(1, 0, ranked),
    "solved": Operation(1, 0, in_single(solved)),
    "factored": Operation(1, 0, in_single(factored)),
    "transformed": Operation(1, 0, in_single(transformed)),
    "convolved": Operation(2, 0, convolved),
    "pairs": Operation(2, 0, pairs),
    "precise": Operation(2, 0, precise),
    "scattered": Operation(2, 1, scattered),
    "window": Operation(1, 1, window),
    "by_recursion": Operation(1, 0, by_recursion),
    "half_derivative": elementwise(half_derivative),
    "callback": Operation(1, 0, lambda a, option: _SINES[option % 3](a)),
    "callback_alone": Operation(1, 0, lambda a, option: _ALONE(a), no_batch=True),
    "large": elementwise(lambda a: a * jnp.asarray(256, a.dtype)),
    "clipped": Operation(1, 0, on_reals(lambda a: jnp.clip(a, -0.5, 0.75))),
    "rounded": Operation(1, 0, on_reals(lambda a: lax.reduce_precision(a, 8, 6))),
    "floored": Operation(1, 0, on_reals(lambda a: jnp.floor(a * 4) + jnp.sign(a))),
    "expm1": Operation(1, 0, on_reals(lambda a: jnp.log1p(jnp.expm1(a) ** 2))),
    "erf": Operation(1, 0, on_reals(jax.scipy.special.erf)),
    "cube": elementwise(lambda a: a**3),
    "barrier": elementwise(lax.optimization_barrier),
    "logaddexp": pairwise(lambda a, b: jnp.logaddexp(a.real, b.real).astype(a.dtype)),
    "remainder": pairwise(
        lambda a, b: jnp.fmod(a.real, 1.5 + jnp.square(b.real)).astype(a.dtype)
    ),
    "angle": pairwise(lambda a, b: jnp.arctan2(a.real, b.real).astype(a.dtype)),
}
