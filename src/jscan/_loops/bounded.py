"""A loop whose number of steps is only known when it runs.

A `BoundedLoop` runs the steps ``first <= index < last`` of a loop with room for
`length` rows, or fewer when a step says stop. Rows of steps that did not run are zero.
It is a `while_loop` that writes into preallocated rows, so its cost follows the steps
that run, and that is what JAX's tools see. `lanes.py` says what it does under `vmap`,
`bounded_derivative.py` what its derivative is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jscan._base.lists import cut
from jscan._base.types import Leaf, PyTree
from jscan._jax.types import axes_of, row_aval, stacked_aval, varying, zeros
from jscan._loops import lanes
from jscan._loops.meters import Meter, after
from jscan._programs.program import Program

Step = Callable[[PyTree, PyTree], tuple[PyTree, PyTree, Leaf | None]]


@dataclass(frozen=True)
class BoundedLoop:
    """Everything about a bounded loop but its arrays."""

    body: Program  # ``(consts, carry, slices) -> (carry, rows[, stop])``
    consts: int  # number of constant inputs
    carry: int  # number of carried values
    has_stop: bool  # the last output of the body ends the loop when it is true
    length: int  # rows of every sequence and of every stacked output
    reverse: bool = False  # run from ``last - 1`` down to ``first``
    meter: Meter | None = None  # the bar it reports to; no result depends on it

    def sort(self, inputs: Sequence[Any]) -> list[list[Any]]:
        """Split one entry per input by kind: range, constants, carry, sequences."""
        known = 2, self.consts, self.carry
        return cut(inputs, (*known, len(inputs) - sum(known)))

    @property
    def row_avals(self) -> list[Any]:
        """Types of the rows that one step stacks."""
        avals = self.body.out_avals[self.carry :]
        return avals[:-1] if self.has_stop else avals


def close_loop(
    step: Step, carry: PyTree, xs: PyTree, bounds: Sequence[Leaf | int], **settings: Any
) -> tuple[BoundedLoop, list[Leaf], Any]:
    """Trace `step` into the body of a loop of such `settings`, `bounds` its range.

    Returns the loop, its inputs, and the tree of the pair of final carry and rows.
    """
    start, tree = jax.tree.flatten(carry)
    slices, slices_tree = jax.tree.flatten(xs)
    bounds = [jnp.asarray(bound, jnp.int32) for bound in bounds]
    start = list(map(jnp.asarray, start))
    start = [jax.lax.convert_element_type(leaf, leaf.dtype) for leaf in start]  # strong
    trees: list[Any] = []

    def flat(state: Sequence[Leaf], row: Sequence[Leaf]) -> list[Leaf]:
        new, rows, stop = step(tree.unflatten(state), slices_tree.unflatten(row))
        trees[:] = [jax.tree.structure(rows), stop is not None]
        new = [
            jax.lax.convert_element_type(leaf, like.dtype)  # strong, as the state is
            for leaf, like in zip(jax.tree.leaves(new), start, strict=True)
        ]
        return [*new, *jax.tree.leaves(rows), *([] if stop is None else [stop])]

    rows = [row_aval(jax.typeof(leaf)) for leaf in slices]
    while True:
        traced = jax.make_jaxpr(flat)([jax.typeof(leaf) for leaf in start], rows)
        rows_tree, has_stop = trees
        ends = [*bounds, *list(traced.out_avals[-1:]) * has_stop]
        common = frozenset().union(*map(axes_of, ends))  # what ends a loop decides, too
        axes = [axes_of(aval) | common for aval in traced.out_avals[: len(start)]]
        if all(a <= axes_of(leaf) for a, leaf in zip(axes, start, strict=True)):
            break
        start = [varying(leaf, a) for a, leaf in zip(axes, start, strict=True)]
    body, consts = Program.close(traced)
    loop = BoundedLoop(body, len(consts), len(start), has_stop, **settings)
    results = jax.tree_util.treedef_tuple((tree, rows_tree))
    return loop, [*bounds, *consts, *start, *slices], results


def run(loop: BoundedLoop, *inputs: Leaf) -> list[Leaf]:
    """The loop as a `while_loop`: the end, the final carry, the rows."""
    (first, last), consts, carry, xs = loop.sort(inputs)
    low, high = lanes.first_lane(first), lanes.last_lane(last)
    stop = loop.body.out_avals[-1:] * loop.has_stop
    axes = frozenset().union(*map(axes_of, [first, last, *stop]))
    rows = [zeros(stacked_aval(aval, loop.length), axes) for aval in loop.row_avals]
    # Whether this lane goes on, and the index after its last step.
    own = [varying(jnp.asarray(True), axes), varying(first, axes)] * loop.has_stop

    def proceed(state: Any) -> Leaf:
        index, own, *_ = state
        within = (index >= low) & (index < high)
        return within & lanes.any_lane(own[0] & (index < last)) if own else within

    def advance(state: Any) -> Any:
        index, own, carry, rows = state
        active = (index >= first) & (index < last)
        results = loop.body(
            *consts, *carry, *[lanes.read_row(leaf, index) for leaf in xs]
        )
        new, fresh = results[: loop.carry], results[loop.carry :]
        if own:
            going, end = own
            active &= going
            now = varying(index + 1, axes)
            own = [going & ~fresh.pop(), lanes.held(active, now, end)]
        new = lanes.held(active, new, carry)
        fresh = lanes.held(active, fresh, list(map(zeros, loop.row_avals)))
        rows = [
            lanes.write_row(old, varying(row, axes), index)
            for old, row in zip(rows, fresh, strict=True)
        ]
        return index + (-1 if loop.reverse else 1), own, new, rows

    state = (high - 1 if loop.reverse else low, own, carry, rows)
    _, own, carry, rows = _repeat(proceed, advance, state, loop.meter)
    end = own[1] if own else jnp.maximum(first, last)
    return [end, *carry, *rows]


def _repeat(
    proceed: Callable[[Any], Leaf],
    advance: Callable[[Any], Any],
    state: Any,
    meter: Meter | None,
) -> Any:
    """A `while_loop`; with a meter, one of stretches after which it reports.

    The inner loops write into the same rows, so nothing is copied.
    """
    if meter is None:
        return jax.lax.while_loop(proceed, advance, state)
    first = state[0]

    def stretch(state: Any) -> Any:
        index, _, carry, _ = state
        meter.report(index - first, carry)
        return jax.lax.while_loop(
            lambda now: proceed(now) & (now[0] < index + meter.every), advance, state
        )

    state = jax.lax.while_loop(proceed, stretch, state)
    index, _, carry, rows = state
    if meter.closes:
        meter.report(after(index - first, (carry, rows)), carry, last=True)
    return state
