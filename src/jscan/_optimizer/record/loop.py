"""The record of one loop that every rule reads and returns changed.

A loop of length T runs `equations` once a step. Its variables are *constants* (one
value), *sequences* (one row a step) and *carries* (handed from step to step).
`after` holds equations that were moved out behind the loop, where they run once,
batched over time. `results` says how each value the program wants is obtained.

Work moved in front of the loop is evaluated when the rule runs (the whole rewrite is
traced), and its value bound as a constant or a sequence; `hoisted` remembers it for
the report alone.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from jscan._jax.equations import (
    exchanged,
    free_variables,
    in_order,
    needed,
    unique_variables,
)
from jscan._jax.jaxprs import Atom, is_variable
from jscan._optimizer.record.notes import Note, signed


@dataclass(frozen=True)
class Carry:
    """State of a loop: its variable in a step, its next value, its first value."""

    variable: Any
    update: Atom
    initial: Any


@dataclass(frozen=True)
class Counter:
    """A carry that adds a constant integer at each step.

    Its rows are known without running the loop, so rules see it as a sequence;
    inside the loop it is cheaper as a carry, and is written as one.
    """

    initial: Any
    increment: int


@dataclass(frozen=True)
class Piece:
    """Where a variable lies in the last axis of one that joins several."""

    whole: Any
    start: int


@dataclass(frozen=True)
class Final:
    """Result: the last value of a carry."""

    variable: Any


@dataclass(frozen=True)
class Known:
    """Result: a value known without running the loop."""

    value: Any


@dataclass(frozen=True)
class Stack:
    """Result: the rows of an operand at every step, shape `[T, ...]`."""

    atom: Atom


@dataclass(frozen=True)
class Total:
    """Result: an initial value plus the sum over time of some operands."""

    initial: Any
    terms: tuple[Atom, ...]


@dataclass(frozen=True)
class Applied:
    """Result: an equation of the program around the loop, on another result."""

    equation: Any
    operand: "Result"


@dataclass(frozen=True)
class Row:
    """Result: one row `[1, ...]` made of a value without a time axis."""

    operand: "Result"


@dataclass(frozen=True)
class Added:
    """Result: one result plus a linear function of another."""

    first: "Result"
    function: Callable[[Any], Any]
    second: "Result"


Result: TypeAlias = Final | Known | Stack | Total | Applied | Row | Added


@dataclass(frozen=True)
class Loop:
    """One loop. Frozen: a rule returns a changed copy.

    Attributes:
        hoisted: What left for the time before the loop.
        counters: Sequences that are cheaper as carries.
        zeros: Constants that are all zeros.
        pieces: By constants that are pieces of others, the equations that cut them:
            `hoist.constants` notes them, `hoist.return_pieces` may do them in the step.
        joined: Variables whose rows may be stored as parts of those of others.
        recomputes: A step computes again what `jax.checkpoint` did not store.
        vanishes: All its steps pay as a batch, since its sums were taken out.
        chunk: How many steps work behind the loop does at once, if not all.
        memo: What was found out about copies of this loop: see `Dependence`.
    """

    scope: str
    length: int
    reverse: bool
    unroll: int
    constants: Mapping[Any, Any]
    sequences: Mapping[Any, Any]
    carries: tuple[Carry, ...]
    equations: tuple[Any, ...]
    results: Mapping[Any, Result]
    after: tuple[Any, ...] = ()
    hoisted: tuple[Any, ...] = ()
    counters: Mapping[Any, Counter] = field(default_factory=dict)
    zeros: frozenset[Any] = frozenset()
    pieces: Mapping[Any, Any] = field(default_factory=dict)
    joined: Mapping[Any, Piece] = field(default_factory=dict)
    recomputes: bool = False
    vanishes: bool = False
    chunk: int | None = None
    notes: tuple[Note, ...] = ()
    memo: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)

    def fired(self, text: str) -> "Loop":
        """The loop with the note that the rule at work did something."""
        return self.noted(Note(True, text))

    def refused(self, text: str) -> "Loop":
        """The loop with the note that the rule left something alone, and why."""
        return self.noted(Note(False, text))

    def noted(self, *notes: Note) -> "Loop":
        """The loop with more notes."""
        return replace(self, notes=tuple(dict.fromkeys((*self.notes, *notes))))

    def signed(self, rule: str) -> "Loop":
        """The loop, whose new notes are those of this rule."""
        return replace(self, notes=signed(self.notes, rule))

    def exchanged(self, new: Mapping[int, Sequence[Any]]) -> "Loop":
        """The loop with others in place of some equations, given by their `id`."""
        if not new:
            return self
        return replace(self, equations=tuple(exchanged(self.equations, new)))

    def without(self, gone: Iterable[Any]) -> "Loop":
        """The loop without some equations of its step."""
        return self.exchanged({id(equation): () for equation in gone})

    def with_results(self, old: Any, new: Mapping[Any, Result]) -> "Loop":
        """The loop with other results in the place of one."""
        kept = {name: r for name, r in self.results.items() if name is not old}
        return replace(self, results={**kept, **new})

    def with_after(self, chosen: Iterable[Any]) -> "Loop":
        """The loop with equations of the step copied behind it.

        What then no longer has a reader inside is dropped by `drop_unused`; an
        equation needed on both sides is done twice.
        """
        ids = {id(e) for e in chosen} - {id(e) for e in self.after}
        new = [e for e in self.equations if id(e) in ids]
        after = in_order([*new, *self.after]) if self.after else new
        return replace(self, after=tuple(after))

    def wanted_rows(self) -> list[Any]:
        """Variables of which the results need a value per step."""
        made = (m for result in self.results.values() for m in sources(result))
        return unique_variables(atom for each in made for atom in _row_atoms(each))

    def stacked(self) -> list[Any]:
        """Variables the loop must hand out a row a step for.

        These are the wanted rows and the operands of the work behind the loop,
        without those that exist as constants or sequences anyway.
        """
        known, wanted = {*self.constants, *self.sequences}, self.wanted_rows()
        behind = needed(unknown(self.after, known), wanted)
        known.update(v for equation in behind for v in equation.outvars)
        outside = dict.fromkeys([*wanted, *free_variables(behind)])
        return [v for v in outside if v not in known]

    def value(self, atom: Atom) -> Any:
        """The value of a constant or literal."""
        return self.constants[atom] if is_variable(atom) else atom.val

    def without_values(self) -> "Loop":
        """The loop for a report, which must not keep the values of a trace alive."""
        return replace(
            self,
            constants=dict.fromkeys(self.constants),
            sequences=dict.fromkeys(self.sequences),
            carries=tuple(replace(carry, initial=None) for carry in self.carries),
            results={n: _shape_of(r) for n, r in self.results.items()},
            counters={},
            memo={},
        )


def sources(result: Result) -> tuple[Result, ...]:
    """What a result is made of, before anything around the loop is done to it."""
    match result:
        case Applied(_, operand) | Row(operand):
            return sources(operand)
        case Added(first, _, second):
            return (*sources(first), *sources(second))
    return (result,)


def with_sources(result: Result, change: Callable[[Result], Result]) -> Result:
    """The result with what it is made of changed."""
    match result:
        case Applied(_, operand) | Row(operand):
            return replace(result, operand=with_sources(operand, change))
        case Added(first, function, second):
            parts = (with_sources(part, change) for part in (first, second))
            return Added(next(parts), function, next(parts))
    return change(result)


def _shape_of(result: Result) -> Result:
    match result:
        case Applied(_, operand) | Row(operand):
            return replace(result, operand=_shape_of(operand))
        case Added(first, _, second):
            return Added(_shape_of(first), lambda value: value, _shape_of(second))
        case Known():
            return Known(None)
        case Total(_, terms):
            return Total(None, terms)
    return result


def unknown(equations: Iterable[Any], known: Collection[Any]) -> list[Any]:
    """The equations without those whose results are known anyway."""
    return [e for e in equations if not all(v in known for v in e.outvars)]


def _row_atoms(made: Result) -> tuple[Atom, ...]:
    match made:
        case Stack(atom):
            return (atom,)
        case Total(_, terms):
            return terms
    return ()


def final_variables(result: Result) -> list[Any]:
    """Carries whose last value the result reads."""
    return [made.variable for made in sources(result) if isinstance(made, Final)]


def without_work(loop: Loop) -> Loop:
    """The loop when another one does its work: nothing is left but its notes."""
    return replace(
        loop, constants={}, sequences={}, carries=(), equations=(), results={}
    )


def strong(carry: Carry) -> Any:
    """The initial value with the carry's type, not a weak one."""
    dtype = carry.variable.aval.dtype
    value = carry.initial
    if jnp.issubdtype(dtype, jax.dtypes.extended):
        return value
    return jax.lax.convert_element_type(value, dtype)
