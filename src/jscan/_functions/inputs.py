"""What the program of a function takes, and what a trace of it learns or asks for."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import jax

from jscan._base.errors import Subject
from jscan._base.types import Leaf, PyTree
from jscan._functions.call_arguments import Argument, Caller
from jscan._optimizer import Options
from jscan._state.variables import SharedVariable


@dataclass(frozen=True)
class Settings:
    """How a function is compiled."""

    name: str  # in errors and reports
    donate: bool = False  # whether the old values of updated variables are overwritten
    options: Options | None = None  # how its loops are rewritten; `None`: not at all
    default_updates: bool = True  # whether streams that it draws from move on
    static_argnames: tuple[str, ...] = ()
    in_shardings: PyTree = None  # where arguments are to lie, as in `jax.jit`
    out_shardings: PyTree = None  # and what it returns
    debug: bool = False  # whether it runs in Python, line by line

    @property
    def owner(self) -> Subject:
        """Who complains in errors."""
        return Subject(f"function {self.name!r}")


@dataclass(frozen=True, eq=False)
class Inputs:
    """What the program of a function takes, and how it is traced."""

    call: Caller  # the user's function, on flat arguments
    arguments: tuple[Argument, ...]
    settings: Settings
    updated: tuple[SharedVariable, ...] = ()  # under some setting at least
    others: tuple[SharedVariable, ...] = ()  # which it only reads
    captured: tuple[Leaf, ...] = ()  # arrays it closes over, at its first trace
    searched: bool = False  # whether arrays that are not among those are constants
    joined: tuple[SharedVariable, ...] = ()  # which join the mesh of other inputs
    output_tree: Any = None  # what it returns, where `out_shardings` ask for that

    @property
    def reads(self) -> tuple[SharedVariable, ...]:
        """Every variable that is an input."""
        return (*self.updated, *self.others)

    def with_more(self, request: Missing) -> Inputs:
        """The inputs that a trace asked for."""
        updated = tuple(dict.fromkeys((*self.updated, *request.updated)))
        reads = dict.fromkeys((*self.others, *request.reads))
        others = tuple(v for v in reads if v not in updated)
        joined = (*self.joined, *request.joined)
        new = dataclasses.replace(self, updated=updated, others=others, joined=joined)
        if request.output_tree is not None:
            new = dataclasses.replace(new, output_tree=request.output_tree)
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
    # Variables that nobody has put anywhere, updated on a mesh.
    joined: tuple[SharedVariable, ...] = ()
    output_tree: Any = None


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

    def new(self, fresh: list[Leaf]) -> dict[SharedVariable, PyTree]:
        """The new values, whole."""
        return dict(zip(self.trees, self.new_tree.unflatten(fresh), strict=True))

    def __repr__(self) -> str:
        return "<notes of a trace>"


# What a program gives: ``{notes: ()}``, leaves of outputs, leaves of new values.
Result: TypeAlias = tuple[dict[Notes, tuple[()]], list[Leaf], list[Leaf]]
