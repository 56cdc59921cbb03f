"""What the body of a random loop can do, one entry an operation."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from support.optimizer.library_operations import LIBRARY
from support.optimizer.operation import (
    Binary,
    Operation,
    alike,
    at_least_vector,
    conform,
    elementwise,
    integer_pairwise,
    on_reals,
    pairwise,
)


def product(a: jax.Array, b: jax.Array, option: int) -> jax.Array:
    """`a @ W` or `a @ W.T`, where W is `b` as a square."""
    a = at_least_vector(a)
    width = a.shape[-1]
    weight = conform(b, (width, width))
    return a @ (weight.T if option % 2 else weight)


def joined_product(a: jax.Array, b: jax.Array, c: jax.Array, option: int) -> jax.Array:
    """`[a, b] @ W`: the input and the state of a cell in one product."""
    a, b = alike(at_least_vector(a), at_least_vector(b))
    width = a.shape[-1]
    weight = conform(c, (2 * width, width))
    return jnp.concatenate([a, b], axis=-1) @ weight


def gates(a: jax.Array, b: jax.Array, c: jax.Array, option: int) -> jax.Array:
    """Two gates cut out of one product."""
    a, b = alike(at_least_vector(a), at_least_vector(b))
    width = a.shape[-1]
    both = a @ conform(c, (width, 2 * width))
    first, second = jnp.split(both, 2, axis=-1)
    return jnp.tanh(first + b) * second


def halves(a: jax.Array, b: jax.Array, option: int) -> jax.Array:
    """Two parts of a row or of a sum, as gates computed beforehand are read."""
    a, b = alike(at_least_vector(a), at_least_vector(b))
    total = a + b if option % 2 else a
    width = total.shape[-1] // 2
    first, second = total[..., :width], total[..., width : 2 * width]
    mixed = jnp.tanh(first * b[..., :width]) + second
    return mixed if width else total


def sum_of_products(a: jax.Array, b: jax.Array, c: jax.Array, option: int) -> jax.Array:
    """`a @ W + b @ V`, what flows back through two gates, alone or beside `a`."""
    a, b = alike(at_least_vector(a), at_least_vector(b))
    width = a.shape[-1]
    weight = conform(c, (width, width))
    total = a @ weight + b @ (weight.T if option // 2 % 2 else jnp.flip(weight))
    return a + total if option % 2 else total


def written_out(a: jax.Array, b: jax.Array, option: int) -> jax.Array:
    """`a @ W` or `a @ W.T`, written with * and sum."""
    a = at_least_vector(a)
    width = a.shape[-1]
    weight = conform(b, (width, width))
    if option % 2:
        rows = lax.expand_dims(weight, range(a.ndim - 1)) * a[..., None, :]
        return rows.sum(-1)
    return (a[..., :, None] * lax.expand_dims(weight, range(a.ndim - 1))).sum(-2)


def outer(a: jax.Array, b: jax.Array, option: int) -> jax.Array:
    """The outer product that a weight gradient is made of."""
    while a.ndim > 1:
        a = a[0]
    a = at_least_vector(a)
    return jnp.outer(a, conform(b, a.shape))


def contraction(a: jax.Array, b: jax.Array, option: int) -> jax.Array:
    """`a.T @ b`: the weight gradient of several rows."""
    a, b = alike(at_least_vector(a), at_least_vector(b))
    if a.ndim == 1:
        return jnp.vdot(a, b)
    return a.T @ b


def lags(a: jax.Array, b: jax.Array, option: int) -> jax.Array:
    """Rows read one by one, each times a number of its own."""
    a, b = at_least_vector(a), at_least_vector(b).reshape(-1)
    places = range(option % 2, a.shape[0])
    terms = [b[min(k, b.shape[0] - 1)] * a[k] for k in places]
    return sum(terms[1:], terms[0]) if terms else a[0]


def padded(a: jax.Array, b: jax.Array, option: int) -> jax.Array:
    """Parts of an array made by padding, which may overlap."""
    a, b = alike(at_least_vector(a), at_least_vector(b))
    axis, keep = option % a.ndim, 1 + option // 2
    end = a.shape[axis]
    first = lax.slice_in_dim(a, 0, min(keep, end), axis=axis)
    last = lax.slice_in_dim(b, min(2, end - 1), end, axis=axis)
    none = (0, 0, 0)
    after = (0, end - first.shape[axis], 0)
    before = (end - last.shape[axis], 0, 0)
    where = lambda sides: [sides if k == axis else none for k in range(a.ndim)]
    zero = jnp.zeros((), a.dtype)
    return lax.pad(first, zero, where(after)) + lax.pad(last, zero, where(before))


def row(a: jax.Array, i: jax.Array, option: int) -> jax.Array:
    """A row read at a computed place, by gather or by a dynamic slice."""
    a = at_least_vector(a)
    index = conform(i, ()) % a.shape[0]
    if option % 2:
        return lax.dynamic_index_in_dim(a, index, axis=0, keepdims=False)
    return a[index]


def rows(a: jax.Array, i: jax.Array, option: int) -> jax.Array:
    """Several rows at once, clipped, filled or wrapped where out of bounds."""
    a = at_least_vector(a)
    mode = ("clip", "fill", "wrap")[option % 3]
    return jnp.take(a, conform(i, (a.shape[0],)), axis=0, mode=mode)


def write(a: jax.Array, b: jax.Array, i: jax.Array, option: int) -> jax.Array:
    """`a.at[i].set(b)` and relatives; the place may be out of bounds."""
    a = at_least_vector(a)
    b = conform(b, a.shape[1:])
    index = conform(i, ())
    place = a.at[index]
    if option % 3 == 0:
        return place.set(b)
    if option % 3 == 1:
        return place.add(b)
    return lax.dynamic_update_index_in_dim(a, b, index, axis=0)


def choose(a: jax.Array, b: jax.Array, i: jax.Array, option: int) -> jax.Array:
    """`where` on an integer test."""
    a, b = alike(a, b)
    return jnp.where(conform(i, a.shape) % 2 == 0, a, b)


def choose_smaller(a: jax.Array, b: jax.Array, option: int) -> jax.Array:
    """`where` on a test of the numbers themselves."""
    a, b = alike(a, b)
    return jnp.where(a.real < b.real, a * 2, b)


def add_integer(a: jax.Array, i: jax.Array, option: int) -> jax.Array:
    """A number that depends on a small integer."""
    return a + (conform(i, a.shape) % 5).astype(a.dtype)


def branch(a: jax.Array, b: jax.Array, i: jax.Array, option: int) -> jax.Array:
    """`lax.cond` or `lax.switch` on an integer."""
    a, b = alike(a, b)
    index = conform(i, ()) % 3
    if option % 2:
        return lax.cond(index == 0, lambda x, y: jnp.tanh(x) + y, jnp.multiply, a, b)
    return lax.switch(
        index.astype(jnp.int32),
        [jnp.add, lambda x, y: x, lambda x, y: jnp.sin(y)],
        a,
        b,
    )


def inner_scan(a: jax.Array, b: jax.Array, option: int) -> jax.Array:
    """A loop over the rows of `a` with a state shaped like one of them."""
    a = at_least_vector(a)
    start = conform(b, a.shape[1:])

    def step(state: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        state = jnp.tanh(state * start + x)
        return state, state * x

    final, stacked = lax.scan(step, start, a, reverse=option % 2 == 1)
    return (final, stacked, stacked[-1], stacked.sum(axis=0))[option % 4]


def inner_fori(a: jax.Array, b: jax.Array, option: int) -> jax.Array:
    """A counted loop of fixed length."""
    a, b = alike(a, b)
    return lax.fori_loop(0, option % 4, lambda i, x: jnp.sin(x + b) + 0.5, a)


def inner_while(a: jax.Array, i: jax.Array, option: int) -> jax.Array:
    """A loop whose length is only known when it runs."""
    limit = conform(i, ()) % 4

    def body(carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        n, x = carry
        return n + 1, jnp.sin(x) * 2

    start = (jnp.zeros_like(limit), a)
    return lax.while_loop(lambda carry: carry[0] < limit, body, start)[1]


def noise(i: jax.Array, option: int) -> jax.Array:
    """A random draw from a key folded with an integer."""
    key = jax.random.fold_in(jax.random.key(option), conform(i, ()).astype(jnp.int32))
    return jax.random.bits(key, (), jnp.uint32).astype(i.dtype)


@jax.custom_vjp
def doubled_gradient(a: jax.Array) -> jax.Array:
    return jnp.sin(a)


doubled_gradient.defvjp(
    lambda a: (jnp.sin(a), a), lambda a, cotangent: (2 * jnp.cos(a) * cotangent,)
)


def narrow(a: jax.Array, option: int) -> jax.Array:
    """Through a narrower type and back; no rewrite may skip the rounding."""
    return a.real.astype(jnp.bfloat16).astype(a.dtype)


def shifted(a: jax.Array, option: int) -> jax.Array:
    """The last axis moved by one place, by slices and a concatenation."""
    a = at_least_vector(a)
    return jnp.concatenate([a[..., 1:], a[..., :1]], axis=-1)


def summed(a: jax.Array, option: int) -> jax.Array:
    """A sum over all axes or the last one."""
    if option % 2 or a.ndim == 0:
        return a.sum()
    return a.sum(axis=-1)


OPERATIONS: dict[str, Operation] = {
    "add": pairwise(jnp.add),
    "subtract": pairwise(jnp.subtract),
    "multiply": pairwise(jnp.multiply),
    "divide": pairwise(lambda a, b: a / (jnp.sin(b) + 1.5)),
    "divide_by_zero": pairwise(lambda a, b: a / b),
    "maximum": Operation(2, 0, lambda a, b, option: _real_pair(jnp.maximum, a, b)),
    "tanh": elementwise(jnp.tanh),
    "sin": elementwise(jnp.sin),
    "half": elementwise(lambda a: a * 0.5),
    "negative": elementwise(jnp.negative),
    "square": elementwise(jnp.square),
    "one": elementwise(jnp.ones_like),
    "stop_gradient": elementwise(lax.stop_gradient),
    "transpose": elementwise(lambda a: a.T if a.ndim == 2 else a),
    "flip": elementwise(lambda a: jnp.flip(at_least_vector(a), axis=-1)),
    "cumulate": elementwise(lambda a: jnp.cumsum(at_least_vector(a), axis=-1)),
    "log": Operation(1, 0, on_reals(jnp.log)),
    "sqrt": Operation(1, 0, on_reals(jnp.sqrt)),
    "absolute": Operation(1, 0, on_reals(jnp.abs)),
    "relu": Operation(1, 0, on_reals(jax.nn.relu)),
    "sigmoid": Operation(1, 0, on_reals(jax.nn.sigmoid)),
    "sort": Operation(1, 0, on_reals(lambda a: jnp.sort(at_least_vector(a)))),
    "softmax": Operation(1, 0, on_reals(lambda a: jax.nn.softmax(at_least_vector(a)))),
    "greatest": Operation(1, 0, on_reals(lambda a: at_least_vector(a).max(axis=-1))),
    "narrow": Operation(1, 0, narrow),
    "shifted": Operation(1, 0, shifted),
    "written_out": Operation(2, 0, written_out),
    "sum": Operation(1, 0, summed),
    "checkpoint": Operation(
        2, 0, lambda a, b, option: jax.checkpoint(_tanh_of_sum)(*alike(a, b))
    ),
    "jit": Operation(2, 0, lambda a, b, option: jax.jit(_tanh_of_sum)(*alike(a, b))),
    "custom_vjp": Operation(
        1, 0, lambda a, option: doubled_gradient(a), no_forward=True
    ),
    "product": Operation(2, 0, product),
    "joined_product": Operation(3, 0, joined_product),
    "gates": Operation(3, 0, gates),
    "halves": Operation(2, 0, halves),
    "sum_of_products": Operation(3, 0, sum_of_products),
    "lags": Operation(2, 0, lags),
    "padded": Operation(2, 0, padded),
    "outer": Operation(2, 0, outer),
    "contraction": Operation(2, 0, contraction),
    "row": Operation(1, 1, row),
    "rows": Operation(1, 1, rows),
    "write": Operation(2, 1, write),
    "choose": Operation(2, 1, choose),
    "choose_smaller": Operation(2, 0, choose_smaller),
    "branch": Operation(2, 1, branch),
    "inner_scan": Operation(2, 0, inner_scan),
    "inner_fori": Operation(2, 0, inner_fori),
    "inner_while": Operation(1, 1, inner_while, no_reverse=True),
    "add_integer": Operation(1, 1, add_integer),
    "integer_add": integer_pairwise(jnp.add),
    "integer_multiply": integer_pairwise(jnp.multiply),
    "integer_xor": integer_pairwise(jnp.bitwise_xor),
    "integer_maximum": integer_pairwise(jnp.maximum),
    "integer_next": Operation(0, 1, lambda i, option: i + 1, gives_integer=True),
    "integer_shift": Operation(0, 1, lambda i, option: i << 3, gives_integer=True),
    "integer_sum": Operation(
        0, 1, lambda i, option: i.sum(dtype=i.dtype), gives_integer=True
    ),
    "noise": Operation(0, 1, noise, gives_integer=True),
    **LIBRARY,
}


def _real_pair(function: Binary, a: jax.Array, b: jax.Array) -> jax.Array:
    a, b = alike(a, b)
    return function(a.real, b.real).astype(a.dtype)


def _tanh_of_sum(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.tanh(a + b) * a
