"""The body of a loop: from carry and slices to the step's arguments, and back.

`Body` is what every kind of loop runs (plain, in blocks, with early stop): it knows
the plan and the loop's inputs, and nothing about how the steps are repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax

from jscan._base.lists import split, unflatten_all
from jscan._base.types import Leaf, PyTree
from jscan._execution.plan import LoopPlan
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


@dataclass(frozen=True)
class Inputs:
    """The inputs of a loop's program, sorted; initials as `plan_loop` gives them."""

    captured: list[Leaf]
    reads: list[PyTree]
    sequences: list[list[Leaf]]
    initials: list[PyTree]
    constants: list[Leaf]
    limit: list[Leaf]  # the number of steps, where it is traced


def sort_inputs(plan: LoopPlan, inputs: Sequence[Leaf]) -> Inputs:
    """Undo the flattening of `plan_loop`; initials take the loop's exact dtypes."""
    state_trees = [state.tree for state in plan.states]
    captured, reads, sequences, initials, constants, limit = split(
        inputs,
        [
            plan.captured,
            sum(tree.num_leaves for tree in plan.read_trees),
            sum(sequence.leaves for sequence in plan.sequences),
            sum(tree.num_leaves for tree in state_trees),
            plan.constants,
            int(plan.has_limit),
        ],
    )
    initials = _cast(initials, [aval for s in plan.states for aval in s.row])
    return Inputs(
        captured,
        unflatten_all(plan.read_trees, reads),
        split(sequences, [sequence.leaves for sequence in plan.sequences]),
        unflatten_all(state_trees, initials),
        constants,
        limit,
    )


def _cast(leaves: Sequence[Leaf], avals: Sequence[Any]) -> list[Leaf]:
    """Leaves in the dtypes the loop carries, strongly typed."""
    return [
        leaf
        if leaf.dtype == aval.dtype and not leaf.aval.weak_type
        else jax.lax.convert_element_type(leaf, aval.dtype)
        for leaf, aval in zip(leaves, avals, strict=True)
    ]


@dataclass(frozen=True)
class Body:
    """A loop's plan with its inputs in place."""

    plan: LoopPlan
    inputs: Inputs

    # ------------------------------------------------------------------ before the loop

    def first_carry(self) -> Carry:
        """The carry before the first step."""
        windows = tuple(
            layout.first(initial) if state.has_rows else (initial,)
            for layout, state, initial in zip(
                self.plan.carry.layouts,
                self.plan.states,
                self.inputs.initials,
                strict=True,
            )
        )
        shared = tuple(self.inputs.reads[index] for index in self.plan.updated)
        last = [
            list(map(zeros, output.row))
            for output in self.plan.outputs
            if self._keeps_last(output)
        ]
        return Carry(windows, shared, last)

    def slices(self) -> Slices:
        """What all steps read, stacked ``[T, ...]`` in the order of time."""
        return Slices(self.sequence_slices(), self.no_blocks(), self.step_numbers())

    def step_numbers(self) -> Leaf | None:
        """For every row in the order of time, the number of the step that reads it."""
        if not self.plan.draws:
            return None
        steps = jax.lax.iota("uint32", self.plan.n_steps)
        return jax.lax.rev(steps, (0,)) if self.plan.options.go_backwards else steps

    def sequence_slices(self) -> list[list[list[Leaf]]]:
        """Every tap's rows ``[T, ...]``; a plain sequence is used as it is."""
        steps = self.plan.n_steps
        return [
            [
                [_rows(leaf, sequence.start + tap, steps) for leaf in leaves]
                for tap in sequence.taps
            ]
            for sequence, leaves in zip(
                self.plan.sequences, self.inputs.sequences, strict=True
            )
        ]

    def most_steps(self) -> Leaf:
        """The number of steps unless the loop stops before."""
        return self.inputs.limit[0] if self.inputs.limit else self.plan.n_steps

    def slices_in_order(self) -> Slices:
        """What all steps read, stacked ``[T, ...]`` in the order of iteration."""
        slices = self.slices()
        if not self.plan.options.go_backwards:
            return slices
        return jax.tree.map(lambda leaf: jax.lax.rev(leaf, (0,)), slices)

    # ------------------------------------------------------------------------ the step

    def step(self, carry: Carry, slices: Slices) -> tuple[Carry, Any]:
        """One step: the new carry and the rows to stack."""
        carry, rows, _ = self.step_until(carry, slices)
        return carry, rows

    def step_until(self, carry: Carry, slices: Slices) -> tuple[Carry, Any, Any]:
        """One step: the new carry, the rows to stack, the stop condition or None."""
        rows, shared, stop = self.call(carry, slices)
        return self.advance(carry, rows, shared), self.stacked(rows), stop

    def call(
        self, carry: Carry, slices: Slices
    ) -> tuple[list[list[Leaf]], tuple[PyTree, ...], Leaf | None]:
        """Evaluate the step: rows of all outputs, updated values, stop condition."""
        plan = self.plan
        reads = list(self.inputs.reads)
        for index, value in zip(plan.updated, carry.shared, strict=True):
            reads[index] = value
        if slices.number is not None:
            for draw in plan.draws:
                # Every step has its own part of the stream, whatever other steps do.
                reads[draw.read] = reads[draw.read].moved(draw.count * slices.number)
        arguments = (self.inputs.captured, reads, slices.sequences)
        past = self._past(carry, slices)
        results = plan.step(
            *jax.tree.leaves((*arguments, past)), *self.inputs.constants
        )
        rows, updates, stop = split(
            results,
            [
                sum(len(output.row) for output in plan.outputs),
                len(jax.tree.leaves(carry.shared)),
                int(plan.has_stop),
            ],
        )
        rows = _cast(rows, [aval for output in plan.outputs for aval in output.row])
        shared = unflatten_all([plan.read_trees[i] for i in plan.updated], updates)
        rows_by_output = split(rows, [len(output.row) for output in plan.outputs])
        return rows_by_output, tuple(shared), stop[0] if stop else None

    def advance(
        self, carry: Carry, rows: list[list[Leaf]], shared: tuple[PyTree, ...]
    ) -> Carry:
        """The carry after a step that produced `rows` and `shared`."""
        states = self._state_rows(rows)
        layouts = self.plan.carry.layouts
        windows = tuple(
            layout.push(window, row)
            for layout, window, row in zip(layouts, carry.windows, states, strict=True)
        )
        outputs = zip(self.plan.outputs, rows, strict=True)
        last = [row for output, row in outputs if self._keeps_last(output)]
        return Carry(windows, shared, last)

    def stacked(self, rows: list[list[Leaf]]) -> Any:
        """The rows that the loop stacks: all, or none where only the last is wanted."""
        only_last = self.plan.options.last_only and not self.plan.carry.block
        return () if only_last else rows

    def last_rows(self, carry: Carry, rows: Any) -> Any:
        """The last row of every output, from the carry or (in blocks) the stack."""
        if self.plan.carry.block:
            return jax.tree.map(lambda leaf: leaf[-1], rows)
        newest, kept = iter(self.newest(carry)), iter(carry.last)
        return [
            next(kept) if self._keeps_last(output) else next(newest)
            for output in self.plan.outputs
        ]

    def newest(self, carry: Carry) -> list[PyTree]:
        """The last row of every state."""
        states = zip(self.plan.carry.layouts, carry.windows, strict=True)
        return [layout.last(window) for layout, window in states]

    def _keeps_last(self, output: Any) -> bool:
        """A map output has no window; its last row gets a place of its own."""
        plan = self.plan
        return plan.options.last_only and not plan.carry.block and not output.is_state

    def _past(self, carry: Carry, slices: Slices) -> list[list[PyTree]]:
        """For every state, the row of each tap in written order."""
        past = []
        for layout, window, blocks in zip(
            self.plan.carry.layouts, carry.windows, slices.past, strict=True
        ):
            earlier = dict(zip(layout.long_taps, blocks, strict=True))
            past.append(
                [
                    earlier[tap] if tap in earlier else layout.past(window, tap)
                    for tap in layout.taps
                ]
            )
        return past

    def _state_rows(self, rows: list[list[Leaf]]) -> list[PyTree]:
        outputs = zip(self.plan.outputs, rows, strict=True)
        return [jax.tree.unflatten(o.tree, row) for o, row in outputs if o.is_state]

    # ------------------------------------------------------------- in the loop's middle

    def resume(self, carry: Carry, steps: int) -> Carry:
        """`carry` after `steps` steps, with what is left of the initial rows in place.

        They have the same values; but these are the loop's own inputs.
        """
        layouts = self.plan.carry.layouts
        windows = tuple(
            layout.resume(window, rows, steps)
            for layout, window, rows in zip(
                layouts, carry.windows, self.inputs.initials, strict=True
            )
        )
        return carry._replace(windows=windows)

    def carry_at(self, index: Leaf, rows: Any, history: tuple[PyTree, ...]) -> Carry:
        """The carry before step `index`, from all rows and earlier shared values."""
        windows = []
        for layout, state, initial, produced in zip(
            self.plan.carry.layouts,
            self.plan.states,
            self.inputs.initials,
            self._state_rows(rows),
            strict=True,
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

    def no_blocks(self) -> list[list[PyTree]]:
        """The `past` slices of a loop that is not cut into blocks."""
        return [[] for _ in self.plan.states]

    def first_history(self) -> list[PyTree]:
        """The rows ``[span, ...]`` before the first block, of states that need them."""
        layouts = zip(self.plan.carry.layouts, self.inputs.initials, strict=True)
        return [rows if layout.long_taps else () for layout, rows in layouts]

    def block_slices(self, history: list[PyTree], length: int) -> list[list[PyTree]]:
        """For a block of `length` steps, the rows each long tap reads."""
        layouts = zip(self.plan.carry.layouts, history, strict=True)
        return [
            [
                jax.tree.map(
                    lambda leaf, start=layout.span + tap: _rows(leaf, start, length),
                    rows,
                )
                for tap in layout.long_taps
            ]
            for layout, rows in layouts
        ]

    def advance_history(self, history: list[PyTree], rows: Any) -> list[PyTree]:
        """The last `span` rows of every state after a block that produced `rows`."""
        layouts = zip(
            self.plan.carry.layouts, history, self._state_rows(rows), strict=True
        )
        return [
            jax.tree.map(_shift_in, before, new) if layout.long_taps else ()
            for layout, before, new in layouts
        ]


def _rows(leaf: Leaf, start: int, count: int) -> Leaf:
    """``leaf[start : start + count]``; the whole array stays uncopied."""
    if start == 0 and count == leaf.shape[0]:
        return leaf
    if count == 0:  # no steps: the taps may reach beyond a short sequence
        start = 0
    return jax.lax.slice_in_dim(leaf, start, start + count)


def _shift_in(before: Leaf, new: Leaf) -> Leaf:
    """The last ``len(before)`` rows of `before` followed by `new`."""
    kept = before.shape[0] - new.shape[0]
    if kept <= 0:
        return new[-kept:]
    return jax.numpy.concatenate([before[-kept:], new])
