"""A traced function as a program that JAX keeps.

`jax.jit` holds the programs: it traces the user's function again under every setting
and for every type that asks for another program.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jscan._base.errors import ScanValueError
from jscan._base.turns import Claim
from jscan._base.types import Leaf, PyTree
from jscan._functions.trace import Inputs, Notes, trace
from jscan._state import donation, frames
from jscan._state.variables import SharedVariable, subject_of


class Compiled:
    """A function with the inputs it needs."""

    def __init__(self, inputs: Inputs) -> None:
        self.inputs = inputs
        self.reads = inputs.reads  # variables whose values it takes
        donate = inputs.settings.donate
        self.claim = Claim(frozenset(self.reads), frozenset(inputs.updated), donate)
        self._captured = tuple(map(jnp.asarray, inputs.captured))
        traced = functools.partial(trace, inputs)
        traced.__name__ = inputs.settings.name  # type: ignore[attr-defined]
        # ``(updated values, other values, captured arrays, arguments) -> {notes:
        # (output leaves, new value leaves)}``. The notes are the key of a dict because
        # JAX keeps the keys of a result as they are, and hands the result out without
        # running Python code: no interrupt comes between a program and its results.
        self.run: Any = jax.jit(traced, donate_argnums=(0,) if donate else ())

    def operands(self, values: list[PyTree], leaves: list[Leaf]) -> tuple[Any, ...]:
        """The arguments of `run`, for the values of `reads`."""
        count = len(self.inputs.updated)
        return values[:count], values[count:], self._captured, leaves

    def flat(self, notes: Notes, leaves: list[Leaf]) -> list[Leaf] | None:
        """What the program of the notes is called with now; None if not all is known.

        Not known is an array that it did not close over at its first trace.
        """
        if None in notes.constants:
            return None
        constants = [self._captured[place or 0] for place in notes.constants]
        values = jax.tree.leaves(list(map(frames.value_of, self.reads)))
        operands = [*constants, *values, *map(jnp.asarray, leaves)]
        return operands if len(operands) == len(notes.program.in_avals) else None

    def notes(self, values: list[PyTree], leaves: list[Leaf]) -> Notes:
        """Trace the function, unless JAX has it, and compile nothing."""
        (notes,) = self.run.eval_shape(*self.operands(values, leaves))
        return notes

    def __call__(self, values: list[PyTree], leaves: list[Leaf]) -> Result:
        """Run the program; stores nothing."""
        return Result(self.run(*self.operands(values, leaves)))

    def call_in_place(
        self, values: list[PyTree], leaves: list[Leaf], results: list[Any]
    ) -> None:
        """Run the program and append its `Result`, in one call of C code.

        The old values are gone when the program has run; so the new ones must have
        been put somewhere before an interrupt can come.
        """
        operands = self.operands(values, leaves)
        self._check_distinct(values, operands)
        results.extend(map(self.run, *[(operand,) for operand in operands]))

    def _check_distinct(self, values: list[PyTree], operands: Sequence[Any]) -> None:
        """No buffer that is to be overwritten may be wanted a second time."""
        seen: dict[Any, int] = {}
        for leaf in jax.tree.leaves(operands):
            key = _buffer(leaf)
            seen[key] = seen.get(key, 0) + 1
        for variable, value in zip(self.inputs.updated, values, strict=False):
            if any(seen[_buffer(leaf)] > 1 for leaf in jax.tree.leaves(value)):
                raise ScanValueError(
                    f"{variable!r} with donate=True",
                    needed="a buffer that nothing else in the call uses",
                    came="one that is also an argument, captured by the function, "
                    "or held by another variable",
                    fix="pass or store a copy, as in jnp.array(x)",
                    owner=self.inputs.settings.owner,
                )

    def check_alive(self, values: list[PyTree], leaves: list[Leaf]) -> None:
        """Refuse inputs whose buffers are deleted."""
        owner = self.inputs.settings.owner
        donation.check_alive(leaves, "an argument", owner)
        for variable, value in zip(self.reads, values, strict=True):
            donation.check_alive(value, "its stored value", subject_of(variable))
        donation.check_alive(self._captured, "an array it closes over", owner)

    def note_taken(self, values: list[PyTree]) -> None:
        """Remember who overwrote the old values."""
        for variable, value in zip(self.inputs.updated, values, strict=False):
            text = f"{self.inputs.settings.owner}, which updates {variable!r} with "
            donation.note_taken(value, text + "donate=True")


class Result:
    """What a program gave: outputs, and new values of variables."""

    def __init__(self, returned: dict[Notes, tuple[list[Leaf], list[Leaf]]]) -> None:
        ((self.notes, (self.leaves, self.fresh)),) = returned.items()

    @property
    def outputs(self) -> PyTree:
        """In the structure that the user's function gave them."""
        return self.notes.output_tree.unflatten(self.leaves)

    @property
    def new(self) -> dict[SharedVariable, PyTree]:
        """The new values, whole."""
        values = self.notes.new_tree.unflatten(self.fresh)
        return dict(zip(self.notes.trees, values, strict=True))


def _buffer(leaf: Any) -> Any:
    """Names an array's memory; arrays on several devices go by identity."""
    try:
        return leaf.unsafe_buffer_pointer()
    except (AttributeError, ValueError, TypeError, RuntimeError):
        return id(leaf)
