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
)
from jscan._base.types import Leaf, PyTree, tree_text
from jscan._execution.bar_plan import plan_bar
from jscan._frontend.returns import Returned
from jscan._frontend.signature import argument_names, check_arity
from jscan._frontend.spec import WITHOUT_ARRAYS, OutputSpec, ScanSpec
from jscan._frontend.state_types import promote_states
from jscan._frontend.step import (
    call_step,
    complete_outputs,
    step_frame,
    stop_condition,
    trace_step,
    types_of,
)
from jscan._jax.types import is_traced
from jscan._loops.bars import move_bar
from jscan._state import frames
from jscan._state.positions import Position
from jscan._state.streams import Stream, hand_on
from jscan._state.updates import Updates, checked_update
from jscan._state.variables import SharedVariable


def run_in_python(spec: ScanSpec) -> tuple[list[PyTree], Updates, int]:
    """Run the loop step by step.

    Returns:
        Stacked outputs ``[T, ...]``, final values of the updated variables, and the
        number of steps executed.
    """
    check_arity(spec)
    if spec.limit is not None:
        raise ScanNotImplementedError(
            "mode='DEBUG'",
            needed="a known number of steps: this mode is a Python loop",
            came="a traced n_steps",
            fix="call the function outside jax.jit and jax.vmap, or leave mode out",
        )
    if spec.n_steps == 0:
        return _no_steps(spec)
    run = _run(spec, spec.n_steps)
    executed = len(run.rows)
    if run.cut != _cut(spec, executed) and run.traced:
        run = _run(spec, executed)  # it stopped early: other steps are the last
    if run.bar is not None:
        move_bar(run.bar, executed, last=True)
    stacks = [
        jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows)
        for rows in zip(*run.rows, strict=True)
    ]
    return stacks, run.shared + hand_on(run.draws, executed, spec.bound), executed


def _run(spec: ScanSpec, n_steps: int) -> _Run:
    """The loop, with the derivative of the last steps before `n_steps`."""
    outputs = spec.outputs
    while True:
        run = _Run(spec, outputs, _cut(spec, n_steps))
        try:
            returned = run.step(0)
        except WITHOUT_ARRAYS as error:
            if not spec.listed:
                raise
            spec = spec.with_values(error)
            continue
        run.outputs = complete_outputs(outputs, len(returned.outputs))
        outputs = promote_states(run.outputs, list(map(types_of, returned.outputs)))
        if outputs is None:
            run.go_on(returned)
            return run
        # Types grew: start again from the promoted initials.


def _cut(spec: ScanSpec, n_steps: int) -> int:
    """The first step that `truncate_gradient` leaves differentiable."""
    kept = spec.options.truncate_gradient
    return 0 if kept == -1 else max(n_steps - kept, 0)


def _holds(stop: Any) -> bool:
    """Whether the loop stops: a Python loop has to know."""
    condition = stop_condition(stop)
    given = getattr(stop, "value", stop)
    try:
        # What is known stays known under `jax.jit`, where `condition` is traced.
        return bool(condition if is_traced(given) else np.asarray(given))
    except jax.errors.TracerBoolConversionError:
        raise ScanNotImplementedError(
            "mode='DEBUG'",
            needed="to know when the loop stops: this mode is a Python loop",
            came="an until() condition traced by jax.jit or jax.vmap",
            fix="call the function outside of them, or leave mode out",
        ) from None


def _no_steps(spec: ScanSpec) -> tuple[list[PyTree], Updates, int]:
    step = trace_step(spec)
    empty = jax.tree.map(
        lambda aval: jnp.zeros((0, *aval.shape), aval.dtype), step.rows
    )
    values = Updates({v: v.value for v in step.updated})
    return empty, values + hand_on(step.draws, 0, spec.bound), 0


class _Run:
    """One attempt at the loop: the past of every state, the rows so far."""

    def __init__(
        self, spec: ScanSpec, outputs: tuple[OutputSpec, ...] | None, cut: int
    ) -> None:
        self.spec = spec
        self.cut = cut
        self.bar = plan_bar(spec.n_steps, spec.options)
        self.outputs = outputs or ()
        self.past = [
            [_row(state.initial_rows(), index) for index in range(state.span)]
            for state in self.outputs
            if state.is_state
        ]
        self.rows: list[list[PyTree]] = []
        self.traced = False  # a result is differentiated (or otherwise traced)
        self.stopped = False
        self.shared = Updates()
        self.draws: dict[Stream, int] = {}  # per step
        self.positions: dict[Stream, Position] = {}  # before the loop

    def step(self, index: int) -> Returned:
        """Call the step on real values, and check what it returns."""
        spec = self.spec
        positions = {
            stream: position.moved(index * self.draws[stream])
            for stream, position in self.positions.items()
        }
        arguments = _sequence_slices(spec, index)
        states = (output for output in self.outputs if output.is_state)
        for state, rows in zip(states, self.past, strict=True):
            arguments += [rows[len(rows) + tap] for tap in state.taps]
        bound = {**self.shared, **positions}
        with step_frame(spec, bound, staged=False) as frame:
            arguments += spec.non_sequence_arguments(spec.non_sequence_leaves())
            returned = call_step(spec, arguments, index)
            self.fresh = {
                variable: jax.tree.unflatten(
                    jax.tree.structure(variable.value), checked_update(variable, value)
                )
                for variable, value in returned.updates.items()
            }
            returned.outputs[:] = jax.tree.map(jnp.asarray, returned.outputs)
            self.stopped = returned.stop is not None and _holds(returned.stop)
        self._note_draws(frame, index)
        self._check_finite(returned, index, arguments)
        return returned

    def go_on(self, returned: Returned) -> None:
        """Run the remaining steps."""
        self._record(returned)
        while len(self.rows) < self.spec.n_steps and not self.stopped:
            index = len(self.rows)
            returned = self.step(index)
            self._check_types(returned, index)
            self._record(returned)

    def _note_draws(self, frame: frames.Frame, index: int) -> None:
        draws = {stream: count for stream, count in frame.draws.items() if count}
        if index == 0:
            self.draws = draws
            self.positions = {stream: stream.value for stream in draws}
        elif draws != self.draws:
            raise ScanValueError(
                f"random draws at step {index}",
                needed="the draws of step 0, so that compiled loops agree",
                came="another number of draws",
                fix="draw in every step, and use the sample where it is wanted",
            )

    def _record(self, returned: Returned) -> None:
        """Keep the rows, of states in the dtype of their initials."""
        rows = [
            jax.tree.map(_like, row, output.initial) if output.is_state else row
            for row, output in zip(returned.outputs, self.outputs, strict=True)
        ]
        fresh = Updates(self.fresh)
        self.traced |= any(map(is_traced, jax.tree.leaves((rows, fresh))))
        if len(self.rows) < self.cut:
            rows, fresh = jax.lax.stop_gradient((rows, fresh))
        pasts = iter(self.past)
        for row, output in zip(rows, self.outputs, strict=True):
            if output.is_state:
                past = next(pasts)
                past.append(row)
                del past[0]
        self.rows.append(rows)
        if self.bar is not None:
            move_bar(self.bar, len(self.rows))
        self.shared = Updates({**self.shared, **fresh})

    def _check_types(self, returned: Returned, step: int) -> None:
        """Every step must return what step 0 returned."""
        complete_outputs(self.outputs, len(returned.outputs))
        pairs = zip(self.rows[0], returned.outputs, strict=True)
        for index, (before, now) in enumerate(pairs):
            if _form(before) != _form(now):
                raise ScanValueError(
                    f"output {index} at step {step}",
                    needed=f"the shape of step 0, {tree_text(before)}",
                    came=tree_text(now),
                    fix="make the step return the same shapes every time",
                )

    def _check_finite(
        self, returned: Returned, step: int, arguments: Sequence[PyTree]
    ) -> None:
        for index, output in enumerate(returned.outputs):
            if any(map(_is_broken, jax.tree.leaves(output))):
                place = f"output {index}"
                seen = jax.tree.map(self._worth, list(arguments))
                inputs = dict(zip(argument_names(self.spec), seen, strict=True))
                raise NonFiniteError(
                    f"{place} at step {step}",
                    needed="finite numbers",
                    came=str(output),
                    fix=f"look at the step's inputs, {inputs}",
                    step=step,
                    output=place,
                    inputs=inputs,
                )

    def _worth(self, argument: Any) -> PyTree:
        """What an argument was worth in the step; a variable goes on changing."""
        if not isinstance(argument, SharedVariable):
            return argument
        return self.shared.get(argument, argument.value)


def _form(row: PyTree) -> Any:
    """What all rows of an output share: the tree, and the shapes in it."""
    leaves, tree = jax.tree.flatten(row)
    return tree, [leaf.shape for leaf in leaves]


def _row(rows: PyTree, index: int) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[index], rows)


def _sequence_slices(spec: ScanSpec, index: int) -> list[PyTree]:
    """The slices of step `index`, in the order of the step's arguments."""
    slices: list[PyTree] = []
    for sequence in spec.sequences:
        time = sequence.steps - 1 - index if spec.options.go_backwards else index
        first = sequence.lead + time
        slices += [_row(sequence.value, first + tap) for tap in sequence.taps]
    return slices


def _like(row: Leaf, initial: Leaf) -> Leaf:
    """A row in its state's dtype (a Python number returned by the step adapts)."""
    return row if row.dtype == initial.dtype else row.astype(initial.dtype)


def _is_broken(leaf: Leaf) -> bool:
    """True for a known array of floats with a NaN or an infinity in it."""
    if is_traced(leaf) or not jnp.issubdtype(leaf.dtype, jnp.inexact):
        return False
    return not bool(jnp.isfinite(leaf).all())
