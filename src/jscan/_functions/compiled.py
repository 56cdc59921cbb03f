"""A traced function as a program that JAX keeps.

`jax.jit` holds the programs: it traces the user's function again under every setting
and for every type that asks for another program.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jscan._base.errors import ScanValueError, signed
from jscan._base.turns import Claim
from jscan._base.types import Leaf, PyTree
from jscan._functions.inputs import Inputs, Notes, Result
from jscan._functions.trace import trace
from jscan._state import donation, frames
from jscan._state.array_likes import label_of
from jscan._state.placement import (
    Placement,
    check_there,
    check_together,
    mesh_among,
    on_mesh,
    own_sharding,
    placement_of,
    spread,
)
from jscan._state.variables import store, subject_of

_placement = operator.attrgetter("_placement")


class Compiled:
    """A function with the inputs it needs."""

    def __init__(self, inputs: Inputs) -> None:
        self.inputs = inputs
        self.reads = inputs.reads  # variables whose values it takes
        donate = inputs.settings.donate
        self.in_place = donate and bool(inputs.updated)
        self.claim = Claim(frozenset(self.reads), frozenset(inputs.updated), donate)
        self._count = len(inputs.updated)
        self._captured = tuple(map(jnp.asarray, inputs.captured))
        self._programs: dict[Any, Any] = {}  # by where the updated values lie

    def program(self, places: Sequence[Placement] | None) -> Any:
        """The program that JAX keeps, for updated values that lie in these places.

        Their new values come to lie there, too. None: there are none, or it is inside
        of another program, which sees to that itself.
        """
        key = tuple(places) if places else None
        found = self._programs.get(key)
        if found is None:
            found = self._programs[key] = self._compile(key)
        return found

    def _compile(self, places: tuple[Placement, ...] | None) -> Any:
        """Make one of updated values, other values, captured arrays and arguments.

        It gives ``({notes: ()}, output leaves, leaves of new values)``. The notes are
        the key of a dict because JAX keeps the keys of a result as they are, and hands
        the result out without running Python code: no interrupt comes between a program
        and its results.
        """
        settings, leaf_places = self.inputs.settings, None
        if places is not None:
            leaf_places = []
            for variable, known in zip(self.inputs.updated, places, strict=True):
                count = len(jax.tree.leaves(variable._stored))
                leaf_places += known or [None] * count
        traced = functools.partial(trace, self.inputs, leaf_places)
        traced.__name__ = settings.name  # type: ignore[attr-defined]
        how: dict[str, Any] = {}
        if settings.in_shardings is not None:
            wanted = [argument.sharding for argument in self.inputs.arguments]
            how["in_shardings"] = (None, None, None, wanted)
        if settings.out_shardings is not None and self.inputs.output_tree is not None:
            tree, place = self.inputs.output_tree, "out_shardings"
            whole = tree.unflatten(range(tree.num_leaves))
            with signed(settings.owner):
                wanted = spread(settings.out_shardings, whole, place)
            how["out_shardings"] = (None, wanted, leaf_places)
        elif leaf_places and any(place is not None for place in leaf_places):
            how["out_shardings"] = (None, None, leaf_places)
        return jax.jit(traced, donate_argnums=(0,) if settings.donate else (), **how)

    def operands(self, values: list[PyTree], leaves: list[Leaf]) -> tuple[Any, ...]:
        """The arguments of a program, for the values of `reads`."""
        count = self._count
        return values[:count], values[count:], self._captured, leaves

    def prepared(
        self, values: list[PyTree], leaves: list[Leaf]
    ) -> tuple[Any, tuple[Any, ...]]:
        """The program for these values, and its arguments; stores nothing."""
        places = None
        if frames.current() is None and frames.staging_trace() is None:
            values = self._joined(values, leaves)
            places = list(map(placement_of, values[: len(self.inputs.updated)]))
        return self.program(places), self.operands(values, leaves)

    def flat(self, notes: Notes, leaves: list[Leaf]) -> list[Leaf] | None:
        """What the program of the notes is called with now; None if not all is known.

        Not known is an array that it did not close over at its first trace.
        """
        if None in notes.constants:
            return None
        constants = [self._captured[place or 0] for place in notes.constants]
        values = self._joined(list(map(frames.value_of, self.reads)), leaves)
        operands = [*constants, *jax.tree.leaves(values), *map(jnp.asarray, leaves)]
        return operands if len(operands) == len(notes.program.in_avals) else None

    def notes(self, values: list[PyTree], leaves: list[Leaf]) -> Notes:
        """Trace the function, unless JAX has it, and compile nothing."""
        program, operands = self.prepared(values, leaves)
        (notes,) = program.eval_shape(*operands)[0]
        return notes

    def settled(self, values: list[PyTree], leaves: list[Leaf]) -> Any:
        """The program for the stored values, which are put on its mesh if need be."""
        if values and frames.staging_trace() is not None:
            for variable in self.reads:
                frames.value_of(variable)  # refuses what JAX would freeze
            return self.program(None)
        updated = self.inputs.updated
        known = self._programs.get(tuple(map(_placement, updated)) or None)
        if known is not None:
            return known
        values[:] = self._joined(values, leaves)
        for variable in updated:
            variable._placement = None  # first, so that an interrupt does no harm
        now = zip(self.reads, values, strict=True)
        store({v: x for v, x in now if v in self.inputs.joined})
        for variable in updated:
            variable._placement = placement_of(variable._stored)
        return self.program(list(map(_placement, updated)))

    def _joined(self, values: list[PyTree], leaves: list[Leaf]) -> list[PyTree]:
        """The values, where some variables join the mesh of the other inputs."""
        joined = self.inputs.joined
        if not joined:
            return values
        settings = self.inputs.settings
        asked = jax.tree.leaves((settings.in_shardings, settings.out_shardings))
        arrays = jax.tree.leaves((values, self._captured, leaves))
        mesh = mesh_among([*map(own_sharding, arrays), *asked])
        old = zip(self.reads, values, strict=True)
        return [on_mesh(x, mesh) if v in joined and mesh else x for v, x in old]

    def run(self, program: Any, values: list[PyTree], leaves: list[Leaf]) -> Result:
        """Run one of the programs; stores nothing."""
        count = self._count  # each call runs this: no call of `operands`
        return program(values[:count], values[count:], self._captured, leaves)

    def call_in_place(
        self,
        program: Any,
        values: list[PyTree],
        leaves: list[Leaf],
        results: list[Any],
    ) -> None:
        """Run the program and append its `Result`, in one call of C code.

        The old values are gone when the program has run; so the new ones must have
        been put somewhere before an interrupt can come.
        """
        operands = self.operands(values, leaves)
        self._check_distinct(values, operands)
        results.extend(map(program, *[(operand,) for operand in operands]))

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

    def check(self, values: list[PyTree], leaves: list[Leaf]) -> None:
        """Refuse inputs whose buffers are deleted, or that lie where they cannot."""
        owner = self.inputs.settings.owner
        donation.check_alive(leaves, "an argument", owner)
        for variable, value in zip(self.reads, values, strict=True):
            donation.check_alive(value, "its stored value", subject_of(variable))
        donation.check_alive(self._captured, "an array it closes over", owner)
        with signed(owner):
            named = []
            for known, leaf in zip(self.inputs.arguments, leaves, strict=True):
                check_there(known.name, leaf, known.sharding)
                named.append((known.name, leaf))
            named += [("an array it closes over", leaf) for leaf in self._captured]
            for variable, value in zip(self.reads, values, strict=True):
                named += [(repr(variable), leaf) for leaf in jax.tree.leaves(value)]
            check_together(named)

    def note_taken(self, values: list[PyTree]) -> None:
        """Remember who overwrote the old values."""
        for variable, value in zip(self.inputs.updated, values, strict=False):
            # Not its repr, which would wait for the new value.
            text = f"{self.inputs.settings.owner}, which updates {label_of(variable)}"
            donation.note_taken(value, f"{text} with donate=True")


def _buffer(leaf: Any) -> Any:
    """Names an array's memory; arrays on several devices go by identity."""
    try:
        return leaf.unsafe_buffer_pointer()
    except (AttributeError, ValueError, TypeError, RuntimeError):
        return id(leaf)
