"""New values of shared variables: an ordered map, merged and stored as a whole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias, TypeVar

import jax

from jscan._base.errors import (
    ScanAttributeError,
    ScanTypeError,
    Subject,
    UpdateCollision,
    signed,
)
from jscan._base.kinds import shown
from jscan._base.turns import Turn, to_update
from jscan._base.types import Leaf, PyTree
from jscan._state.new_values import check_value
from jscan._state.positions import later
from jscan._state.streams import Stream
from jscan._state.variables import SharedVariable, store, to_store

V = TypeVar("V", bound=SharedVariable)
NewValues: TypeAlias = Mapping[V, Any] | Iterable[tuple[V, Any]] | None

_SUBJECT = Subject("Updates")


class Updates(dict[SharedVariable, Any]):
    """New values of shared variables, in the order in which they were given.

    ``a + b`` and ``a.update(b)`` merge; two different values for one variable raise
    ``KeyError('Collision', variable)``. Of two positions in one random stream the later
    one stays: all draws before it were made. Nothing is stored before `apply`, or
    before a `function` that returns the updates ends.

    Args:
        pairs: A mapping, or pairs ``(variable, value)``; None for no updates.

    Raises:
        ScanTypeError: A target that is no shared variable.
        UpdateCollision: Two values for one variable.

    Example:
        >>> import jscan
        >>> counter = jscan.shared(0, name="counter")
        >>> updates = jscan.Updates({counter: 5})
        >>> updates.apply()
        >>> int(counter.value)
        5
    """

    def __init__(self, pairs: NewValues[V] = None) -> None:
        super().__init__()
        for variable, value in _pairs(pairs):
            self[variable] = self._merged(variable, value)

    def _merged(self, variable: SharedVariable, value: Any) -> Any:
        """The one value of a variable that may have one here already."""
        here = self.get(variable, value)
        if here is value:
            return value
        if isinstance(variable, Stream):
            return later(here, value)
        raise UpdateCollision("Collision", variable)

    def __setitem__(self, variable: SharedVariable, value: Any) -> None:
        if not isinstance(variable, SharedVariable):
            raise ScanTypeError(
                "the target of an update",
                needed="a SharedVariable",
                came=shown(variable),
                fix="make it one with jscan.shared",
                owner=_SUBJECT,
            )
        super().__setitem__(variable, value)

    def update(self, pairs: NewValues[V] = None) -> None:  # type: ignore[override]
        """Add updates, as ``+`` does; a second value of a variable is refused."""
        new = Updates(pairs).items()
        super().update({v: self._merged(v, value) for v, value in new})

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        raise ScanAttributeError(
            f"the attribute {name!r}",
            needed="one of a dict, or apply",
            came="none of them",
            fix="of outputs, updates = scan(...) take the outputs: "
            f"result.outputs[-1].{name}",
            owner=_SUBJECT,
        )

    def __add__(self, other: NewValues[V]) -> Updates:
        merged = Updates(self)
        merged.update(other)
        return merged

    def __radd__(self, other: NewValues[V]) -> Updates:
        return Updates(other) + self

    def apply(self) -> None:
        """Store every new value in its variable, all or none.

        Raises:
            ScanTypeError: A value does not fit its variable, or the updates were
                computed inside a trace; return them from the step or function there.
            ScanValueError: A value cannot be split as the old one is, or is deleted.
        """
        with Turn(to_update(self)), signed(_SUBJECT):
            checked = {}
            for variable, value in self.items():
                new = to_store(variable, value, repr(variable), "Updates.apply")
                if isinstance(variable, Stream):
                    new = later(variable._stored, new)
                checked[variable] = new
            store(checked)


OrderedUpdates = Updates


def _pairs(given: Any) -> Iterable[Any]:
    if given is None or isinstance(given, Mapping):
        return () if given is None else given.items()
    try:
        return [(variable, value) for variable, value in given]
    except (TypeError, ValueError):
        raise ScanTypeError(
            "updates",
            needed="a dict, or pairs of a shared variable and its new value",
            came=shown(given),
            fix="write {variable: new}; arrays are in the outputs of "
            "outputs, updates = scan(...)",
            owner=_SUBJECT,
        ) from None


def checked_update(variable: SharedVariable, value: Any) -> list[Leaf]:
    """Leaves of an update inside a loop, of exactly the variable's types and shapes."""
    place = f"the update of {variable!r}"
    return check_value(variable, value, place, same_shape=True)


def with_updates(value: PyTree) -> PyTree:
    """The tree with `Updates` for plain dicts of new values, whose keys JAX sorts."""

    def are_new_values(part: Any) -> bool:
        keys = type(part) is dict and [*part]
        return bool(keys) and all(isinstance(key, SharedVariable) for key in keys)

    mended = lambda part: Updates(part) if are_new_values(part) else part
    return jax.tree.map(mended, value, is_leaf=are_new_values)


jax.tree_util.register_pytree_node(
    Updates,
    lambda updates: (tuple(updates.values()), tuple(updates)),
    lambda keys, values: Updates(zip(keys, values, strict=True)),
)
