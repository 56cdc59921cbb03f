"""Rows of preallocated arrays, read and written in place by the loops of our own."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ._types import Leaf


def read_row(leaf: Leaf, index: Leaf) -> Leaf:
    start = (index, *[jnp.int32(0)] * (leaf.ndim - 1))
    row = jax.lax.dynamic_slice(
        leaf, start, (1, *leaf.shape[1:]), allow_negative_indices=False
    )
    return jax.lax.squeeze(row, (0,))


def write_row(rows: Leaf, leaf: Leaf, index: Leaf) -> Leaf:
    start = (index, *[jnp.int32(0)] * leaf.ndim)
    row = jax.lax.expand_dims(leaf, (0,))
    return jax.lax.dynamic_update_slice(rows, row, start, allow_negative_indices=False)


def zeros(like: Any) -> Leaf:
    if jnp.issubdtype(like.dtype, jax.dtypes.extended):
        return jax.lax.empty(like.shape, like.dtype)  # such types have no zero
    return jnp.zeros(like.shape, like.dtype)
