"""The trace of a Python function of arguments and shared variables.

Every shared variable that is read is an input of the program, and every array that is
captured; every variable that is updated is an output. A trace that meets more of them
raises `Missing`, and is done again. What it learns beside its arrays travels with them,
in the structure of the result.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jscan._base.errors import ScanTypeError, ScanValueError, Subject, signed
from jscan._base.types import Leaf, PyTree
from jscan._frontend.returns import Returned, parse_return
from jscan._functions.call_arguments import Caller
from jscan._jax.jaxprs import open_jaxpr
from jscan._jax.naming import name_after
from jscan._jax.types import is_traced
from jscan._optimizer import Options
from jscan._programs.program import Program
from jscan._programs.regions import evaluate_rewritten
from jscan._state import frames
from jscan._state.array_likes import label_of
from jscan._state.streams import Stream
from jscan._state.variables import SharedVariable, check_value


@dataclass(frozen=True)
class Settings:
    """How a function is compiled."""

    name: str  # in errors and reports
    donate: bool = False  # whether the old values of updated variables are overwritten
    options: Options | None = None  # how its loops are rewritten; `None`: not at all
    default_updates: bool = True  # whether streams that it draws from move on
    static_argnames: tuple[str, ...] = ()
    debug: bool = False  # whether it runs in Python, line by line

    @property
    def owner(self) -> Subject:
        """Who complains in errors."""
        return Subject(f"function {self.name!r}")


@dataclass(frozen=True, eq=False)
class Inputs:
    """What the program of a function takes, and how it is traced."""

    call: Caller  # the user's function, on flat arguments
    integers: tuple[int, ...]  # which of its arguments came as Python ints
    settings: Settings
    updated: tuple[SharedVariable, ...] = ()  # under some setting at least
    others: tuple[SharedVariable, ...] = ()  # which it only reads
    captured: tuple[
        Leaf, ...
    ] = ()  # arrays it closes over, as its first trace met them
    searched: bool = False  # whether arrays that are not among those are constants

    @property
    def reads(self) -> tuple[SharedVariable, ...]:
        """Every variable that is an input."""
        return (*self.updated, *self.others)

    def with_more(self, request: Missing) -> Inputs:
        """The inputs that a trace asked for."""
        updated = tuple(dict.fromkeys((*self.updated, *request.updated)))
        reads = dict.fromkeys((*self.others, *request.reads))
        others = tuple(v for v in reads if v not in updated)
        new = dataclasses.replace(self, updated=updated, others=others)
        if self.searched or request.captured is None:
            return new
        return dataclasses.replace(new, captured=request.captured, searched=True)


@dataclass(eq=False)
class Missing(Exception):
    """A trace has used what is not yet an input of the program."""

    owner: Inputs  # those there were
    reads: tuple[SharedVariable, ...]  # variables it read or updated
    updated: tuple[SharedVariable, ...] = ()
    # Arrays it closes over; None if it did not come to its end.
    captured: tuple[Leaf, ...] | None = None


@dataclass(eq=False)
class Notes:
    """What one trace learned beside its arrays; it holds none."""

    # Variables it gives new values, in the order of its results: their structures.
    trees: dict[SharedVariable, Any] = field(default_factory=dict)
    # Draws it makes of streams that it moves on, where known before it runs.
    draws: dict[SharedVariable, int] = field(default_factory=dict)
    output_tree: Any = None  # the structure of what it returns
    program: Any = None  # what it computes, before any rewriting
    # Of the arrays that are its first inputs: the place among those captured, or None.
    constants: tuple[int | None, ...] = ()
    has_callbacks: bool = False  # running it can raise an error of the user's code

    def leaves_of(self, new: Mapping[SharedVariable, PyTree]) -> list[Leaf]:
        """The leaves of new values, whose structures are noted."""
        found = []
        for variable, value in new.items():
            leaves, self.trees[variable] = jax.tree.flatten(value)
            found += leaves
        return found

    @functools.cached_property
    def new_tree(self) -> Any:
        """The structure of all new values together."""
        return jax.tree_util.treedef_tuple(self.trees.values())

    def __repr__(self) -> str:
        return "<notes of a trace>"


def trace(
    inputs: Inputs,
    updated: list[PyTree],
    others: list[PyTree],
    captured: Sequence[Leaf],
    arguments: list[Leaf],
) -> dict[Notes, tuple[list[Leaf], list[Leaf]]]:
    """What `jax.jit` traces: the user's function, with its loops rewritten."""
    notes, bound = Notes(), [*updated, *others]
    closed = _recorded(inputs, notes, bound, arguments)
    notes.program, constants = Program.close(closed)
    notes.has_callbacks = _has_callbacks(notes.program.jaxpr)
    known = {_identity(x): place for place, x in enumerate(inputs.captured)}
    notes.constants = tuple(map(known.get, map(_identity, closed.consts)))
    pairs = zip(notes.constants, constants, strict=True)
    constants = [x if place is None else captured[place] for place, x in pairs]
    operands = [*constants, *jax.tree.leaves(bound), *arguments]
    results = evaluate_rewritten(notes.program, operands, inputs.settings.options)
    if inputs.settings.donate:  # a value that was given away has to come back
        old = zip(inputs.updated, updated, strict=True)
        results += notes.leaves_of({v: x for v, x in old if v not in notes.trees})
    results, count = _apart(results, operands), notes.output_tree.num_leaves
    return {notes: (results[:count], results[count:])}


def _recorded(
    inputs: Inputs, notes: Notes, bound: list[PyTree], arguments: list[Leaf]
) -> Any:
    """The program of the user's function; asks for more where it has used no input."""
    seen: dict[SharedVariable, PyTree] = {}
    count = len(inputs.reads)

    def flat(*args: Any, **kwargs: Any) -> Any:
        bound, leaves = args[:count], jax.tree.leaves((args[count:], kwargs))
        values = dict(zip(inputs.reads, bound, strict=True))
        frame = frames.Frame(values, frames.Scope.FUNCTION)
        integers = {index: leaves[index] for index in inputs.integers}
        frame.integers = frames.Integers(inputs, integers)
        with frame:
            packed, new = evaluate(inputs.call, leaves, frame, inputs.settings)
        seen.update(frame.reads)
        notes.output_tree = jax.tree.structure(packed)
        counts = frame.draws.items()
        notes.draws = {s: n for s, n in counts if s in new and isinstance(n, int)}
        return packed, notes.leaves_of(new)

    name_after(flat, inputs.call.fn, [label_of(variable) for variable in inputs.reads])
    given, named = inputs.call.named(arguments)
    try:
        closed = jax.make_jaxpr(flat)(*bound, *given, **named)
    except frames.Lost as lost:
        raise Missing(inputs, lost.reads) from None
    _raise_missing(inputs, notes, seen, closed.consts)
    seen.clear()  # JAX may keep `flat`
    return closed


def _raise_missing(
    inputs: Inputs, notes: Notes, seen: Mapping[SharedVariable, PyTree], constants: Any
) -> None:
    """Ask for what a trace has used that is no input, if there is any."""
    updated = tuple(notes.trees)
    missing = {*updated, *seen}.difference(inputs.reads)
    values = {id(leaf) for v in missing for leaf in jax.tree.leaves(seen.get(v))}
    arrays = [x for x in constants if not is_traced(x) and id(x) not in values]
    is_first = bool(arrays) and not inputs.searched
    if missing or is_first or not set(inputs.updated).issuperset(updated):
        raise Missing(inputs, (*seen, *updated), updated, tuple(arrays))


def _apart(results: Sequence[Leaf], operands: Sequence[Leaf]) -> list[Leaf]:
    """Results of which none is an input or another result.

    JAX may return one array for both, and every variable keeps a buffer of its own.
    """
    seen = set(map(id, operands))
    apart = []
    for leaf in results:
        apart.append(jnp.copy(leaf) if id(leaf) in seen else leaf)
        seen.add(id(leaf))
    return apart


def _identity(constant: Any) -> Any:
    """Equal for the same array in two traces; JAX wraps those of NumPy anew."""
    if isinstance(constant, jax.Array):
        return id(constant)
    array = np.asarray(constant)
    memory = array.__array_interface__["data"][0]
    return memory, array.shape, array.strides, array.dtype.str


def evaluate(
    call: Caller, leaves: Sequence[Leaf], frame: frames.Frame, settings: Settings
) -> tuple[PyTree, dict[SharedVariable, PyTree]]:
    """Call the function in its frame: packed outputs, new values of variables."""
    value = call(leaves)
    with signed(settings.owner):
        returned = Returned([]) if value is None else parse_return(value)
        if returned.stop is not None:
            raise ScanValueError(
                "the return value",
                needed="outputs and updates",
                came="until, which only a step of scan may return",
                fix="move the loop into jscan.scan",
            )
        new = dict(frame.stored)
        if settings.default_updates:
            new |= {
                s: frame.bound[s]
                for s in frame.draws
                if not frames.is_born_in(s, frame)
            }
        for variable, update in returned.updates.items():
            if isinstance(variable, Stream) and variable in new:
                continue  # the frame has counted these draws, and any later ones
            place = f"the update of {variable!r}"
            if frames.is_born_in(variable, frame):
                raise ScanTypeError(
                    place,
                    needed="a variable that lives outside of the function",
                    came="one that the function itself makes",
                    fix="call jscan.shared outside of the function",
                )
            fresh = check_value(variable, update, place)
            tree = jax.tree.structure(frames.value_of(variable))
            new[variable] = jax.tree.unflatten(tree, fresh)
    # Line by line an output may be the very array of a variable, which a function that
    # donates overwrites: the caller gets one of its own, as from a program.
    own = jnp.asarray if frame.staged else jnp.array
    return jax.tree.map(own, returned.packed()), new


def _has_callbacks(jaxpr: Any) -> bool:
    """True when the program, or one inside it, calls back into Python."""
    return any(
        "callback" in equation.primitive.name
        or any(map(_has_callbacks, jax.tree.leaves(list(equation.params.values()))))
        for equation in getattr(open_jaxpr(jaxpr)[0], "eqns", ())
    )
