"""What a loop of our own does differently for one lane and for all lanes of a `vmap`.

Under `vmap` every lane of a loop stops by itself. JAX's rule for a `while_loop` whose
condition differs by lane would copy all rows at every step to keep those of finished
lanes. So the loop runs while *any* lane does, a step counts for all lanes, and a lane
that is over keeps its state. Each function here is trivial for one lane, and
`jax.custom_batching.custom_vmap` says what it is for many.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from jscan._base.caches import cached
from jscan._base.types import Leaf, PyTree


def _over_lanes(reduce: Callable[[Leaf], Leaf]) -> Callable[[Leaf], Leaf]:
    """A function that is the identity for one lane and a reduction for many."""

    @custom_vmap
    def of_lanes(value: Leaf) -> Leaf:
        return value

    @of_lanes.def_vmap
    def rule(size: int, batched: list[bool], value: Leaf) -> tuple[Leaf, bool]:
        return of_lanes(reduce(value) if batched[0] else value), False

    return of_lanes


any_lane = _over_lanes(lambda flags: flags.any(axis=0))
first_lane = _over_lanes(lambda indices: indices.min(axis=0))
last_lane = _over_lanes(lambda indices: indices.max(axis=0))


@custom_vmap
def held(active: Leaf, new: PyTree, old: PyTree) -> PyTree:
    """`new` in a lane that is active, `old` in one that is over.

    Alone, a lane that takes a step is active.
    """
    return new


@held.def_vmap
def _held_by_lane(
    size: int, batched: list[Any], active: Leaf, new: PyTree, old: PyTree
) -> tuple[PyTree, PyTree]:
    of_active, of_new, of_old = batched
    if not of_active:  # but other lanes around these may differ in it
        return held(
            active,
            *(
                jax.tree.map(functools.partial(_in_lanes, size), part, *flags)
                for part, flags in ((new, (of_new, of_old)), (old, (of_old, of_new)))
            ),
        ), jax.tree.map(operator.or_, of_new, of_old)

    def choose(new: Leaf, old: Leaf, *flags: bool) -> Leaf:
        axes = (0, *(0 if flag else None for flag in flags))
        return jax.vmap(jax.lax.select, axes)(active, new, old)

    chosen = jax.tree.map(choose, new, old, of_new, of_old)
    return chosen, jax.tree.map(lambda _: True, new)


def _in_lanes(size: int, leaf: Leaf, has_lanes: bool, other_has: bool) -> Leaf:
    """The leaf, repeated for each lane if only the other one has lanes."""
    if other_has and not has_lanes:
        return jnp.broadcast_to(leaf, (size, *leaf.shape))
    return leaf


@cached
def _row_reader(axis: int) -> Callable[[Leaf, Leaf], Leaf]:
    """Reads the row at an index of an array whose rows lie along `axis`."""

    @custom_vmap
    def read(leaf: Leaf, index: Leaf) -> Leaf:
        sizes = (*leaf.shape[:axis], 1, *leaf.shape[axis + 1 :])
        row = jax.lax.dynamic_slice(
            leaf, _start(index, axis, leaf), sizes, allow_negative_indices=False
        )
        return jax.lax.squeeze(row, (axis,))

    @read.def_vmap
    def rule(size: int, batched: list[bool], leaf: Leaf, index: Leaf) -> Any:
        of_leaf, of_index = batched
        if of_leaf and not of_index:
            return _row_reader(axis + 1)(leaf, index), True
        axes = tuple(0 if flag else None for flag in batched)
        return jax.vmap(
            lambda leaf, index: jax.lax.dynamic_index_in_dim(leaf, index, axis, False),
            axes,
        )(leaf, index), True

    return read


@cached
def _row_writer(axis: int) -> Callable[[Leaf, Leaf, Leaf], Leaf]:
    """Writes a row at an index of an array whose rows lie along `axis`."""

    @custom_vmap
    def write(rows: Leaf, row: Leaf, index: Leaf) -> Leaf:
        row = jax.lax.expand_dims(row, (axis,))
        return jax.lax.dynamic_update_slice(
            rows, row, _start(index, axis, rows), allow_negative_indices=False
        )

    @write.def_vmap
    def rule(size: int, batched: list[bool], rows: Leaf, row: Leaf, index: Leaf) -> Any:
        of_rows, of_row, of_index = batched
        if of_index:
            axes = tuple(0 if flag else None for flag in batched)
            update = jax.lax.dynamic_update_index_in_dim
            return jax.vmap(lambda a, b, i: update(a, b, i, axis), axes)(
                rows, row, index
            ), True
        rows = rows if of_rows else jnp.broadcast_to(rows, (size, *rows.shape))
        row = row if of_row else jnp.broadcast_to(row, (size, *row.shape))
        return _row_writer(axis + 1)(rows, row, index), True

    return write


def _start(index: Leaf, axis: int, leaf: Leaf) -> list[Leaf]:
    zero = jnp.zeros((), jnp.int32)
    return [index if place == axis else zero for place in range(leaf.ndim)]


read_row = _row_reader(0)  # the row at an index of an array ``[T, ...]``
write_row = _row_writer(0)  # the array with a row replaced, in place in a loop
