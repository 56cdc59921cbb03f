"""Stage 5: what `scan` returns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ._types import Leaf, PyTree
from ._updates import Updates


@jax.tree_util.register_pytree_node_class
class ScanResult:
    """The pair ``(outputs, updates)`` that `scan` returns, with the steps executed.

    Attributes:
        outputs: None, one tree of arrays ``[T, ...]``, or a list of them.
        updates: `Updates` from shared variables to their values after the loop.
        n_steps: Steps executed: an ``int`` when known, else a traced int32.

    Example:
        >>> import jax.numpy as jnp, jscan
        >>> result = jscan.scan(lambda x, s: s + x, jnp.arange(4.), 0.)
        >>> outputs, updates = result
        >>> outputs.tolist(), len(updates), result.n_steps
        ([0.0, 1.0, 3.0, 6.0], 0, 4)
    """

    def __init__(
        self, outputs: PyTree, updates: Updates, n_steps: Any, rows: int
    ) -> None:
        self.outputs = outputs
        self.updates = updates
        self.n_steps = n_steps
        self._rows = rows

    @property
    def mask(self) -> jax.Array:
        """``[T]`` booleans: true for the rows of executed steps."""
        return jnp.arange(self._rows, dtype=jnp.int32) < self.n_steps

    def __iter__(self) -> Iterator[Any]:
        return iter((self.outputs, self.updates))

    def __getitem__(self, index: int) -> Any:
        return (self.outputs, self.updates)[index]

    def __len__(self) -> int:
        return 2

    def __repr__(self) -> str:
        return (
            f"ScanResult(outputs={self.outputs!r}, updates={self.updates!r}, "
            f"n_steps={self.n_steps!r})"
        )

    def tree_flatten(self) -> tuple[tuple[Any, ...], int]:
        """For JAX: outputs, updates and the step count are the children."""
        return (self.outputs, self.updates, self.n_steps), self._rows

    @classmethod
    def tree_unflatten(cls, rows: int, children: tuple[Any, ...]) -> ScanResult:
        """For JAX: the inverse of `tree_flatten`."""
        return cls(*children, rows=rows)


def cut_rows(outputs: PyTree, executed: int) -> PyTree:
    """Exactly the executed rows of stacks that are known.

    Each count would be a program of its own for JAX, so it is done where the rows are.
    """

    def cut(leaf: Leaf) -> Leaf:
        if executed == leaf.shape[0]:
            return leaf
        on_host = {device.platform for device in leaf.devices()} == {"cpu"}
        if not on_host or jnp.issubdtype(leaf.dtype, jax.dtypes.extended):
            return leaf[:executed]
        return jax.device_put(np.asarray(leaf)[:executed], next(iter(leaf.devices())))

    return jax.tree.map(cut, outputs)


def hold_rows(stacks: list[Leaf], last: list[Leaf], executed: Leaf) -> list[Leaf]:
    """Stacks in which the last executed row is repeated to the end.

    Args:
        stacks: Rows ``[T, ...]``; zero where no step ran.
        last: The last executed row of each, zero if there is none.
        executed: How many steps ran.
    """

    def hold(rows: Leaf, row: Leaf) -> Leaf:
        smooth = jnp.issubdtype(rows.dtype, jnp.inexact)
        return (_hold if smooth else _select)(rows, row, executed)

    return [hold(rows, row) for rows, row in zip(stacks, last, strict=True)]


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
