"""The arguments of one call of a compiled function: flat, traced or constant."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax

from jscan._base.errors import ScanTypeError, Subject
from jscan._base.types import Leaf, is_array, is_number
from jscan._state.array_likes import ArrayLike
from jscan._state.variables import SharedVariable


@dataclass(frozen=True)
class Taker:
    """The Python function that takes the arguments, and what is known of them."""

    fn: Callable[..., Any]
    owner: Subject
    signature: inspect.Signature
    static_names: tuple[str, ...]

    def bind(self, args: Any, kwargs: Any) -> inspect.BoundArguments:
        """The arguments by name; refuses those the function does not take."""
        try:
            return self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise ScanTypeError.at(
                self.owner,
                "a call",
                needed=f"the arguments {self.signature}",
                came=f"others ({error})",
                fix="call it as you would call the Python function",
            ) from None


@dataclass(eq=False)
class Kind:
    """All calls with one tree of arguments, of the same Python types.

    Attributes:
        tree: The tree.
        arrays: Places of arrays and numbers; other leaves are part of the program.
        integers: Places of Python ints, traced unless the function needs their value.
        unwrapped: Places of objects that stand for an array.
        layout: How such a call is compiled, as far as is known.
    """

    tree: Any
    arrays: frozenset[int]
    integers: frozenset[int]
    unwrapped: tuple[int, ...]
    layout: Layout


class Layout:
    """Which arguments of a kind are traced.

    Attributes:
        python: Places of the ints whose values the function needs.
        traced: Places of the leaves that are traced.
        constant: Places of the other ones.
        programs: What was compiled for the values of those.
    """

    def __init__(
        self, size: int, arrays: frozenset[int], python: frozenset[int] = frozenset()
    ) -> None:
        self.python = python
        self.traced = sorted(arrays - python)
        self.constant = sorted(set(range(size)).difference(self.traced))
        self.programs: dict[Any, Any] = {}


class Arguments(NamedTuple):
    """The arguments of one call."""

    kind: Kind
    layout: Layout
    leaves: list[Any]

    @property
    def constants(self) -> tuple[Any, ...]:
        """The leaves that are part of the program: equal for calls that share one."""
        return tuple([self.leaves[place] for place in self.layout.constant])

    @property
    def traced(self) -> list[Leaf]:
        """The leaves that are traced."""
        return [self.leaves[place] for place in self.layout.traced]

    def laid_out(self, python: frozenset[int]) -> Arguments:
        """The arguments with the ints of these places constant."""
        if python == self.layout.python:
            return self
        layout = Layout(len(self.leaves), self.kind.arrays, python)
        return self._replace(layout=layout)

    def caller(self, taker: Taker) -> Callable[[Sequence[Leaf]], Any]:
        """The function of the traced leaves alone; it keeps none of those here."""
        tree, size, traced = self.kind.tree, len(self.leaves), self.layout.traced
        constants = dict(zip(self.layout.constant, self.constants, strict=True))

        def call(values: Sequence[Leaf]) -> Any:
            leaves = constants | dict(zip(traced, values, strict=True))
            flat = [_bare(leaves[place]) for place in range(size)]
            args, kwargs = jax.tree.unflatten(tree, flat)
            return taker.fn(*args, **kwargs)

        return call


class Sorter:
    """Flattens arguments, and keeps what it has found out of every kind of them."""

    def __init__(self, taker: Taker) -> None:
        self.taker = taker
        self.kinds: dict[Any, Kind] = {}

    def __call__(self, args: Any, kwargs: Any) -> Arguments:
        """The flat arguments; refuses what can neither be traced nor kept."""
        if self.taker.static_names:
            args, kwargs = self._with_static(args, kwargs)
        leaves, tree = jax.tree.flatten((args, kwargs))
        key = tree, tuple(map(type, leaves))
        kind = self.kinds.get(key)
        if kind is None:
            self.taker.bind(args, kwargs)
            kind = self.kinds.setdefault(key, _kind(tree, leaves, self.taker.owner))
        for place in kind.unwrapped:
            leaves[place] = leaves[place].value
        return Arguments(kind, kind.layout, leaves)

    def _with_static(self, args: Any, kwargs: Any) -> Any:
        bound = self.taker.bind(args, kwargs)
        for name in self.taker.static_names:
            if name in bound.arguments:
                value = bound.arguments[name]
                match self.taker.signature.parameters[name].kind:
                    case inspect.Parameter.VAR_POSITIONAL:
                        value = tuple(map(Whole, value))
                    case inspect.Parameter.VAR_KEYWORD:
                        value = {key: Whole(part) for key, part in value.items()}
                    case _:
                        value = Whole(value)
                bound.arguments[name] = value
        return bound.args, bound.kwargs


class Whole:
    """An argument that is static as a whole, whatever it holds."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Whole):
            return False
        # True == 1 == 1.0, but a program made for one is not that for another.
        return type(self.value) is type(other.value) and self.value == other.value

    def __hash__(self) -> int:
        return hash(self.value)


def _bare(leaf: Any) -> Any:
    return leaf.value if isinstance(leaf, Whole) else leaf


def _kind(tree: Any, leaves: Sequence[Any], owner: Subject) -> Kind:
    places = [place for place, leaf in enumerate(leaves) if _is_array(leaf, owner)]
    return Kind(
        tree,
        arrays=frozenset(places),
        integers=frozenset(place for place in places if isinstance(leaves[place], int)),
        unwrapped=tuple(p for p in places if isinstance(leaves[p], ArrayLike)),
        layout=Layout(len(leaves), frozenset(places)),
    )


def _is_array(leaf: Any, owner: Subject) -> bool:
    if isinstance(leaf, SharedVariable):
        raise ScanTypeError.at(
            owner,
            "an argument",
            needed="arrays, numbers or trees of them",
            came=repr(leaf),
            fix=f"read the variable in the function's body, or pass {leaf.label}.value",
        )
    return is_array(leaf) or is_number(leaf) or isinstance(leaf, ArrayLike)
