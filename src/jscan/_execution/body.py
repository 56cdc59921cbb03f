"""The body of a loop: from carry and slices to the step's arguments, and back.

`Body` is what every kind of loop runs (plain, in blocks, with early stop): it knows
the plan and the loop's inputs, and nothing about how the steps are repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax

from jscan._base.types import Leaf, PyTree
from jscan._execution.plan import Inputs, LoopPlan
from jscan._execution.taps import TapLayout
from jscan._jax.types import zeros


class Carry(NamedTuple):
    """What passes from step to step.

    Attributes:
        windows: The remembered rows of every state, as its layout keeps them.
        shared: The values of the updated shared variables.
        last: The last row of every output, where only that one is wanted.
    """

    windows: tuple[PyTree, ...]
    shared: tuple[PyTree, ...]
    last: PyTree


class Slices(NamedTuple):
    """What one step reads besides the carry (stacked, ``[T, ...]``, outside).

    Attributes:
        sequences: For every sequence, for every tap, the leaves of the slice.
        past: For every state, for every tap that reads an earlier block, the row.
        number: Number of the step in the order of iteration, ``uint32``; None in a
            loop that draws no random numbers.
    """

    sequences: list[list[list[Leaf]]]
    past: list[list[PyTree]]
    number: Leaf | None


def _cast(leaf: Leaf, aval: Any) -> Leaf:
    """The leaf in the dtype the loop carries, strongly typed."""
    if leaf.dtype == aval.dtype and not leaf.aval.weak_type:
        return leaf
    return jax.lax.convert_element_type(leaf, aval.dtype)


@dataclass(frozen=True)
class Body:
    """A loop's plan with its inputs in place."""

    plan: LoopPlan
    inputs: Inputs

    # ------------------------------------------------------------------ before the loop

    def first_carry(self) -> Carry:
        """The carry before the first step."""
        states = zip(self._layouts, self.plan.states, self.inputs.initials, strict=True)
        windows = tuple(
            layout.first(initial) if state.has_rows else (initial,)
            for layout, state, initial in states
        )
        shared = tuple(self.inputs.reads[index] for index in self.plan.updated)
        last = [
            jax.tree.unflatten(output.tree, map(zeros, output.row))
            for output in self.plan.outputs
            if self.plan.carries_last and not output.is_state
        ]
        return Carry(windows, shared, last)

    def slices(self) -> Slices:
        """What all steps read, stacked ``[T, ...]`` in the order of time.

        A plain sequence is used as it is.
        """
        plan, number = self.plan, None
        sequences = [
            [
                [stretch(leaf, sequence.start + tap, plan.n_steps) for leaf in leaves]
                for tap in sequence.taps
            ]
            for sequence, leaves in zip(
                plan.sequences, self.inputs.sequences, strict=True
            )
        ]
        if plan.draws:
            number = jax.lax.iota("uint32", plan.n_steps)
            number = flip(number) if plan.options.go_backwards else number
        return Slices(sequences, [[] for _ in plan.states], number)

    def slices_in_order(self) -> Slices:
        """What all steps read, stacked ``[T, ...]`` in the order of iteration."""
        slices = self.slices()
        if not self.plan.options.go_backwards:
            return slices
        return jax.tree.map(flip, slices)

    @property
    def most_steps(self) -> Leaf:
        """The number of steps unless the loop stops before."""
        return self.plan.n_steps if self.inputs.limit is None else self.inputs.limit

    # ------------------------------------------------------------------------ the step

    def step(self, carry: Carry, slices: Slices) -> tuple[Carry, Any]:
        """One step: the new carry and the rows to stack."""
        carry, rows, _ = self.step_until(carry, slices)
        return carry, rows

    def step_until(self, carry: Carry, slices: Slices) -> tuple[Carry, Any, Any]:
        """One step: the new carry, the rows to stack, the stop condition or None."""
        plan, given = self.plan, self.inputs
        reads = list(given.reads)
        for index, value in zip(plan.updated, carry.shared, strict=True):
            reads[index] = value
        if slices.number is not None:
            for draw in plan.draws:
                # Every step has its own part of the stream, whatever other steps do.
                reads[draw.read] = reads[draw.read].moved(draw.count * slices.number)
        past = self._past(carry, slices)
        arguments = (given.captured, reads, slices.sequences, past, given.constants)
        results = plan.step(*jax.tree.leaves(arguments))
        types = [aval for output in plan.outputs for aval in output.row]
        results[: plan.rows] = map(_cast, results, types)
        rows, shared, stop = jax.tree.unflatten(plan.results, results)
        states = zip(self._layouts, carry.windows, self._of_states(rows), strict=True)
        windows = tuple(layout.push(window, row) for layout, window, row in states)
        if not plan.carries_last:
            return Carry(windows, shared, []), rows, stop
        outputs = zip(plan.outputs, rows, strict=True)
        last = [row for output, row in outputs if not output.is_state]
        return Carry(windows, shared, last), (), stop

    def last_rows(self, carry: Carry, rows: Any) -> Any:
        """The last row of every output, from the carry or (in blocks) the stack."""
        if self.plan.carry.block:
            return jax.tree.map(lambda leaf: leaf[-1], rows)
        newest, kept = iter(self.newest(carry)), iter(carry.last)
        return [next(newest if o.is_state else kept) for o in self.plan.outputs]

    def newest(self, carry: Carry) -> list[PyTree]:
        """The last row of every state."""
        states = zip(self._layouts, carry.windows, strict=True)
        return [layout.past(window, -1) for layout, window in states]

    @property
    def _layouts(self) -> tuple[TapLayout, ...]:
        return self.plan.carry.layouts

    def _past(self, carry: Carry, slices: Slices) -> list[list[PyTree]]:
        """For every state, the row of each tap in written order."""
        past = []
        for layout, window, blocks in zip(
            self._layouts, carry.windows, slices.past, strict=True
        ):
            earlier = dict(zip(layout.long_taps, blocks, strict=True))
            past.append(
                [
                    earlier[tap] if tap in earlier else layout.past(window, tap)
                    for tap in layout.taps
                ]
            )
        return past

    def _of_states(self, rows: list[PyTree]) -> list[PyTree]:
        outputs = zip(self.plan.outputs, rows, strict=True)
        return [row for output, row in outputs if output.is_state]

    # ------------------------------------------------------------- in the loop's middle

    def resume(self, carry: Carry, steps: int) -> Carry:
        """`carry` after `steps` steps, with what is left of the initial rows in place.

        They have the same values; but these are the loop's own inputs.
        """
        states = zip(self._layouts, carry.windows, self.inputs.initials, strict=True)
        windows = tuple(
            layout.resume(window, rows, steps) for layout, window, rows in states
        )
        return carry._replace(windows=windows)

    def carry_at(self, index: Leaf, rows: Any, history: tuple[PyTree, ...]) -> Carry:
        """The carry before step `index`, from all rows and earlier shared values."""
        windows = []
        before = zip(self.plan.states, self.inputs.initials, strict=True)
        for layout, (state, initial), produced in zip(
            self._layouts, before, self._of_states(rows), strict=True
        ):
            if not state.has_rows:
                initial = jax.tree.map(lambda leaf: leaf[None], initial)
            lagged = jax.tree.map(
                lambda first, later, span=layout.span: jax.lax.dynamic_slice_in_dim(
                    jax.numpy.concatenate([first, later]), index, span
                ),
                initial,
                produced,
            )
            windows.append(layout.first(lagged))
        first = self.first_carry()
        shared = jax.tree.map(
            lambda start, before: jax.lax.select(
                index > 0, jax.lax.dynamic_index_in_dim(before, index, 0, False), start
            ),
            first.shared,
            history,
        )
        return Carry(tuple(windows), shared, first.last)

    # -------------------------------------------------------------------------- blocks

    def first_history(self) -> list[PyTree]:
        """The rows ``[span, ...]`` before the first block, of states that need them."""
        states = zip(self._layouts, self.inputs.initials, strict=True)
        return [rows if layout.long_taps else () for layout, rows in states]

    def block_slices(self, history: list[PyTree], length: int) -> list[list[PyTree]]:
        """For a block of `length` steps, the rows each long tap reads."""

        def read(rows: PyTree, start: int) -> PyTree:
            return jax.tree.map(lambda leaf: stretch(leaf, start, length), rows)

        return [
            [read(rows, layout.span + tap) for tap in layout.long_taps]
            for layout, rows in zip(self._layouts, history, strict=True)
        ]

    def advance_history(self, history: list[PyTree], rows: Any) -> list[PyTree]:
        """The last `span` rows of every state after a block that produced `rows`."""
        states = zip(self._layouts, history, self._of_states(rows), strict=True)
        return [
            jax.tree.map(_shift_in, before, new) if layout.long_taps else ()
            for layout, before, new in states
        ]


def body_of(plan: LoopPlan, inputs: Sequence[Leaf]) -> Body:
    """The body, from flat inputs; initials take the loop's exact dtypes."""
    given: Inputs = jax.tree.unflatten(plan.form, inputs)
    initials = [
        jax.tree.unflatten(state.tree, map(_cast, jax.tree.leaves(rows), state.row))
        for state, rows in zip(plan.states, given.initials, strict=True)
    ]
    return Body(plan, given._replace(initials=initials))


def stretch(leaf: Leaf, start: int, count: int) -> Leaf:
    """``leaf[start : start + count]``; the whole array stays uncopied."""
    if start == 0 and count == leaf.shape[0]:
        return leaf
    if count == 0:  # no steps: the taps may reach beyond a short sequence
        start = 0
    return jax.lax.slice_in_dim(leaf, start, start + count)


def flip(leaf: Leaf) -> Leaf:
    """The rows from the last to the first."""
    return jax.lax.rev(leaf, (0,))


def _shift_in(before: Leaf, new: Leaf) -> Leaf:
    """The last ``len(before)`` rows of `before` followed by `new`."""
    kept = before.shape[0] - new.shape[0]
    if kept <= 0:
        return new[-kept:]
    return jax.numpy.concatenate([before[-kept:], new])
