"""Types as JAX has them: rows and stacks of a type, the mesh axes it varies along.

Nothing here builds a type anew, because what is left out (a sharding, the manual axes
along which a value varies) is lost for the derivative.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import AbstractValue, Tracer

from jscan._base.types import Leaf


def is_traced(value: object) -> bool:
    """True for a value that is only known when the traced program runs."""
    return isinstance(value, Tracer)


def abstract_row(leaf: Leaf) -> Any:
    """The type of one row of an array with a leading time axis."""
    return row_aval(jax.typeof(leaf))


def row_aval(aval: Any) -> Any:
    """The type of one row of an array of type `aval`."""
    return _with_shape(aval, aval.shape[1:], aval.sharding.spec[1:])


def split_in_time(leaf: Leaf) -> bool:
    """Whether its type says that rows lie on different devices (axes are Explicit)."""
    return jax.typeof(leaf).sharding.spec[0] is not None


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
