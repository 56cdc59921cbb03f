"""Type aliases and the small facts about array types; nothing here runs a loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, SupportsIndex, TypeAlias

import jax
import numpy as np

PyTree: TypeAlias = Any

Leaf: TypeAlias = Any

# The shape of a sample; None: that of its parameters.
Size: TypeAlias = SupportsIndex | Sequence[SupportsIndex] | np.ndarray | None

NUMBER_TYPES = (bool, int, float, complex, np.number, np.bool_)


def is_number(value: object) -> bool:
    """True for a Python or NumPy scalar."""
    return isinstance(value, NUMBER_TYPES)


def is_array(value: object) -> bool:
    """True for a JAX array (a tracer included) or a NumPy array of numbers."""
    return isinstance(value, jax.Array) or (
        isinstance(value, np.ndarray) and value.dtype.kind in "biufcV"
    )


def is_numeric(value: object) -> bool:
    """True for an array or a number."""
    return is_array(value) or is_number(value)


def converts(value: object) -> bool:
    """True for a foreign object that JAX takes for an array; a traced Ref is none."""
    return hasattr(value, "__jax_array__") and not isinstance(value, jax.Ref)


def is_plain_sequence(value: object) -> bool:
    """True for a list or a plain tuple; a named tuple is a tree, not a container."""
    return isinstance(value, list) or type(value) is tuple


def is_number_list(value: object) -> bool:
    """True for a non-empty (nested) list, tuple or range that holds only numbers."""
    if isinstance(value, range):
        return len(value) > 0
    if not is_plain_sequence(value):
        return False
    items: list[Any] = list(value)  # type: ignore[call-overload]
    return bool(items) and all(
        is_number(item) or is_number_list(item) for item in items
    )


def is_nothing(value: object) -> bool:
    """True for what is no value at all: None, or a list of nothing else.

    Other trees without arrays, such as `optax.EmptyState`, are values like any other.
    """
    return value is None or (isinstance(value, list) and all(map(is_nothing, value)))


def type_text(leaf: Leaf) -> str:
    """A type as errors print it: ``float32[3,4]``."""
    if isinstance(leaf, jax.Ref):
        return str(jax.typeof(leaf))
    try:
        shape = np.shape(leaf)
    except Exception:  # it is no array, and NumPy asks whatever it is
        return _name_of(leaf)
    dtype = getattr(leaf, "dtype", type(leaf).__name__)
    return f"{dtype}[{','.join(map(str, shape))}]"


def _name_of(leaf: Leaf) -> str:
    try:
        return str(jax.typeof(leaf))
    except TypeError:
        return type(leaf).__name__


def tree_text(tree: PyTree) -> str:
    """A tree of types as errors print it: ``{'h': float32[3]}``."""
    leaves, treedef = jax.tree.flatten(tree)
    if treedef == jax.tree.structure(0):
        return type_text(leaves[0])
    texts = [_Bare(type_text(leaf)) for leaf in leaves]
    try:
        return str(jax.tree.unflatten(treedef, texts))
    except Exception:  # a class of the user's may want arrays, or not print
        return f"{type(tree).__name__}({', '.join(texts)})"


def tree_texts(one: PyTree, other: PyTree) -> tuple[str, str]:
    """Two trees of types that differ, as errors print them."""
    texts = tree_text(one), tree_text(other)
    if texts[0] != texts[1]:
        return texts
    # They differ in what a node does not print.
    return str(jax.tree.structure(one)), str(jax.tree.structure(other))


class _Bare(str):
    """Text that prints without quotes inside a tree."""

    def __repr__(self) -> str:
        return str(self)
