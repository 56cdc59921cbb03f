"""One operation of a random loop's body, and what makes any values fit it.

Values are *numbers* (the program's float or complex type) or *integers*, of a few
shapes: scalar, vector `[width]`, rows `[rows, width]`, square `[width, width]`. Every
operation takes any values of its kinds: `conform` cuts or repeats an operand to the
shape needed. So any list of instructions is a valid program, which keeps the
generator simple and lets a failure be shrunk to the instructions that matter.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

Binary = Callable[[jax.Array, jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class Operation:
    """One entry of the instruction set.

    Attributes:
        numbers: How many numbers it takes.
        integers: How many integers it takes, after the numbers.
        apply: Computes the result; the last argument is the instruction's option.
        gives_integer: Whether the result is an integer.
        no_reverse: Whether reverse differentiation is impossible.
        no_forward: Whether forward differentiation is impossible.
        no_batch: Whether `jax.vmap` is.
    """

    numbers: int
    integers: int
    apply: Callable[..., jax.Array]
    gives_integer: bool = False
    no_reverse: bool = False
    no_forward: bool = False
    no_batch: bool = False


def conform(value: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Cuts or repeats `value` to `shape`."""
    while value.ndim > len(shape):
        value = value[0]
    for axis, (have, want) in enumerate(
        zip(value.shape, shape[len(shape) - value.ndim :], strict=True)
    ):
        if have > want:
            value = lax.slice_in_dim(value, 0, want, axis=axis)
        elif have < want:
            copies = [value] * (-(-want // have))
            joined = jnp.concatenate(copies, axis=axis)
            value = lax.slice_in_dim(joined, 0, want, axis=axis)
    return jnp.broadcast_to(value, shape)


def alike(first: jax.Array, second: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Brings two values to the shape of the one with more axes."""
    if first.ndim >= second.ndim:
        return first, conform(second, first.shape)
    return conform(first, second.shape), second


def at_least_vector(value: jax.Array) -> jax.Array:
    """A scalar as a vector of one."""
    return value[None] if value.ndim == 0 else value


def on_reals(function: Callable[[jax.Array], jax.Array]) -> Callable[..., jax.Array]:
    """Lets a function of real numbers take complex ones, by their real part."""
    return lambda a, option: function(a.real).astype(a.dtype)


def elementwise(function: Callable[[jax.Array], jax.Array]) -> Operation:
    return Operation(1, 0, lambda a, option: function(a))


def pairwise(function: Binary) -> Operation:
    return Operation(2, 0, lambda a, b, option: function(*alike(a, b)))


def integer_pairwise(function: Binary) -> Operation:
    return Operation(
        0, 2, lambda i, j, option: function(*alike(i, j)), gives_integer=True
    )
