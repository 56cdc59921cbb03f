"""The arguments of one call of a compiled function: flat, typed, traced or constant."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from . import _donation
from ._errors import ScanTypeError, Subject, explain_error
from ._operators import ArrayLike
from ._shared import SharedVariable
from ._types import Leaf, is_array, is_number


@dataclass(frozen=True)
class Taker:
    """The Python function that takes the arguments, and what is known of them."""

    fn: Callable[..., Any]
    owner: Subject
    signature: inspect.Signature
    static_names: tuple[str, ...]


@dataclass(frozen=True)
class Kind:
    """What a call's arguments look like: equal kinds can share a program."""

    tree: Any
    types: tuple[Any, ...]
    wide: bool  # 64-bit types are on


@dataclass(frozen=True)
class Arguments:
    """The arguments of one call, flat, and which of them can be traced.

    Attributes:
        leaves: All leaves.
        arrays: Places of arrays and numbers; other leaves are part of the program.
        integers: Places of Python ints, traced unless the function needs their value.
    """

    kind: Kind
    leaves: tuple[Any, ...]
    arrays: tuple[int, ...]
    integers: frozenset[int]

    @classmethod
    def sort(cls, taker: Taker, args: Any, kwargs: Any) -> Arguments:
        """Bind and flatten arguments; refuses what can neither be traced nor kept."""
        owner = taker.owner
        try:
            bound = taker.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise ScanTypeError(
                explain_error(
                    owner,
                    "the arguments",
                    needed=f"those of {taker.signature}",
                    came=str(error),
                    fix="pass what its signature asks for",
                )
            ) from None
        tree_in = {
            name: _Whole(value) if name in taker.static_names else value
            for name, value in bound.arguments.items()
        }
        leaves, tree = jax.tree.flatten(tree_in)
        places = [index for index, leaf in enumerate(leaves) if _is_array(leaf, owner)]
        leaves = [x.value if isinstance(x, ArrayLike) else x for x in leaves]
        _donation.check_alive([leaves[i] for i in places], owner, "an argument")
        types = list(leaves)
        for place in places:
            types[place] = _type(leaves[place])
        integers = {place for place in places if isinstance(leaves[place], int)}
        wide = bool(jax.config.jax_enable_x64)  # type: ignore[attr-defined]
        kind = Kind(tree, tuple(types), wide)
        try:
            hash(kind)
        except TypeError as error:
            raise ScanTypeError(
                explain_error(
                    owner,
                    "an argument",
                    needed="arrays, numbers, trees of them or hashable values",
                    came=str(error),
                    fix="pass arrays, numbers, text or tuples; no sets or objects that "
                    "compare by their parts",
                )
            ) from error
        return cls(kind, tuple(leaves), tuple(places), frozenset(integers))

    def traced_places(self, python: frozenset[int]) -> list[int]:
        """Places of the leaves that are traced when those of `python` are not."""
        return [place for place in self.arrays if place not in python]

    def traced(self, python: frozenset[int]) -> list[Leaf]:
        """The leaves that are traced."""
        return [self.leaves[place] for place in self.traced_places(python)]

    def key(self, python: frozenset[int]) -> Any:
        """Equal for calls that run the same program."""
        return self.kind, tuple(sorted((i, self.leaves[i]) for i in python))

    def call(self, taker: Taker, python: frozenset[int], traced: Sequence[Leaf]) -> Any:
        """Call the function with tracers in the places of traced leaves."""
        leaves = list(self.leaves)
        for place, value in zip(self.traced_places(python), traced, strict=True):
            leaves[place] = value
        arguments = jax.tree.unflatten(self.kind.tree, leaves)
        bound = taker.signature.bind_partial()
        for name, value in arguments.items():
            bound.arguments[name] = value.value if isinstance(value, _Whole) else value
        return taker.fn(*bound.args, **bound.kwargs)


class _Whole:
    """An argument that is static as a whole, whatever it holds."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Whole):
            return False
        # True == 1 == 1.0, but a program made for one is not that for another.
        return type(self.value) is type(other.value) and self.value == other.value

    def __hash__(self) -> int:
        return hash(self.value)


def _type(leaf: Any) -> Any:
    """Equal for leaves that `jax.jit` gives the same type; converts nothing."""
    if isinstance(leaf, jax.Array):
        return jax.typeof(leaf)
    if isinstance(leaf, np.ndarray | np.generic):
        return leaf.dtype, leaf.shape
    return type(leaf)


def _is_array(leaf: Any, owner: Subject) -> bool:
    if isinstance(leaf, SharedVariable):
        raise ScanTypeError(
            explain_error(
                owner,
                "an argument",
                needed="arrays, numbers or trees of them",
                came=repr(leaf),
                fix=f"read the variable in the function's body, or pass "
                f"{leaf.label}.value",
            )
        )
    return is_array(leaf) or is_number(leaf) or isinstance(leaf, ArrayLike)
