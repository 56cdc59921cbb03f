"""Type aliases and the small facts about array types; nothing here runs a loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import AbstractValue, Tracer

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


def converts(value: object) -> bool:
    """True for a foreign object that JAX takes for an array; a traced Ref is none."""
    return hasattr(value, "__jax_array__") and not isinstance(value, jax.Ref)


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


def is_nothing(value: object) -> bool:
    """True for what is no value at all: None, or a list of nothing else.

    Other trees without arrays, such as `optax.EmptyState`, are values like any other.
    """
    return value is None or (isinstance(value, list) and all(map(is_nothing, value)))


def abstract(leaf: Leaf) -> Any:
    """The type of an array: shape, dtype, weakness, placement on a mesh.

    JAX's tracing functions take it in the place of an array. Nothing here builds a
    type anew, because what is left out (a sharding, the manual axes along which a
    value varies) is lost for the derivative.
    """
    return jax.typeof(leaf)


def abstract_row(leaf: Leaf) -> Any:
    """The type of one row of an array with a leading time axis."""
    return row_aval(jax.typeof(leaf))


def row_aval(aval: Any) -> Any:
    """The type of one row of an array of type `aval`."""
    return _with_shape(aval, aval.shape[1:], aval.sharding.spec[1:])


def stacked_aval(aval: Any, length: int) -> Any:
    """The type of `length` rows of type `aval`."""
    spec = (None, *aval.sharding.spec)
    return _with_shape(aval, (length, *aval.shape), spec)


def _with_shape(aval: Any, shape: tuple[int, ...], spec: Sequence[Any]) -> Any:
    place = jax.sharding.PartitionSpec(*spec)
    sharding = jax.sharding.NamedSharding(aval.sharding.mesh, place)
    return aval.update(shape=shape, sharding=sharding)


def axes_of(value: Any) -> frozenset[Any]:
    """The manual mesh axes (of `jax.shard_map`) a value, or a type, varies along."""
    aval = value if isinstance(value, AbstractValue) else jax.typeof(value)
    return getattr(getattr(aval, "manual_axis_type", None), "varying", frozenset())


def varying(leaf: Leaf, axes: frozenset[Any]) -> Leaf:
    """The value, with a type that says it may vary along these manual axes, too."""
    more = axes - axes_of(leaf)
    return jax.lax.pcast(leaf, tuple(more), to="varying") if more else leaf


def zeros(aval: Any, axes: frozenset[Any] = frozenset()) -> Leaf:
    """Zeros of a type; they vary along `axes` as well."""
    make = jnp.zeros
    if jnp.issubdtype(aval.dtype, jax.dtypes.extended):
        make = jax.lax.empty  # such types have no zero
    mesh = aval.sharding.mesh
    if any(kind == jax.sharding.AxisType.Explicit for kind in mesh.axis_types):
        with jax.sharding.use_abstract_mesh(mesh):
            made = make(aval.shape, aval.dtype, out_sharding=aval.sharding)
    else:
        made = make(aval.shape, aval.dtype)
    return varying(made, axes_of(aval) | axes)


def type_text(leaf: Leaf) -> str:
    """A type as errors print it: ``float32[3,4]``."""
    if isinstance(leaf, jax.Ref):
        return str(jax.typeof(leaf))
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
