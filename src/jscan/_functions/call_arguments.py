"""The arguments of one call of a compiled function: flat, traced or constant."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax

from jscan._base.caches import Cache
from jscan._base.errors import ScanTypeError, ScanValueError, Subject, signed
from jscan._base.kinds import brief, fix_of_kind, shown
from jscan._base.types import Leaf, is_numeric
from jscan._frontend.hints import add_call
from jscan._functions.named_types import typed
from jscan._state.array_likes import ArrayLike, label_of
from jscan._state.placement import spread
from jscan._state.variables import SharedVariable


@dataclass(eq=False)
class Kind:
    """All calls with one tree of arguments, of the same Python types."""

    tree: Any
    arrays: frozenset[int]  # places of arrays and numbers; others are constants
    integers: frozenset[int]  # of ints, traced unless the function needs their value
    unwrapped: tuple[int, ...]  # of objects that stand for an array
    layout: Layout  # how such a call is compiled, as far as is known


class Layout:
    """Which arguments of a kind are traced."""

    def __init__(
        self, size: int, arrays: frozenset[int], python: frozenset[int] = frozenset()
    ) -> None:
        self.python = python  # places of the ints whose values the function needs
        self.traced = sorted(arrays - python)
        self.constant = sorted(set(range(size)).difference(self.traced))
        self.programs: Cache[Any] = Cache()


class Argument(NamedTuple):
    """What is known of a traced argument before its values."""

    is_int: bool = False  # whether it came as a Python int
    name: str = ""
    sharding: Any = None  # where it is to lie, if the user says so


class Arguments(NamedTuple):
    """The arguments of one call."""

    kind: Kind
    layout: Layout
    leaves: list[Any]

    @property
    def constants(self) -> tuple[Any, ...]:
        """The leaves that are part of the program: equal for calls that share one."""
        constant = self.layout.constant
        return tuple([self.leaves[place] for place in constant]) if constant else ()

    @property
    def traced(self) -> list[Leaf]:
        """The leaves that are traced."""
        layout, leaves = self.layout, self.leaves
        return [leaves[i] for i in layout.traced] if layout.constant else leaves

    def laid_out(self, python: frozenset[int]) -> Arguments:
        """The arguments with the ints of these places constant."""
        if python == self.layout.python:
            return self
        layout = Layout(len(self.leaves), self.kind.arrays, python)
        return self._replace(layout=layout)

    def unhashable(self, owner: Subject) -> ScanTypeError:
        """The error of a constant that no program can be kept by."""
        wrong = next(x for x in self.constants if not _is_hashable(x))
        return ScanTypeError(
            "an argument",
            needed="arrays, numbers, trees of them or hashable values",
            came=shown(wrong),
            fix=fix_of_kind(wrong),
            owner=owner,
        )

    def caller(self, fn: Callable[..., Any], owner: Subject) -> Caller:
        """The function of the traced leaves alone; it keeps none of those here."""
        constants = dict(zip(self.layout.constant, self.constants, strict=True))
        return Caller(fn, owner, self.kind.tree, self.layout.traced, constants)


@dataclass(frozen=True, eq=False)
class Caller:
    """A function of the traced leaves of its arguments."""

    fn: Callable[..., Any]
    owner: Subject  # who complains
    tree: Any  # of all arguments
    traced: list[int]  # places of the traced leaves
    constants: dict[int, Any]  # the others

    def __call__(self, values: Sequence[Leaf]) -> Any:
        """Call the function."""
        leaves = self.constants | dict(zip(self.traced, values, strict=True))
        flat = [leaves[place] for place in range(len(leaves))]
        flat = [x.value if isinstance(x, Whole) else x for x in flat]
        args, kwargs = jax.tree.unflatten(self.tree, flat)
        try:
            return self.fn(*args, **kwargs)
        except Exception as error:
            static = "; or name the argument in static_argnames"
            add_call(error, self.owner, self.fn, args, kwargs, "f", static)
            raise

    def named(self, values: Sequence[Leaf]) -> Any:
        """`values` as the arguments that JAX shall name: ``(args, kwargs)``."""
        size = len(self.traced) + len(self.constants)
        args, kwargs = jax.tree.unflatten(self.tree, range(size))
        keyed, _ = jax.tree.flatten_with_path((args, kwargs))
        return typed(args, kwargs, [keyed[place][0] for place in self.traced], values)


class Sorter:
    """Flattens arguments, and keeps what it has found out about every kind of them."""

    def __init__(
        self, fn: Callable[..., Any], owner: Subject, static_names: Sequence[str]
    ) -> None:
        self.owner = owner
        self.static_names = static_names
        try:
            self.signature = inspect.signature(fn)
        except (TypeError, ValueError):  # a builtin without one takes what it takes
            self.signature = inspect.signature(lambda *args, **kwargs: None)
        self._check_static()
        self.kinds: Cache[Kind] = Cache()

    def sort(self, args: Any, kwargs: Any) -> Arguments:
        """The flat arguments; refuses what can neither be traced nor kept."""
        if self.static_names:
            args, kwargs = self._with_static(args, kwargs)
        leaves, tree = jax.tree_util.tree_flatten((args, kwargs))
        key = tree, tuple(map(type, leaves))
        kind = self.kinds.get(key)
        if kind is None:
            self._bind(args, kwargs)
            kind = self.kinds[key] = _kind(tree, leaves, self.owner)
        for place in kind.unwrapped:
            leaves[place] = leaves[place].value
        return Arguments(kind, kind.layout, leaves)

    def described(
        self, arguments: Arguments, in_shardings: Any
    ) -> tuple[Argument, ...]:
        """What is known of the traced arguments, and where they are to lie."""
        tree, ints = arguments.kind.tree, arguments.kind.integers
        args, kwargs = tree.unflatten(arguments.leaves)
        places: list[Any] = [None] * len(arguments.leaves)
        if in_shardings is not None:
            if any(not isinstance(x, Whole) for x in kwargs.values()):
                raise ScanTypeError(
                    "in_shardings",
                    needed="a call with arguments by position, as in jax.jit",
                    came=f"the arguments {', '.join(kwargs)} by name",
                    fix="pass them by position",
                    owner=self.owner,
                )
            given = tuple(x for x in args if not isinstance(x, Whole))
            if isinstance(in_shardings, list):
                in_shardings = tuple(in_shardings)
            with signed(self.owner):
                wanted = iter(spread(in_shardings, given, "in_shardings"))
            is_whole = [isinstance(leaf, Whole) for leaf in arguments.leaves]
            places = [None if whole else next(wanted) for whole in is_whole]
        paths = jax.tree.leaves_with_path((args, kwargs))
        names = [_name(path, self.signature) for path, _ in paths]
        traced = arguments.layout.traced
        return tuple(Argument(i in ints, names[i], places[i]) for i in traced)

    def _bind(self, args: Any, kwargs: Any) -> inspect.BoundArguments:
        """The arguments by name; refuses those the function does not take."""
        try:
            return self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise ScanTypeError(
                "a call",
                needed=f"the arguments {self.signature}",
                came=f"others ({error})",
                fix="call it as you would call the Python function",
                owner=self.owner,
            ) from None

    def _check_static(self) -> None:
        """Refuse a name that is no argument's: what it means would be traced."""
        parameters = self.signature.parameters.values()
        takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
        names = [parameter.name for parameter in parameters]
        for name in self.static_names:
            if not isinstance(name, str) or not (takes_any or name in names):
                raise ScanValueError(
                    "static_argnames",
                    needed=f"names of the arguments {self.signature}",
                    came=brief(name),
                    fix="write static_argnames='name', or a tuple of names",
                    owner=self.owner,
                )

    def _with_static(self, args: Any, kwargs: Any) -> Any:
        bound = self._bind(args, kwargs)
        for name, value in list(bound.arguments.items()):
            kind, static = self.signature.parameters[name].kind, self.static_names
            if kind is inspect.Parameter.VAR_KEYWORD:
                whole = value if name in static else set(value).intersection(static)
                value = {k: _whole(v) if k in whole else v for k, v in value.items()}
            elif name in static:
                many = kind is inspect.Parameter.VAR_POSITIONAL
                value = tuple(map(_whole, value)) if many else _whole(value)
            bound.arguments[name] = value
        return bound.args, bound.kwargs


@dataclass(frozen=True)
class Whole:
    """An argument that is static as a whole, whatever it holds."""

    kind: type  # True == 1 == 1.0, but a program made for one is not that for another
    value: Any


def _whole(value: Any) -> Whole:
    return Whole(type(value), value)


def _kind(tree: Any, leaves: Sequence[Any], owner: Subject) -> Kind:
    places = [place for place, leaf in enumerate(leaves) if _is_array(leaf, owner)]
    return Kind(
        tree,
        arrays=frozenset(places),
        integers=frozenset(place for place in places if isinstance(leaves[place], int)),
        unwrapped=tuple(p for p in places if isinstance(leaves[p], ArrayLike)),
        layout=Layout(len(leaves), frozenset(places)),
    )


def _name(path: Any, signature: inspect.Signature) -> str:
    """How errors call an argument: ``argument 'params'['W']``."""
    (in_kwargs, first, *rest), names = path, list(signature.parameters)
    where = first.key if in_kwargs.idx else first.idx
    known = names[where] if isinstance(where, int) and where < len(names) else where
    return f"argument {known!r}{jax.tree_util.keystr(tuple(rest))}"


def _is_array(leaf: Any, owner: Subject) -> bool:
    if isinstance(leaf, SharedVariable):
        raise ScanTypeError(
            "an argument",
            needed="arrays, numbers or trees of them",
            came=repr(leaf),
            fix="read the variable in the function's body, or pass "
            f"{label_of(leaf)}.value",
            owner=owner,
        )
    return is_numeric(leaf) or isinstance(leaf, ArrayLike)


def _is_hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True
