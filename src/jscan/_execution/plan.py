"""Between the step and the loop: a `LoopPlan`, all that shapes the loop's program.

A plan holds no arrays. It is hashable, so equal calls share one traced program; and it
knows the order of the program's flat inputs and outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax

from jscan._base.errors import ScanNotImplementedError, ScanValueError
from jscan._base.kinds import counted
from jscan._base.types import Leaf, PyTree
from jscan._execution.bar_plan import plan_bar
from jscan._execution.taps import CarryPlan, plan_carry
from jscan._frontend.spec import Options, OutputSpec, ScanSpec, SequenceSpec
from jscan._frontend.step import Step, value_before
from jscan._loops.bars import Bar
from jscan._loops.chunks import LONGEST, Level, kept_in, plan_levels
from jscan._programs.program import Program
from jscan._state.positions import DRAWS


class SequencePlan(NamedTuple):
    """Where the slices of one sequence lie: its taps and first row."""

    taps: tuple[int, ...]
    start: int


class OutputPlan(NamedTuple):
    """One output: the tree of a row, and its dtypes and shapes in the loop."""

    tree: Any
    row: tuple[Any, ...]
    is_state: bool
    has_rows: bool = False  # the initial has a time axis, [span, ...]


@dataclass(frozen=True)
class DrawPlan:
    """A random stream the step draws from: its place among the reads, and how often."""

    read: int
    count: int


class Inputs(NamedTuple):
    """The inputs of a loop's program.

    Attributes:
        captured: Arrays that the step closes over.
        reads: Values of the variables it reads.
        sequences: The arrays of every whole sequence.
        initials: Of every state; that of a one-tap state may have no time axis, others
            are its ``[span, ...]`` rows.
        constants: The arrays of the non_sequences.
        limit: The number of steps, where it is traced.
    """

    captured: tuple[Leaf, ...]
    reads: list[PyTree]
    sequences: list[list[Leaf]]
    initials: list[PyTree]
    constants: list[Leaf]
    limit: Leaf | None


@dataclass(frozen=True)
class LoopPlan:
    """Everything about a loop but its arrays.

    Attributes:
        form: The tree of `Inputs`, whose leaves are the program's inputs.
        results: The tree of what the step returns: rows of all outputs, values of the
            updated variables, the stop condition or None.
    """

    step: Program
    n_steps: int
    form: Any
    results: Any
    updated: tuple[int, ...]  # positions among the reads
    draws: tuple[DrawPlan, ...]
    sequences: tuple[SequencePlan, ...]
    outputs: tuple[OutputPlan, ...]
    carry: CarryPlan
    is_bounded: bool  # only the running program knows how many steps there are
    levels: tuple[Level, ...]
    bar: Bar | None
    options: Options
    inputs: tuple[Any, ...]  # types of the flat inputs

    @property
    def kept_steps(self) -> int | None:
        """The last steps that are differentiated, or None for all of them."""
        steps = self.options.truncate_gradient
        return steps if 0 < steps < self.n_steps else None

    @property
    def rows(self) -> int:
        """Number of output leaves."""
        return self.results.children()[0].num_leaves

    @property
    def carries_last(self) -> bool:
        """True when only last rows are wanted, and no stack of a block has them.

        Map outputs have no window in the carry; their last row gets a place there.
        """
        return self.options.last_only and not self.carry.block

    @property
    def returns_last(self) -> bool:
        """True when the loop returns the last executed rows beside all rows."""
        return self.is_bounded and not self.options.last_only

    @property
    def states(self) -> tuple[OutputPlan, ...]:
        """The outputs that feed back."""
        return tuple(output for output in self.outputs if output.is_state)


def plan_loop(spec: ScanSpec, step: Step) -> tuple[LoopPlan, list[Leaf]]:
    """The plan of a loop and the flat inputs of its program."""
    states = [output for output in step.outputs if output.is_state]
    given = _inputs(spec, step, states)
    inputs, form = jax.tree.flatten(given)
    updated = tuple(map(step.reads.index, step.updated))
    shared = tuple(given.reads[index] for index in updated)
    _check_length(spec)
    _check_counters(spec, step)
    bar = plan_bar(spec.n_steps, spec.options, step.program)
    levels = plan_levels(spec.n_steps, spec.options.checkpoint, bar)
    levels = kept_in(levels, spec.options.memory_kind)
    may_stop = step.has_stop or spec.limit is not None
    if may_stop:
        _check_memory(spec, step)
    in_parts = may_stop or levels or spec.options.runs_in_parts
    plan = LoopPlan(
        step=step.program,
        n_steps=spec.n_steps,
        form=form,
        results=jax.tree.structure((step.rows, shared, step.has_stop or None)),
        updated=updated,
        draws=tuple(
            DrawPlan(step.reads.index(stream), count)
            for stream, count in step.draws.items()
        ),
        sequences=tuple(
            SequencePlan(sequence.taps, _first_row(sequence, spec))
            for sequence in spec.sequences
        ),
        outputs=_plan_outputs(step),
        carry=plan_carry(states, spec.n_steps, blocks=not in_parts),
        is_bounded=may_stop and spec.n_steps > 0,
        levels=levels,
        bar=bar,
        options=spec.options,
        inputs=tuple(jax.typeof(leaf) for leaf in inputs),
    )
    if any(isinstance(leaf, jax.Ref) for leaf in inputs):
        _check_refs(plan)
    return plan, inputs


def _check_memory(spec: ScanSpec, step: Step) -> None:
    if spec.options.memory_kind is not None:
        raise ScanNotImplementedError(
            "checkpoint",
            needed="a loop that runs to its end, where memory_kind is given",
            came="until" if step.has_stop else "a traced n_steps",
            fix="leave memory_kind out: write checkpoint='sqrt'",
        )


def _inputs(spec: ScanSpec, step: Step, states: Sequence[OutputSpec]) -> Inputs:
    return Inputs(
        captured=step.captured,
        reads=[value_before(variable, step.axes) for variable in step.reads],
        sequences=[jax.tree.leaves(sequence.value) for sequence in spec.sequences],
        initials=[s.initial_rows() if s.has_rows else s.initial for s in states],
        constants=spec.non_sequence_leaves(),
        limit=spec.limit,
    )


def _check_refs(plan: LoopPlan) -> None:
    """A loop whose steps may write to a Ref runs once, and is not cut in two."""
    checkpoint, kept = plan.options.checkpoint, plan.kept_steps
    if checkpoint is not None or kept is not None:
        option = "truncate_gradient" if checkpoint is None else "checkpoint"
        raise ScanNotImplementedError(
            "a Ref that the step uses",
            needed="a loop that runs and is differentiated whole",
            came=f"{option}={kept if checkpoint is None else checkpoint!r}",
            fix="make what the Ref holds a state: give its value in outputs_info "
            "and return the new one",
        )


def _check_length(spec: ScanSpec) -> None:
    """What cuts a loop in parts needs to know how many steps there are."""
    options = spec.options
    asked = {
        "checkpoint": options.checkpoint is not None,
        "truncate_gradient": options.truncate_gradient != -1,
        "progress": options.progress is not None,
        "checkpoints every N steps": options.row_every is not None,
    }
    names = [name for name, given in asked.items() if given]
    if names and not isinstance(spec.n_steps, int):
        raise ScanNotImplementedError(
            ", ".join(names),
            needed="a number of steps that is known when the program is traced",
            came=f"the symbolic length {spec.n_steps}",
            fix="leave it out, or export the program for a fixed length",
        )


def _check_counters(spec: ScanSpec, step: Step) -> None:
    """Steps and draws that are counted in 32 bits must not be more."""
    options, steps = spec.options, spec.n_steps
    kinds = {
        "until": step.has_stop,
        "a traced n_steps": spec.limit is not None,
        "progress": options.progress is not None,
        "checkpoints every N steps": options.row_every is not None,
    }
    names = [name for name, given in kinds.items() if given]
    if names and isinstance(steps, int) and steps > LONGEST:
        raise ScanNotImplementedError(
            ", ".join(names),
            needed=f"a loop of at most {LONGEST} steps, which an int32 can count",
            came=f"one of up to {steps}",
            fix="run an inner loop of fewer steps in each step of an outer one",
        )
    for stream, count in step.draws.items():
        if isinstance(steps, int) and steps * count > DRAWS:
            raise ScanValueError(
                f"{stream!r}",
                needed=f"at most {DRAWS} draws, as many as a stream has",
                came=f"{steps} steps of {counted(count, 'draw')}",
                fix="run several loops, each with a RandomStreams of its own",
            )


def _first_row(sequence: SequenceSpec, spec: ScanSpec) -> int:
    """In time order; a reversed loop starts at the end of what the taps allow."""
    unused = sequence.steps - spec.n_steps if spec.options.go_backwards else 0
    return sequence.lead + unused


def _plan_outputs(step: Step) -> tuple[OutputPlan, ...]:
    """Trees and types of all outputs; a state has the dtype of its initial."""
    plans = []
    for output, row in zip(step.outputs, step.rows, strict=True):
        types, tree = jax.tree.flatten(row)
        if output.is_state:
            initial = jax.tree.leaves(output.initial)
            types = [
                aval.update(dtype=leaf.dtype)
                for aval, leaf in zip(types, initial, strict=True)
            ]
        plans.append(OutputPlan(tree, tuple(types), output.is_state, output.has_rows))
    return tuple(plans)
