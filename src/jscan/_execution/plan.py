"""Between the step and the loop: a `LoopPlan`, all that shapes the loop's program.

A plan holds no arrays. It is hashable, so equal calls share one traced program; and it
knows the order of the program's flat inputs and outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax

from jscan._base.errors import ScanNotImplementedError
from jscan._base.types import Leaf
from jscan._execution.bar_plan import plan_bar
from jscan._execution.taps import CarryPlan, plan_carry
from jscan._frontend.spec import Options, ScanSpec
from jscan._frontend.step import Step
from jscan._loops.bars import Bar
from jscan._loops.chunks import Level, plan_levels
from jscan._programs.program import Program
from jscan._state import frames


@dataclass(frozen=True)
class SequencePlan:
    """Where the slices of one sequence lie: its leaves, taps and first row."""

    leaves: int
    taps: tuple[int, ...]
    start: int


@dataclass(frozen=True)
class OutputPlan:
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


@dataclass(frozen=True)
class LoopPlan:
    """Everything about a loop but its arrays."""

    step: Program
    n_steps: int
    captured: int
    read_trees: tuple[Any, ...]
    updated: tuple[int, ...]  # positions among the reads
    draws: tuple[DrawPlan, ...]
    sequences: tuple[SequencePlan, ...]
    outputs: tuple[OutputPlan, ...]
    carry: CarryPlan
    constants: int
    has_stop: bool
    has_limit: bool  # the last input is the number of steps
    levels: tuple[Level, ...]
    bar: Bar | None
    options: Options
    inputs: tuple[Any, ...]  # types of the flat inputs

    @property
    def is_bounded(self) -> bool:
        """True when only the running program knows how many steps there are."""
        return (self.has_stop or self.has_limit) and self.n_steps > 0

    @property
    def kept_steps(self) -> int | None:
        """The last steps that are differentiated, or None for all of them."""
        steps = self.options.truncate_gradient
        return steps if 0 < steps < self.n_steps else None

    @property
    def rows(self) -> int:
        """Number of output leaves."""
        return sum(output.tree.num_leaves for output in self.outputs)

    @property
    def returns_last(self) -> bool:
        """True when the loop returns the last executed rows beside all rows."""
        return self.is_bounded and not self.options.last_only

    @property
    def states(self) -> tuple[OutputPlan, ...]:
        """The outputs that feed back."""
        return tuple(output for output in self.outputs if output.is_state)


def plan_loop(spec: ScanSpec, step: Step) -> tuple[LoopPlan, list[Leaf]]:
    """The plan of a loop and the flat inputs of its program.

    The inputs are, leaf by leaf: captured arrays, values of the variables read, whole
    sequences, initials of every state (a one-tap state's without time axis, else the
    ``[span, ...]`` rows), non_sequences, and the number of steps where it is traced.
    """
    states = [output for output in step.outputs if output.is_state]
    initials = [s.initial_rows() if s.has_rows else s.initial for s in states]
    inputs = [
        *step.captured,
        *step.read_values,
        *spec.sequence_leaves(),
        *jax.tree.leaves(initials),
        *spec.non_sequence_leaves(),
        *([] if spec.limit is None else [spec.limit]),
    ]
    _check_length(spec)
    bar = plan_bar(spec.n_steps, spec.options, step.program)
    levels = plan_levels(spec.n_steps, spec.options.checkpoint, bar)
    whole = not (step.has_stop or spec.limit is not None or levels)
    whole = whole and spec.options.truncate_gradient == -1
    whole = whole and spec.options.row_every is None
    plan = LoopPlan(
        step=step.program,
        n_steps=spec.n_steps,
        captured=len(step.captured),
        read_trees=tuple(jax.tree.structure(frames.value_of(v)) for v in step.reads),
        updated=tuple(step.reads.index(variable) for variable in step.updated),
        draws=tuple(
            DrawPlan(step.reads.index(stream), count)
            for stream, count in step.draws.items()
        ),
        sequences=tuple(_plan_sequence(s, spec) for s in spec.sequences),
        outputs=_plan_outputs(step),
        carry=plan_carry(states, spec.n_steps, blocks=whole),
        constants=len(spec.non_sequence_leaves()),
        has_stop=step.has_stop,
        has_limit=spec.limit is not None,
        levels=levels,
        bar=bar,
        options=spec.options,
        inputs=tuple(jax.typeof(leaf) for leaf in inputs),
    )
    if any(isinstance(leaf, jax.Ref) for leaf in inputs):
        _check_refs(plan)
    return plan, inputs


def _check_refs(plan: LoopPlan) -> None:
    """A step that may write to a Ref runs once for each of its steps, and stays one."""
    loops = {
        f"checkpoint={plan.options.checkpoint!r}": plan.options.checkpoint is not None,
        f"truncate_gradient={plan.kept_steps}": plan.kept_steps is not None,
    }
    came = next((option for option, asked in loops.items() if asked), None)
    if came is not None:
        raise ScanNotImplementedError(
            "a Ref that the step uses",
            needed="a loop that runs and is differentiated whole",
            came=came,
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


def _plan_sequence(sequence: Any, spec: ScanSpec) -> SequencePlan:
    """Cut in time order; a reversed loop starts at the end of what the taps allow."""
    start = sequence.lead
    if spec.options.go_backwards:
        start += sequence.steps - spec.n_steps
    leaves = len(jax.tree.leaves(sequence.value))
    return SequencePlan(leaves, sequence.taps, start)


def _plan_outputs(step: Step) -> tuple[OutputPlan, ...]:
    """Trees and types of all outputs; a state has the dtype of its initial."""
    types = iter(step.program.out_avals)
    plans = []
    for output, tree in zip(step.outputs, step.output_trees, strict=True):
        row = [next(types) for _ in range(tree.num_leaves)]
        if output.is_state:
            initial = jax.tree.leaves(output.initial)
            row = [
                aval.update(dtype=leaf.dtype)
                for aval, leaf in zip(row, initial, strict=True)
            ]
        plans.append(OutputPlan(tree, tuple(row), output.is_state, output.has_rows))
    return tuple(plans)
