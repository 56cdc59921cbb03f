"""Stage 2: trace the step once and learn what it computes -> `Step`.

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

from jscan._base.errors import ScanTypeError, ScanValueError, explain_error, loop_label
from jscan._base.types import Leaf, is_array, is_number, type_text
from jscan._frontend.returns import Returned, parse_return
from jscan._frontend.signature import captured_names, check_arity
from jscan._frontend.spec import OutputSpec, ScanSpec
from jscan._frontend.state_types import promote_states
from jscan._jax.types import abstract, abstract_row, axes_of, varying
from jscan._programs.program import Program
from jscan._state import frames
from jscan._state.streams import Stream, without_streams
from jscan._state.updates import Updates, checked_update
from jscan._state.variables import SharedVariable

TreeDef = Any  # jax.tree_util.PyTreeDef

Axes = Mapping[SharedVariable, frozenset[Any]]


@dataclass(frozen=True, eq=False)
class Step:
    """The traced step of a loop.

    The program's inputs are, leaf by leaf: `captured`, the `reads`, one slice per
    sequence tap, one past value per state tap, the non_sequences. Its outputs: the
    rows of every output, the new values of `updated`, the stop condition if any.

    Attributes:
        program: The step as a closed program.
        captured: Arrays and tracers the step closes over.
        reads: Shared variables the step reads or updates, in order.
        updated: Those it updates; they live in the carry.
        draws: Random streams it draws from, and how many draws it makes.
        outputs: The completed `outputs_info`: one entry per output, states with their
            final types.
        output_trees: The tree structure of one row of each output.
        has_stop: True when the step returned `until`.
        axes: Along which manual mesh axes variables vary once they are updated.
    """

    program: Program
    captured: tuple[Leaf, ...]
    reads: tuple[SharedVariable, ...]
    updated: tuple[SharedVariable, ...]
    draws: dict[Stream, int]
    outputs: tuple[OutputSpec, ...]
    output_trees: tuple[TreeDef, ...]
    has_stop: bool
    axes: Axes

    @property
    def read_values(self) -> list[Leaf]:
        """The values, before the loop, of the variables read: leaves in order."""
        return jax.tree.leaves([_value_before(v, self.axes) for v in self.reads])


@dataclass
class _Trace:
    """What one trace of the step noted beside its program."""

    rows: list[Any] = dataclasses.field(default_factory=list)  # types of the outputs
    updated: tuple[SharedVariable, ...] = ()
    reads: tuple[SharedVariable, ...] = ()
    draws: dict[Stream, int] = dataclasses.field(default_factory=dict)
    has_stop: bool = False
    axes: Axes = dataclasses.field(default_factory=dict)


def trace_step(spec: ScanSpec) -> Step:
    """Trace `spec.fn` on abstract slices; again only if types or reads demand it."""
    check_arity(spec)
    reads = spec.listed
    axes: Axes = {}
    outputs = spec.outputs
    while True:
        try:
            closed, trace = _trace_once(spec, outputs, reads, axes)
        except frames.Lost as lost:
            reads = tuple(dict.fromkeys((*reads, *lost.reads)))
            continue
        except (TypeError, ValueError) as error:
            if not spec.listed:
                raise
            spec = spec.with_values(error)
            continue
        if (trace.reads, trace.axes) != (reads, axes):
            reads, axes = trace.reads, trace.axes
            continue
        completed = complete_outputs(spec, outputs, len(trace.rows))
        promoted = promote_states(completed, trace.rows, spec.options.name)
        if promoted is None:
            return _finish(spec, closed, trace, completed)
        outputs = promoted


def _trace_once(
    spec: ScanSpec,
    outputs: tuple[OutputSpec, ...] | None,
    reads: tuple[SharedVariable, ...],
    axes: Axes,
) -> tuple[Any, _Trace]:
    """One `jax.make_jaxpr` of the step with `reads` as explicit inputs."""
    trace = _Trace()
    states = [o for o in outputs or () if o.is_state]
    read_values = [_value_before(variable, axes) for variable in reads]
    inputs = (
        jax.tree.map(abstract, read_values),
        [jax.tree.map(abstract_row, s.value) for s in spec.sequences for _ in s.taps],
        [state_row(state) for state in states for _ in state.taps],
        [abstract(leaf) for leaf in spec.non_sequence_leaves()],
    )

    def flat(bound: Any, slices: Any, past: Any, constants: Any) -> list[Leaf]:
        frame = step_frame(spec, dict(zip(reads, bound, strict=True)))
        with frames.enter(frame) as seen:
            given = spec.non_sequence_arguments(constants)
            returned = call_step(spec, [*slices, *past, *given])
            leaves = _flatten_returned(returned, spec.options.name)
            trace.rows = [jax.tree.map(row_type, row) for row in returned.outputs]
        trace.updated = tuple(returned.updates)
        trace.axes = {
            variable: axes.get(variable, frozenset()).union(
                *map(axes_of, jax.tree.leaves(value))
            )
            for variable, value in returned.updates.items()
        }
        trace.has_stop = returned.stop is not None
        new = [v for v in (*returned.updates, *seen.reads) if v not in reads]
        trace.reads = (*reads, *dict.fromkeys(new))
        trace.draws = {**seen.draws}
        return leaves

    return jax.make_jaxpr(flat)(*inputs), trace


def _value_before(variable: SharedVariable, axes: Axes) -> Any:
    """The value before the loop, of the type that it has after a step."""
    own = axes.get(variable, frozenset())
    value = frames.value_of(variable)
    return jax.tree.map(lambda leaf: varying(leaf, own), value) if own else value


def call_step(
    spec: ScanSpec, arguments: Sequence[Any], index: int | None = None
) -> Returned:
    """Call the user's step; its errors keep their traceback and gain a note.

    Args:
        spec: The call of scan.
        arguments: What the step is called with.
        index: Number of the step, where it is run on real values.
    """
    try:
        value = spec.fn(*arguments)
    except Exception as error:
        step = "the step" if index is None else f"step {index}"
        error.add_note(f"This happened in {step} of {loop_label(spec.options.name)}.")
        raise
    returned = parse_return(value, spec.options.name, spec.empty_pair)
    updates = without_streams(returned.updates)
    _refuse_local(updates, spec.options.name)
    frame = frames.current()
    refuse_given_away(updates, frame and frame.parent, spec.options.name)
    return dataclasses.replace(returned, updates=Updates(updates))


def state_row(state: OutputSpec) -> Any:
    """The type of one row of a state."""
    return jax.tree.map(abstract_row if state.has_rows else abstract, state.initial)


def row_type(leaf: Leaf) -> jax.ShapeDtypeStruct:
    """The type of one leaf of what the step returned."""
    return abstract(jnp.asarray(leaf))


def _flatten_returned(returned: Returned, name: str | None) -> list[Leaf]:
    leaves = jax.tree.leaves([returned.outputs])
    for variable, value in returned.updates.items():
        leaves += checked_update(variable, value, name)
    if returned.stop is not None:
        leaves.append(stop_condition(returned.stop, name))
    return [jnp.asarray(leaf) for leaf in leaves]


def stop_condition(stop: Any, name: str | None) -> Leaf:
    """The scalar boolean inside `until`."""
    condition = getattr(stop, "value", stop)
    if not (is_array(condition) or is_number(condition)):
        raise ScanTypeError(
            explain_error(
                name,
                "until",
                needed="a scalar condition",
                came=f"{condition!r:.60} of type {type(condition).__name__}",
                fix="pass a number, a bool or an array without axes",
            )
        )
    condition = jnp.asarray(condition)
    if condition.ndim:
        raise ScanValueError(
            explain_error(
                name,
                "until",
                needed="a scalar condition",
                came=type_text(condition),
                fix="reduce it with .any() or .all()",
            )
        )
    return condition.astype(bool)


def _refuse_local(updates: Mapping[SharedVariable, Any], name: str | None) -> None:
    """A variable made in this very step has no value before it."""
    frame = frames.current()
    for variable in updates:
        if variable.birth is not None and variable.birth is frame:
            raise ScanValueError(
                explain_error(
                    name,
                    f"the update of {variable!r}",
                    needed="a variable that exists before the loop",
                    came="one that the step itself makes",
                    fix="call jscan.shared outside of the step",
                )
            )


def step_frame(
    spec: ScanSpec, bound: Mapping[SharedVariable, Any], *, staged: bool = True
) -> frames.Frame:
    """The frame of one step, which knows what its step was given as a mere value."""
    frame = frames.Frame(bound, staged=staged)
    frame.given_away = spec.listed if spec.refused else ()
    return frame


def refuse_given_away(
    variables: Iterable[SharedVariable], frame: frames.Frame | None, owner: str | None
) -> None:
    """What changes or is differentiated here must not be a mere value further out."""
    for variable in variables:
        if frames.is_given_away(variable, frame):
            raise ScanValueError(
                explain_error(
                    owner,
                    repr(variable),
                    needed="a variable that no step around has as an array",
                    came="one that functions of JAX are given there",
                    fix=f"write {variable.label}.value where they take it",
                )
            )


def complete_outputs(
    spec: ScanSpec, outputs: tuple[OutputSpec, ...] | None, count: int
) -> tuple[OutputSpec, ...]:
    """One `OutputSpec` per output returned."""
    if outputs is None:
        return tuple(OutputSpec(f"outputs_info[{index}]") for index in range(count))
    if len(outputs) != count:
        raise ScanValueError(
            explain_error(
                spec.options.name,
                "outputs_info",
                needed=f"one entry for each of the {count} outputs of the step",
                came=f"{len(outputs)} entries",
                fix="write None for every output that does not feed back; a state that "
                "is a tuple or list is returned inside a list: [(h, c)]",
            )
        )
    return outputs


def _finish(
    spec: ScanSpec, closed: Any, trace: _Trace, outputs: tuple[OutputSpec, ...]
) -> Step:
    program, captured = Program.close(closed)
    if spec.options.strict:
        unlisted = [v for v in trace.reads if v not in spec.listed]
        _refuse_captured(spec, captured, unlisted)
    return Step(
        program=program,
        captured=captured,
        reads=trace.reads,
        updated=trace.updated,
        draws=trace.draws,
        outputs=outputs,
        output_trees=tuple(jax.tree.structure(row) for row in trace.rows),
        has_stop=trace.has_stop,
        axes=trace.axes,
    )


def _refuse_captured(
    spec: ScanSpec, captured: Sequence[Leaf], reads: Sequence[SharedVariable]
) -> None:
    """`strict=True`: nothing may reach the step but through its arguments."""
    known = captured_names(spec.fn)
    found = [
        next((key for key, value in known.items() if value is leaf), "an array")
        + f" ({type_text(leaf)})"
        for leaf in captured
    ] + [repr(v) for v in reads if not isinstance(v, Stream)]  # as in Theano
    if found:
        raise ScanTypeError(
            explain_error(
                spec.options.name,
                "strict=True",
                needed="a step that uses only its arguments",
                came=f"a step that captures {', '.join(found)}",
                fix="pass it in non_sequences and take it as an argument",
            )
        )
