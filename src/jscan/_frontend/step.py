"""Trace the step once and learn what it computes: a `Step`.

The step becomes a program without hidden inputs. Arrays it captured and shared
variables it read are inputs like any other, so that nothing is baked into the loop.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jscan._base.errors import ScanTypeError, ScanValueError
from jscan._base.kinds import counted, shown
from jscan._base.types import Leaf, PyTree, is_numeric, type_text
from jscan._frontend.hints import add_step
from jscan._frontend.returns import Returned, parse_return
from jscan._frontend.signature import check_arity
from jscan._frontend.spec import WITHOUT_ARRAYS, OutputSpec, ScanSpec
from jscan._frontend.state_types import promote_states
from jscan._frontend.strict import another_precision, in_both, refuse_captured
from jscan._jax.naming import name_after
from jscan._jax.types import abstract_row, axes_of, varying
from jscan._programs.program import Program
from jscan._state import frames
from jscan._state.array_likes import label_of
from jscan._state.streams import Stream, without_streams
from jscan._state.updates import Updates, checked_update
from jscan._state.variables import SharedVariable

Axes = Mapping[SharedVariable, frozenset[Any]]


@dataclass(frozen=True, eq=False)
class Effects:
    """What a trace of the step notes beside its program.

    Attributes:
        rows: The types of one row of each output.
        reads: Shared variables the step reads or updates, in order.
        updated: Those it updates; they live in the carry.
        draws: Random streams it draws from, and how many draws it makes.
        has_stop: True when the step returned `until`.
        axes: Along which manual mesh axes variables vary once they are updated.
    """

    rows: list[PyTree]
    reads: tuple[SharedVariable, ...]
    updated: tuple[SharedVariable, ...]
    draws: dict[Stream, int]
    has_stop: bool
    axes: Axes


@dataclass(frozen=True, eq=False)
class Step(Effects):
    """The traced step of a loop.

    The program's inputs are, leaf by leaf: `captured`, the `reads`, one slice per
    sequence tap, one past value per state tap, the non_sequences. Its outputs: the
    rows of every output, the new values of `updated`, the stop condition if any.

    Attributes:
        program: The step as a closed program.
        captured: Arrays and tracers the step closes over.
        outputs: The completed `outputs_info`: one entry per output, states with their
            final types.
    """

    program: Program
    captured: tuple[Leaf, ...]
    outputs: tuple[OutputSpec, ...]


def trace_step(spec: ScanSpec) -> Step:
    """Trace `spec.fn` on abstract slices; again only if types or reads demand it."""
    check_arity(spec)
    reads = spec.listed
    axes: Axes = {}
    outputs = spec.outputs
    while True:
        try:
            closed, noted = _trace_once(spec, outputs, reads, axes)
        except frames.Lost as lost:
            reads = tuple(dict.fromkeys((*reads, *lost.reads)))
            continue
        except WITHOUT_ARRAYS as error:
            if not spec.listed:
                raise
            spec = spec.with_values(error)
            continue
        if (noted.reads, noted.axes) != (reads, axes):
            reads, axes = noted.reads, noted.axes
            continue
        completed = complete_outputs(outputs, len(noted.rows))
        outputs = promote_states(completed, noted.rows)
        if outputs is None:
            program, captured = Program.close(closed)
            if spec.options.strict:
                with jax.default_matmul_precision(another_precision()):
                    again, _ = _trace_once(spec, completed, reads, axes)
                refuse_captured(spec, in_both(closed, again), noted.reads)
            return Step(
                **vars(noted), program=program, captured=captured, outputs=completed
            )


def _trace_once(
    spec: ScanSpec,
    outputs: tuple[OutputSpec, ...] | None,
    reads: tuple[SharedVariable, ...],
    axes: Axes,
) -> tuple[Any, Effects]:
    """One `jax.make_jaxpr` of the step with `reads` as explicit inputs."""
    states = [o for o in outputs or () if o.is_state]
    values = [jax.tree.map(jax.typeof, value_before(v, axes)) for v in reads]
    inputs = [
        *[jax.tree.map(abstract_row, s.value) for s in spec.sequences for _ in s.taps],
        *[state.row for state in states for _ in state.taps],
    ]
    noted = []

    def flat(*given: Any) -> list[Leaf]:
        bound, slices = given[: len(reads)], given[len(reads) :][: len(inputs)]
        frame = step_frame(spec, dict(zip(reads, bound, strict=True)))
        with frame as seen:
            constants = jax.tree.leaves(given[len(reads) + len(inputs) :])
            arguments = [*slices, *spec.non_sequence_arguments(constants)]
            returned = call_step(spec, arguments)
            leaves = _flatten_returned(returned)
            rows = list(map(types_of, returned.outputs))
        noted.append(
            Effects(
                rows=rows,
                reads=tuple(dict.fromkeys((*reads, *returned.updates, *seen.reads))),
                updated=tuple(returned.updates),
                draws={**seen.draws},
                has_stop=returned.stop is not None,
                axes={v: _axes(v, x, axes) for v, x in returned.updates.items()},
            )
        )
        return leaves

    name_after(flat, spec.fn, [label_of(variable) for variable in reads])
    with jax.disable_jit(False):  # a Python loop that has no steps asks for types
        return jax.make_jaxpr(flat)(*values, *inputs, *spec.constant_types), noted[-1]


def _axes(variable: SharedVariable, value: PyTree, known: Axes) -> frozenset[Any]:
    """The manual axes along which a variable varies after a step."""
    axes = map(axes_of, jax.tree.leaves(value))
    return known.get(variable, frozenset()).union(*axes)


def value_before(variable: SharedVariable, axes: Axes) -> PyTree:
    """The value before the loop, of the type that it has after a step."""
    own = axes.get(variable, frozenset())
    value = frames.value_of(variable)
    return jax.tree.map(lambda leaf: varying(leaf, own), value) if own else value


def call_step(
    spec: ScanSpec, arguments: Sequence[Any], index: int | None = None
) -> Returned:
    """Call the user's step; its errors keep their traceback and gain a note.

    Where it runs on real values, `index` is the number of the step.
    """
    try:
        value = spec.fn(*arguments)
    except Exception as error:
        add_step(error, spec.fn, arguments, spec.options.name, index)
        raise
    returned = parse_return(value, spec.empty_pair)
    updates = without_streams(returned.updates)
    frame = frames.current()
    _refuse_local(updates, frame)
    refuse_given_away(updates, frame and frame.parent)
    return dataclasses.replace(returned, updates=Updates(updates))


def types_of(row: PyTree) -> PyTree:
    """The types of an output that the step returned."""
    return jax.tree.map(lambda leaf: jax.typeof(jnp.asarray(leaf)), row)


def _flatten_returned(returned: Returned) -> list[Leaf]:
    leaves = jax.tree.leaves([returned.outputs])
    for variable, value in returned.updates.items():
        leaves += checked_update(variable, value)
    if returned.stop is not None:
        leaves.append(stop_condition(returned.stop))
    return [jnp.asarray(leaf) for leaf in leaves]


def stop_condition(stop: Any) -> Leaf:
    """The scalar boolean inside `until`."""
    condition = getattr(stop, "value", stop)
    if not is_numeric(condition):
        raise ScanTypeError(
            "until",
            needed="a scalar condition",
            came=shown(condition),
            fix="pass a number, a bool or an array without axes",
        )
    condition = jnp.asarray(condition)
    if condition.ndim:
        raise ScanValueError(
            "until",
            needed="a scalar condition",
            came=type_text(condition),
            fix="reduce it with .any() or .all()",
        )
    return condition.astype(bool)


def _refuse_local(
    updates: Iterable[SharedVariable], frame: frames.Frame | None
) -> None:
    """A variable made in this very step has no value before it."""
    for variable in updates:
        if frames.is_born_in(variable, frame):
            raise ScanValueError(
                f"the update of {variable!r}",
                needed="a variable that exists before the loop",
                came="one that the step itself makes",
                fix="call jscan.shared outside of the step",
            )


def step_frame(
    spec: ScanSpec, bound: Mapping[SharedVariable, Any], *, staged: bool = True
) -> frames.Frame:
    """The frame of one step, which knows what its step was given as a mere value."""
    frame = frames.Frame(bound, staged=staged)
    frame.given_away = spec.listed if spec.refused else ()
    return frame


def refuse_given_away(
    variables: Iterable[SharedVariable], frame: frames.Frame | None
) -> None:
    """What changes or is differentiated here must not be a mere value further out."""
    for variable in variables:
        if frames.is_given_away(variable, frame):
            raise ScanValueError(
                repr(variable),
                needed="a variable that no step around has as an array",
                came="one that functions of JAX are given there",
                fix=f"write {label_of(variable)}.value where they take it",
            )


def complete_outputs(
    outputs: tuple[OutputSpec, ...] | None, count: int
) -> tuple[OutputSpec, ...]:
    """One `OutputSpec` per output returned."""
    if outputs is None:
        return tuple(OutputSpec(f"outputs_info[{index}]") for index in range(count))
    if len(outputs) != count:
        raise ScanValueError(
            "outputs_info",
            needed=counted(count, "entry") + ", one an output of the step",
            came=counted(len(outputs), "entry"),
            fix="return an output for each entry, or leave entries out"
            if count < len(outputs)
            else "write None for every output that does not feed back; a state that "
            "is a tuple or list is returned inside a list: [(h, c)]; other than in "
            "lax.scan, sequences come before initials",
        )
    return outputs
