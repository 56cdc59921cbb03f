"""How a loop remembers past outputs: `TapLayout` and `CarryPlan`.

A state with taps needs rows that lie up to `span` steps back. Three layouts were
measured (forward and gradient, on both JAX versions):

* *tuple*: the last rows as separate carried arrays; best for short spans;
* *stack*: the last rows as one array, shifted every step; for middle spans;
* *blocks*: the loop runs in blocks no longer than the shortest long lag, so that long
  lags read rows of earlier blocks, which are ordinary sequences of the inner loop; a
  long lag then costs one row per step however far it reaches.

`plan_carry` picks the block length with the smallest modelled cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jscan._base.types import PyTree
from jscan._frontend.spec import OutputSpec
from jscan._jax.names import JAX_VERSION

# Nanoseconds, fitted to measured loops: a row moved per step, per byte on top, and
# what one more block costs in the gradient.
ROW, BYTE, BLOCK = 0.5, 0.06, 1000.0

# Rows up to which the tuple is the better layout (fewer on JAX 0.10).
TUPLE_SPAN = 4 if JAX_VERSION >= (0, 11) else 2

TUPLE_SPAN_SCALAR = 8  # the same where a row is one number


@dataclass(frozen=True)
class TapLayout:
    """How one state is remembered.

    Attributes:
        taps: The state's taps as written.
        carried: Rows kept in the carry, ``[t-carried, ..., t-1]`` (0: none).
        stacked: True when the carried rows are one array instead of a tuple.
        block: Length of a block, or None; taps below ``-carried`` read earlier blocks.
    """

    taps: tuple[int, ...]
    carried: int
    stacked: bool
    block: int | None = None

    @property
    def span(self) -> int:
        """How far back the taps reach."""
        return -min(self.taps)

    @property
    def long_taps(self) -> tuple[int, ...]:
        """Taps that read rows of earlier blocks, in written order."""
        return tuple(tap for tap in self.taps if -tap > self.carried)

    def first(self, rows: PyTree) -> PyTree:
        """The carry before the first step, from the initial rows ``[span, ...]``."""
        if self.stacked:
            return jax.tree.map(lambda leaf: leaf[self.span - self.carried :], rows)
        return tuple(
            jax.tree.map(lambda leaf, row=row: leaf[row], rows)
            for row in range(self.span - self.carried, self.span)
        )

    def resume(self, carry: PyTree, rows: PyTree, steps: int) -> PyTree:
        """`carry` after `steps` steps, its initial rows taken from `rows` again."""
        if steps >= self.span:
            return carry
        if self.stacked:
            return jax.tree.map(
                lambda window, first: jnp.concatenate([first[steps:], window[-steps:]]),
                carry,
                rows,
            )
        first = self.first(rows)
        return (*first[steps:], *carry[len(carry) - steps :])

    def past(self, carry: PyTree, tap: int) -> PyTree:
        """The row `tap` steps back."""
        if self.stacked:
            return jax.tree.map(lambda leaf: leaf[self.carried + tap], carry)
        return carry[self.carried + tap]

    def push(self, carry: PyTree, row: PyTree) -> PyTree:
        """The carry after a step that produced `row`."""
        if not self.carried:
            return carry
        if self.stacked:
            return jax.tree.map(
                lambda leaf, new: jnp.concatenate([leaf[1:], new[None]]), carry, row
            )
        return (*carry[1:], row)


@dataclass(frozen=True)
class CarryPlan:
    """The layouts of all states, in order, and the one block length they share."""

    layouts: tuple[TapLayout, ...]
    block: int | None


def plan_carry(
    states: Sequence[OutputSpec], n_steps: int, *, blocks: bool = True
) -> CarryPlan:
    """Choose the cheapest layout.

    Args:
        states: The recurrent outputs.
        n_steps: Most steps of the loop; a symbolic number has no number of blocks.
        blocks: False where the loop is run in another way (it may stop early).
    """
    lags = {-tap for state in states for tap in state.taps if tap < -TUPLE_SPAN}
    if not (lags and blocks and isinstance(n_steps, int)):
        return CarryPlan(tuple(_layout(state, None) for state in states), None)
    rows = [(state, _row_bytes(state)) for state in states]
    lengths: list[int | None] = [None, *sorted(lags)]
    block = min(lengths, key=lambda length: _cost(rows, length, n_steps))
    return CarryPlan(tuple(_layout(state, block) for state in states), block)


def _cost(
    rows: Sequence[tuple[OutputSpec, int]], block: int | None, n_steps: int
) -> float:
    """Modelled nanoseconds per step spent on remembering."""
    moved = 0.0
    for state, size in rows:
        layout = _layout(state, block)
        count: float = layout.carried
        if block and layout.long_taps:
            count += len(layout.long_taps) + layout.span / block
        moved += count * (ROW + BYTE * size)
    return moved + (BLOCK / block if block and n_steps > block else 0.0)


def _layout(state: OutputSpec, block: int | None) -> TapLayout:
    kept = [-tap for tap in state.taps if block is None or -tap < block]
    carried = max(kept, default=0)
    stacked = carried > TUPLE_SPAN_SCALAR or (
        carried > TUPLE_SPAN
        and any(leaf.size != 1 for leaf in jax.tree.leaves(state.row))
    )
    return TapLayout(state.taps, carried, stacked, block)


def _row_bytes(state: OutputSpec) -> int:
    leaves: list[Any] = jax.tree.leaves(state.row)
    return sum(leaf.size * getattr(leaf.dtype, "itemsize", 8) for leaf in leaves)
