"""A program as one flat list of equations, and who reads what in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from jscan._jax.equations import exchanged, needed, unique_variables
from jscan._jax.jaxprs import Atom, fills_with_zero, is_variable
from jscan._jax.names import primitives
from jscan._jax.scans import holds_loop, is_scan
from jscan._optimizer.record.inlining import (
    inline_calls,
    is_first_run,
    is_plain_call,
)
from jscan._optimizer.record.loop import Loop
from jscan._optimizer.record.notes import Note, signed
from jscan._optimizer.record.reading import read_loop

Group: TypeAlias = tuple[Any, ...]
"""Loops to run as one; or one equation of any kind."""


@dataclass(frozen=True)
class Flat:
    """An open program whose calls are opened.

    Attributes:
        equations: Those the results need, and those with effects, in order.
        outputs: The operands the program returns.
        readers: The equations that read a variable; `None` if it is returned. What
            nobody reads is missing.
        producers: The equation that makes a variable.
        zeros: Variables that are known to be all zeros.
        groups: Which of the equations run as one; `None`: each alone.
        notes: What rules say of a loop, by its results.
    """

    equations: tuple[Any, ...]
    outputs: tuple[Atom, ...]
    readers: Mapping[Any, tuple[Any, ...] | None]
    producers: Mapping[Any, Any]
    zeros: frozenset[Any]
    groups: tuple[Group, ...] | None = None
    notes: Mapping[tuple[Any, ...], tuple[Note, ...]] = field(default_factory=dict)

    def with_equations(self, equations: Sequence[Any]) -> Flat:
        """The same program, computed by other equations."""
        return replace(index(equations, self.outputs), notes=self.notes)

    def exchanged(self, old: Any, new: Sequence[Any]) -> Flat:
        """The same program, with other equations in the place of one.

        It takes as long as what changes, where `with_equations` walks through all.
        Readers of a variable may then stand in another order.
        """
        readers, producers = dict(self.readers), dict(self.producers)
        new = needed(new, [v for v in old.outvars if v in readers])
        for equation in new:
            producers.update(dict.fromkeys(equation.outvars, equation))
            for atom in unique_variables(equation.invars):
                found = readers.get(atom, ())
                readers[atom] = None if found is None else (*found, equation)
        gone: dict[int, Sequence[Any]] = {}
        pending = [old]
        while pending:
            equation = pending.pop()
            gone[id(equation)] = ()
            for atom in unique_variables(equation.invars):
                kept = [e for e in readers[atom] or () if e is not equation]
                maker = producers.get(atom)
                if kept or readers[atom] is None:
                    readers[atom] = readers[atom] and tuple(kept)
                    continue
                del readers[atom]
                if maker and not (maker.effects or readers.keys() & {*maker.outvars}):
                    pending.append(maker)
        gone[id(old)] = new
        equations = tuple(exchanged(self.equations, gone))
        zeros = self.zeros | {e.outvars[0] for e in new if fills_with_zero(e)}
        return replace(
            self,
            equations=equations,
            readers=readers,
            producers=producers,
            zeros=zeros,
        )

    def noted(self, loop: Any, note: Note) -> Flat:
        """The program with a note of one of its loops."""
        name = tuple(loop.outvars)
        return replace(self, notes={**self.notes, name: (*self.notes_of(loop), note)})

    def notes_of(self, loop: Any) -> tuple[Note, ...]:
        """The notes of one of its loops."""
        return self.notes.get(tuple(loop.outvars), ())

    def refused(self, text: str) -> Flat:
        """The program with a note that the rule at work left all its loops alone."""
        flat = self
        for loop in filter(is_scan, self.equations):
            flat = flat.noted(loop, Note(False, text))
        return flat

    def signed(self, rule: str) -> Flat:
        """The program, whose new notes are those of this rule."""
        notes = {loop: signed(these, rule) for loop, these in self.notes.items()}
        return replace(self, notes=notes)


def flattened(jaxpr: Any) -> Flat:
    """An open program with the calls that hold loops opened."""
    equations, names = inline_calls(
        jaxpr.eqns, lambda e: (is_plain_call(e) or is_first_run(e)) and holds_loop(e)
    )
    outputs = [names.get(a, a) if is_variable(a) else a for a in jaxpr.outvars]
    return index(equations, outputs)


def index(equations: Sequence[Any], outputs: Sequence[Atom]) -> Flat:
    """Note who reads and who makes what in a list of equations."""
    equations = needed(equations, outputs)
    readers: dict[Any, list[Any] | None] = dict.fromkeys(filter(is_variable, outputs))
    for equation in equations:
        for atom in dict.fromkeys(filter(is_variable, equation.invars)):
            found = readers.setdefault(atom, [])
            if found is not None:
                found.append(equation)
    return Flat(
        equations=tuple(equations),
        outputs=tuple(outputs),
        readers={v: None if e is None else tuple(e) for v, e in readers.items()},
        producers={v: e for e in equations for v in e.outvars},
        zeros=frozenset(e.outvars[0] for e in equations if fills_with_zero(e)),
    )


def is_last_row(reader: Any, loop: Loop) -> bool:
    """Whether an equation reads the row of the last step alone."""
    if reader.primitive is not primitives.slice_p:
        return False
    last = 0 if loop.reverse else loop.length - 1
    start = reader.params["start_indices"][0]
    return start == last and reader.params["limit_indices"][0] == last + 1


def loop_in(flat: Flat, equation: Any, operands: Sequence[Any] | None = None) -> Loop:
    """The record of a loop of a program; without values it holds its operands."""
    values = list(equation.invars if operands is None else operands)
    return read_loop(equation, values, flat.readers, flat.zeros)
