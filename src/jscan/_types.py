"""Type aliases and the small facts about array types; nothing here runs a loop."""

from __future__ import annotations

from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

PyTree: TypeAlias = Any
Leaf: TypeAlias = Any

NUMBER_TYPES = (bool, int, float, complex, np.number, np.bool_)


def is_number(value: object) -> bool:
    """True for a Python or NumPy scalar."""
    return isinstance(value, NUMBER_TYPES)


def is_array(value: object) -> bool:
    """True for a JAX array (a tracer included) or a NumPy array of numbers."""
    return isinstance(value, jax.Array) or (
        isinstance(value, np.ndarray) and value.dtype.kind in "biufcV"
    )


def is_traced(value: object) -> bool:
    """True for a value that is only known when the traced program runs."""
    return isinstance(value, Tracer)


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


def abstract(leaf: Leaf) -> jax.ShapeDtypeStruct:
    """Shape, dtype and weakness of an array, as JAX's tracing functions take them."""
    aval = jax.typeof(leaf)
    return jax.ShapeDtypeStruct(
        aval.shape, aval.dtype, weak_type=getattr(aval, "weak_type", False)
    )


def abstract_row(leaf: Leaf) -> jax.ShapeDtypeStruct:
    """`abstract` of one row of an array with a leading time axis."""
    whole = abstract(leaf)
    return jax.ShapeDtypeStruct(whole.shape[1:], whole.dtype, weak_type=whole.weak_type)


def type_text(leaf: Leaf) -> str:
    """A type as errors print it: ``float32[3,4]``."""
    shape, dtype = jnp.shape(leaf), getattr(leaf, "dtype", type(leaf).__name__)
    return f"{dtype}[{','.join(map(str, shape))}]"


def tree_text(tree: PyTree) -> str:
    """A tree of types as errors print it: ``{'h': float32[3]}``."""
    leaves, treedef = jax.tree.flatten(tree)
    if treedef == jax.tree.structure(0):
        return type_text(leaves[0])
    return str(jax.tree.unflatten(treedef, [_Bare(type_text(x)) for x in leaves]))


class _Bare(str):
    """Text that prints without quotes inside a tree."""

    def __repr__(self) -> str:
        return str(self)
