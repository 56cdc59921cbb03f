"""The rows of a loop that stopped, and the form in which outputs are returned."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jscan._base.types import Leaf, PyTree
from jscan._jax.types import is_traced


def known_count(executed: Leaf | int) -> Leaf | int:
    """The number of steps as an ``int``, unless only the running program knows it.

    `jax.grad` and its like compute on given values: there it is known, whatever stands
    for it.
    """
    try:
        return int(executed)
    except jax.errors.ConcretizationTypeError:
        return executed


def is_known(leaf: Leaf) -> bool:
    """True for an array whose numbers are known, whatever transformation it is in."""
    if is_traced(leaf):
        try:
            bool((leaf == leaf).any())
        except jax.errors.ConcretizationTypeError:
            return False
    return True


def cut_rows(outputs: PyTree, executed: int) -> PyTree:
    """Exactly the executed rows of stacks that are known.

    Each count would be a program of its own for JAX, so it is done where the rows are.
    """

    def cut(leaf: Leaf) -> Leaf:
        if executed == leaf.shape[0]:
            return leaf
        if is_traced(leaf):  # by a transformation that computes on given values
            return leaf[:executed]
        on_host = [device.platform for device in leaf.devices()] == ["cpu"]
        if not on_host or jnp.issubdtype(leaf.dtype, jax.dtypes.extended):
            return leaf[:executed]  # by JAX, which keeps its placement
        rows = jnp.asarray(np.asarray(leaf)[:executed])
        same = rows.devices() == leaf.devices()
        return rows if same else jax.device_put(rows, leaf.sharding)

    return jax.tree.map(cut, outputs)


def hold_rows(stacks: list[Leaf], last: list[Leaf], executed: Leaf) -> list[Leaf]:
    """Stacks in which the last executed row is repeated to the end.

    Args:
        stacks: Rows ``[T, ...]``; zero where no step ran.
        last: The last executed row of each, zero if there is none.
        executed: How many steps ran.
    """
    return [
        (_hold if jnp.issubdtype(rows.dtype, jnp.inexact) else _select)(
            rows, row, executed
        )
        for rows, row in zip(stacks, last, strict=True)
    ]


def _select(rows: Leaf, row: Leaf, executed: Leaf) -> Leaf:
    mask = jnp.arange(rows.shape[0], dtype=jnp.int32) < executed
    return jax.vmap(jax.lax.select, (0, 0, None))(mask, rows, row)


@jax.custom_jvp
def _hold(rows: Leaf, row: Leaf, executed: Leaf) -> Leaf:
    return _select(rows, row, executed)


@_hold.defjvp
def _hold_jvp(primals: tuple[Leaf, ...], rates: tuple[Leaf, ...]) -> tuple[Leaf, Leaf]:
    """The rates of rows that do not exist are zero, so nothing need be masked.

    In reverse mode the loop then reads the rows' cotangents as they come; for an early
    stop this halves the time.
    """
    rows, row, executed = primals
    held = _select(jnp.zeros_like(rates[0]), rates[1], executed)
    return _hold(rows, row, executed), rates[0] + held


def repeat_last(leaf: Leaf, count: int) -> Leaf:
    """The stack with `count` copies of its last row behind it."""
    if not count or not leaf.shape[0]:
        return leaf
    return jnp.concatenate([leaf, jnp.repeat(leaf[-1:], count, axis=0)])


def pack_outputs(outputs: list[PyTree], *, return_list: bool) -> PyTree:
    """Theano's form of a list of outputs: None, the one output, or the list."""
    if not outputs:
        return None
    if len(outputs) == 1 and not return_list:
        return outputs[0]
    return outputs
