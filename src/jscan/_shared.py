"""State that lives between calls: shared variables and the updates of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from . import _frames
from ._errors import UpdateCollision
from ._types import PyTree


class SharedVariable:
    """A value with identity: read anywhere, updated by what a step or function returns.

    Make one with `shared`.

    Example:
        >>> import jscan
        >>> counter = jscan.shared(0, name="counter")
        >>> int(counter.value)
        0
    """

    def __init__(self, value: PyTree, name: str | None = None) -> None:
        self.stored: PyTree = jax.tree.map(_strong, value)
        self.name = name

    @property
    def value(self) -> PyTree:
        """The current value: stored outside, traced inside a step or a function."""
        return _frames.outer_value(self, _frames.current())

    def __repr__(self) -> str:
        return f"<SharedVariable {self.name or 'unnamed'}>"


def _strong(leaf: Any) -> jax.Array:
    """An array of the leaf's own dtype: stored numbers do not stay weakly typed."""
    array = jnp.asarray(leaf)
    return jax.lax.convert_element_type(array, array.dtype)


def shared(value: PyTree, name: str | None = None) -> SharedVariable:
    """Make a shared variable.

    Args:
        value: An array, a number or a pytree of them.
        name: Used in errors and reports.

    Returns:
        The variable, holding a copy of `value` with strong types.

    Example:
        >>> import jscan
        >>> jscan.shared(1.0, name="scale")
        <SharedVariable scale>
    """
    return SharedVariable(value, name)


class Updates(dict[SharedVariable, Any]):
    """New values of shared variables, in the order in which they were given.

    Example:
        >>> import jscan
        >>> counter = jscan.shared(0, name="counter")
        >>> updates = jscan.Updates({counter: 5})
        >>> updates.apply()
        >>> int(counter.value)
        5
    """

    def __add__(self, other: Mapping[SharedVariable, Any] | None) -> Updates:
        merged = Updates(self)
        for variable, value in (other or {}).items():
            if variable in merged and merged[variable] is not value:
                raise UpdateCollision("Collision", variable)
            merged[variable] = value
        return merged

    def apply(self) -> None:
        """Store every new value in its variable."""
        for variable, value in self.items():
            variable.stored = jax.tree.map(_strong, value)


def as_updates(pairs: Mapping[SharedVariable, Any] | Iterable[Any]) -> Updates:
    """`Updates` from a mapping or from pairs."""
    return Updates(dict(pairs))


def _flatten(updates: Updates) -> tuple[tuple[Any, ...], tuple[SharedVariable, ...]]:
    return tuple(updates.values()), tuple(updates)


def _unflatten(keys: tuple[SharedVariable, ...], values: Iterable[Any]) -> Updates:
    return Updates(zip(keys, values, strict=True))


jax.tree_util.register_pytree_node(Updates, _flatten, _unflatten)
