"""New values of shared variables: an ordered map, merged and stored as a whole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import jax

from jscan._base.errors import ScanTypeError, Subject, UpdateCollision
from jscan._base.turns import Turn, to_update
from jscan._base.types import Leaf
from jscan._jax.types import is_traced
from jscan._state import frames
from jscan._state.storage import store
from jscan._state.streams import Stream, later
from jscan._state.variables import SharedVariable, check_value, raise_traced, strong

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

    def __init__(
        self, pairs: Mapping[SharedVariable, Any] | Iterable[Any] | None = None
    ) -> None:
        super().__init__()
        for variable, value in _as_pairs(pairs):
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
            raise ScanTypeError.at(
                _SUBJECT,
                "the target of an update",
                needed="a SharedVariable",
                came=f"{variable!r:.60} of type {type(variable).__name__}",
                fix="make it one with jscan.shared",
            )
        super().__setitem__(variable, value)

    def update(self, pairs: Any = None) -> None:  # type: ignore[override]
        """Add updates; a different value for a variable already there is an error."""
        new = {v: self._merged(v, value) for v, value in Updates(pairs).items()}
        for variable, value in new.items():
            self[variable] = value

    def __add__(self, other: Any) -> Updates:
        merged = Updates(self)
        merged.update(other)
        return merged

    def __radd__(self, other: Any) -> Updates:
        return Updates(other) + self

    def apply(self) -> None:
        """Store every new value in its variable, all or none.

        Raises:
            ScanTypeError: A value does not fit its variable, or the updates were
                computed inside a trace; return them from the step or function there.
        """
        with Turn(to_update(self)):
            checked = {}
            for variable, value in self.items():
                here = frames.staging_trace()
                if here is not variable.home or frames.current():
                    raise_traced(variable, "Updates.apply")
                leaves = check_value(variable, value, _SUBJECT, repr(variable))
                if here is None and any(map(is_traced, leaves)):
                    raise_traced(variable, "Updates.apply")
                tree = jax.tree.structure(variable.stored)
                new = jax.tree.unflatten(tree, [strong(leaf) for leaf in leaves])
                checked[variable] = variable.merged(new)
            store(checked)


OrderedUpdates = Updates


def checked_update(
    variable: SharedVariable, value: Any, name: str | None
) -> list[Leaf]:
    """Leaves of an update inside a loop, of exactly the variable's types and shapes."""
    place = f"the update of {variable!r}"
    return check_value(variable, value, name, place, same_shape=True)


def _as_pairs(pairs: Any) -> Iterable[Any]:
    if pairs is None:
        return ()
    return pairs.items() if isinstance(pairs, Mapping) else pairs


def _flatten(updates: Updates) -> tuple[tuple[Any, ...], tuple[SharedVariable, ...]]:
    return tuple(updates.values()), tuple(updates)


def _unflatten(keys: tuple[SharedVariable, ...], values: Iterable[Any]) -> Updates:
    return Updates(zip(keys, values, strict=True))


jax.tree_util.register_pytree_node(Updates, _flatten, _unflatten)
