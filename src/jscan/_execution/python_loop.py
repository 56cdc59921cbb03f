"""``mode="DEBUG"``: the same loop in plain Python, on real values.

The step is called once per step with arrays, so `print`, `pdb` and the debugger's
breakpoints work in it, and every value is checked for NaN and infinity.
`jax.disable_jit()` implies this mode.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jscan._base.errors import (
    NonFiniteError,
    ScanNotImplementedError,
    ScanValueError,
    explain_error,
)
from jscan._base.types import Leaf, PyTree, tree_text
from jscan._execution.bar_plan import plan_bar
from jscan._frontend.returns import Returned
from jscan._frontend.signature import argument_names, check_arity
from jscan._frontend.spec import OutputSpec, ScanSpec
from jscan._frontend.state_types import promote_states
from jscan._frontend.step import (
    call_step,
    complete_outputs,
    row_type,
    step_frame,
    stop_condition,
    trace_step,
)
from jscan._jax.types import is_traced
from jscan._loops.bars import move_bar
from jscan._state import frames
from jscan._state.streams import Position, Stream, hand_on
from jscan._state.updates import Updates, checked_update
from jscan._state.variables import SharedVariable


def run_in_python(spec: ScanSpec) -> tuple[list[PyTree], Updates, Any]:
    """Run the loop step by step.

    Returns:
        Stacked outputs ``[T, ...]``, final values of the updated variables, and the
        number of steps executed.
    """
    check_arity(spec)
    if spec.limit is not None:
        raise ScanNotImplementedError(
            explain_error(
                spec.options.name,
                "mode='DEBUG'",
                needed="a known number of steps: this mode is a Python loop",
                came="a traced n_steps",
                fix="call the function outside jax.jit and jax.vmap, or leave mode out",
            )
        )
    if spec.n_steps == 0:
        return _no_steps(spec)
    run = _run(spec, spec.n_steps)
    if run.cut != _cut(spec, len(run.rows)) and run.traced:
        run = _run(spec, len(run.rows))  # it stopped early: other steps are the last
    if run.bar is not None:
        move_bar(run.bar, len(run.rows), last=True)
    return run.results()


def _run(spec: ScanSpec, n_steps: int) -> _Run:
    """The loop, with the derivative of the last steps before `n_steps`."""
    outputs = spec.outputs
    while True:
        run = _Run(spec, outputs, _cut(spec, n_steps))
        try:
            promoted = run.first_step()
        except (TypeError, ValueError) as error:
            if not spec.listed:
                raise
            spec = spec.with_values(error)
            continue
        if promoted is None:
            run.finish()
            return run
        outputs = promoted  # types grew: start again from the promoted initials


def _cut(spec: ScanSpec, n_steps: int) -> int:
    """The first step that `truncate_gradient` leaves differentiable."""
    kept = spec.options.truncate_gradient
    return 0 if kept == -1 else max(n_steps - kept, 0)


def _holds(stop: Any, spec: ScanSpec) -> bool:
    """Whether the loop stops: a Python loop has to know."""
    condition = stop_condition(stop, spec.options.name)
    given = getattr(stop, "value", stop)
    try:
        # What is known stays known under `jax.jit`, where `condition` is traced.
        return bool(condition if is_traced(given) else np.asarray(given))
    except jax.errors.TracerBoolConversionError as error:
        raise ScanNotImplementedError(
            explain_error(
                spec.options.name,
                "mode='DEBUG'",
                needed="to know when the loop stops: this mode is a Python loop",
                came="an until() condition traced by jax.jit or jax.vmap",
                fix="call the function outside of them, or leave mode out",
            )
        ) from error


def _no_steps(spec: ScanSpec) -> tuple[list[PyTree], Updates, int]:
    step = trace_step(spec)
    types = iter(step.program.out_avals)
    rows = [
        jax.tree.unflatten(tree, [next(types) for _ in range(tree.num_leaves)])
        for tree in step.output_trees
    ]
    empty = jax.tree.map(lambda aval: jnp.zeros((0, *aval.shape), aval.dtype), rows)
    values = Updates({v: v.value for v in step.updated})
    return empty, values + hand_on(step.draws, 0, 0), 0


class _Run:
    """One attempt at the loop: the past of every state, the rows so far."""

    def __init__(
        self, spec: ScanSpec, outputs: tuple[OutputSpec, ...] | None, cut: int
    ) -> None:
        self.spec = spec
        self.cut = cut
        self.bar = plan_bar(spec.n_steps, spec.options)
        self.outputs = outputs
        self.states = [o for o in outputs or () if o.is_state]
        self.past = [
            _unstack(state.initial_rows(), state.span) for state in self.states
        ]
        self.rows: list[list[PyTree]] = []
        self.traced = False  # a result is differentiated (or otherwise traced)
        self.shared = Updates()
        self.draws: dict[Stream, int] = {}  # per step
        self.positions: dict[Stream, Position] = {}  # before the loop

    def first_step(self) -> tuple[OutputSpec, ...] | None:
        """Run step 0; promoted specs when the states' types do not close yet."""
        returned, stop = self._step(0)
        name = self.spec.options.name
        self.outputs = complete_outputs(self.spec, self.outputs, len(returned.outputs))
        types = [jax.tree.map(row_type, row) for row in returned.outputs]
        promoted = promote_states(self.outputs, types, name)
        if promoted is None:
            self._record(returned)
            self.stopped = stop
        return promoted

    def finish(self) -> None:
        """Run the remaining steps."""
        step = 1
        while step < self.spec.n_steps and not self.stopped:
            returned, self.stopped = self._step(step)
            self._check_types(returned, step)
            self._record(returned)
            step += 1

    def results(self) -> tuple[list[PyTree], Updates, int]:
        """The stacked rows, the final values, the number of steps."""
        executed = len(self.rows)
        stacks = [
            jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows)
            for rows in zip(*self.rows, strict=True)
        ]
        positions = hand_on(self.draws, executed, self.spec.n_steps)
        return stacks, self.shared + positions, executed

    def _step(self, index: int) -> tuple[Returned, bool]:
        spec = self.spec
        arguments = [
            *_sequence_slices(spec, index),
            *(
                rows[len(rows) + tap]
                for state, rows in zip(self.states, self.past, strict=True)
                for tap in state.taps
            ),
        ]
        with self._frame(index) as frame:
            arguments += spec.non_sequence_arguments(spec.non_sequence_leaves())
            returned = call_step(spec, arguments, index)
            self.fresh = {
                variable: _new_value(variable, value, spec.options.name)
                for variable, value in returned.updates.items()
            }
            returned.outputs[:] = [
                jax.tree.map(jnp.asarray, o) for o in returned.outputs
            ]
            stopped = returned.stop is not None and _holds(returned.stop, spec)
        self._note_draws(frame, index)
        self._check_finite(returned, index, arguments)
        return returned, stopped

    def _frame(self, index: int) -> frames.Frame:
        """What the step sees: updated variables, and its own part of every stream."""
        positions = {
            stream: position.moved(index * self.draws[stream])
            for stream, position in self.positions.items()
        }
        return step_frame(self.spec, {**self.shared, **positions}, staged=False)

    def _note_draws(self, frame: frames.Frame, index: int) -> None:
        draws = {stream: count for stream, count in frame.draws.items() if count}
        if index == 0:
            self.draws = draws
            self.positions = {stream: stream.value for stream in draws}
        elif draws != self.draws:
            raise ScanValueError(
                explain_error(
                    self.spec.options.name,
                    f"random draws at step {index}",
                    needed="the draws of step 0, so that compiled loops agree",
                    came="another number of draws",
                    fix="draw in every step, and use the sample where it is wanted",
                )
            )

    def _record(self, returned: Returned) -> None:
        assert self.outputs is not None
        state_rows = []
        rows = list(returned.outputs)
        for index, output in enumerate(self.outputs):
            if output.is_state:
                rows[index] = jax.tree.map(_like, rows[index], output.initial)
                state_rows.append(rows[index])
        self.traced |= any(map(is_traced, jax.tree.leaves((rows, Updates(self.fresh)))))
        if len(self.rows) < self.cut:
            rows, state_rows = jax.lax.stop_gradient((rows, state_rows))
            self.fresh = jax.lax.stop_gradient(Updates(self.fresh))
        for past, row in zip(self.past, state_rows, strict=True):
            past.append(row)
            del past[0]
        self.rows.append(rows)
        if self.bar is not None:
            move_bar(self.bar, len(self.rows))
        self.shared = Updates({**self.shared, **self.fresh})

    def _check_types(self, returned: Returned, step: int) -> None:
        """Every step must return what step 0 returned."""
        first, name = self.rows[0], self.spec.options.name
        complete_outputs(self.spec, self.outputs, len(returned.outputs))
        for index, (then, row) in enumerate(zip(first, returned.outputs, strict=True)):
            before, now = (jax.tree.map(row_type, tree) for tree in (then, row))
            if _form(before) != _form(now):
                raise_changed(name, index, step, before, now)

    def _check_finite(
        self, returned: Returned, step: int, arguments: Sequence[PyTree]
    ) -> None:
        for index, output in enumerate(returned.outputs):
            if any(map(_is_broken, jax.tree.leaves(output))):
                name = self.spec.options.name
                place = f"output {index}"
                seen = jax.tree.map(self._worth, list(arguments))
                inputs = dict(zip(argument_names(self.spec), seen, strict=True))
                text = explain_error(
                    name,
                    f"{place} at step {step}",
                    needed="finite numbers",
                    came=str(output),
                    fix=f"look at the step's inputs, {inputs}",
                )
                raise NonFiniteError(text, step=step, output=place, inputs=inputs)

    def _worth(self, argument: Any) -> PyTree:
        """What an argument was worth in the step; a variable goes on changing."""
        if not isinstance(argument, SharedVariable):
            return argument
        return self.shared.get(argument, argument.value)


def _form(row: PyTree) -> Any:
    """What all rows of an output share: the tree, and the shapes in it."""
    leaves, tree = jax.tree.flatten(row)
    return tree, [leaf.shape for leaf in leaves]


def raise_changed(
    name: str | None, index: int, step: int, before: PyTree, now: PyTree
) -> None:
    """Refuse an output whose tree or shape differs from that of step 0."""
    raise ScanValueError(
        explain_error(
            name,
            f"output {index} at step {step}",
            needed=f"the shape of step 0, {tree_text(before)}",
            came=tree_text(now),
            fix="make the step return the same shapes every time",
        )
    )


def _sequence_slices(spec: ScanSpec, index: int) -> list[PyTree]:
    """The slices of step `index`, in the order of the step's arguments."""
    slices = []
    for sequence in spec.sequences:
        last = sequence.steps - 1
        time = last - index if spec.options.go_backwards else index
        slices += [
            jax.tree.map(lambda leaf, row=row: leaf[row], sequence.value)
            for row in (sequence.lead + time + tap for tap in sequence.taps)
        ]
    return slices


def _unstack(rows: PyTree, count: int) -> list[PyTree]:
    return [jax.tree.map(lambda leaf, row=row: leaf[row], rows) for row in range(count)]


def _new_value(variable: SharedVariable, value: Any, name: str | None) -> PyTree:
    leaves = checked_update(variable, value, name)
    return jax.tree.unflatten(jax.tree.structure(variable.value), leaves)


def _like(row: Leaf, initial: Leaf) -> Leaf:
    """A row in its state's dtype (a Python number returned by the step adapts)."""
    return row if row.dtype == initial.dtype else row.astype(initial.dtype)


def _is_broken(leaf: Leaf) -> bool:
    """True for a known array of floats with a NaN or an infinity in it."""
    if is_traced(leaf) or not jnp.issubdtype(leaf.dtype, jnp.inexact):
        return False
    return not bool(jnp.isfinite(leaf).all())
