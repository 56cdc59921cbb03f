"""Where the values of variables lie: on which devices, and how they are split there.

A value that the user, or a computation, has put somewhere is *committed* (JAX's word):
what follows it lies where it lay. Any other JAX may move where it is wanted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import (
    AxisType,
    Mesh,
    NamedSharding,
    PartitionSpec,
    Sharding,
    SingleDeviceSharding,
)

from jscan._base.errors import ScanValueError, warn
from jscan._base.types import Leaf, PyTree, is_numeric, type_text
from jscan._jax.types import is_traced

Placement = tuple[Sharding | None, ...]  # leaf by leaf; () if all of them are free


def placement_of(value: PyTree) -> Placement:
    """What the leaves of new values have to keep; None where JAX may decide.

    A lone device need not be kept, if the memory is its usual one: what is computed
    from its arrays lies there anyhow.
    """
    found = tuple([_kept(leaf) for leaf in jax.tree.leaves(value)])
    return found if any(where is not None for where in found) else ()


def _kept(leaf: Leaf) -> Sharding | None:
    where = own_sharding(leaf)
    if isinstance(where, SingleDeviceSharding):
        (device,) = where.device_set
        usual = device.default_memory().kind
        return None if where.memory_kind in (None, usual) else where
    return where


def own_sharding(leaf: Leaf) -> Sharding | None:
    """Where a known array was put; None for one that JAX may move, or of a trace."""
    if is_traced(leaf) or not isinstance(leaf, jax.Array) or not leaf.committed:
        return None
    return leaf.sharding


def mesh_among(shardings: Iterable[Any]) -> Mesh | None:
    """The mesh of the first sharding that has one; else the one that is set."""
    for where in shardings:
        if isinstance(where, NamedSharding) and isinstance(where.mesh, Mesh):
            return where.mesh
    ambient = jax.sharding.get_mesh()
    return None if ambient.empty else ambient  # type: ignore[return-value]


def on_mesh(value: PyTree, mesh: Mesh) -> PyTree:
    """The value, with what nobody has put anywhere whole on each device of a mesh."""
    whole = NamedSharding(mesh, PartitionSpec())

    def moved(leaf: Leaf) -> Leaf:
        if is_traced(leaf) or leaf.committed:
            return leaf
        return jax.device_put(jnp.array(leaf), whole)  # which may share the first part

    return jax.tree.map(moved, value)


def check_there(name: str, leaf: Leaf, wanted: Any) -> None:
    """Refuse an argument that was put elsewhere than the function wants it."""
    where = own_sharding(leaf)
    if where is None or not isinstance(wanted, Sharding):
        return
    if not where.is_equivalent_to(wanted, leaf.ndim):
        raise ScanValueError(
            name,
            needed=f"an array that lies as in_shardings say, {wanted}",
            came=f"one that was put elsewhere, {where}",
            fix="put it there by jax.device_put, or leave its in_shardings out",
        )


def check_together(named: Sequence[tuple[str, Leaf]]) -> None:
    """Refuse arrays that were put on different devices."""
    pairs = [(name, own_sharding(leaf)) for name, leaf in named]
    known = [(name, where.device_set) for name, where in pairs if where is not None]
    first, most = max(known, key=lambda pair: len(pair[1]), default=("", set()))
    for name, here in known:
        if here != most:
            raise ScanValueError(
                name,
                needed=f"a value on the devices of {first}, {_numbers(most)}",
                came=f"one that was put on {_numbers(here)}",
                fix="put all there: an array by jax.device_put, a shared variable by "
                "set_value(value, sharding=...)",
            )


def _numbers(devices: Iterable[Any]) -> str:
    numbers = sorted(device.id for device in devices)
    return ", ".join(map(str, numbers[:8])) + ", ..." * (len(numbers) > 8)


def laid_out(value: PyTree, sharding: PyTree, copy: bool) -> PyTree:
    """A value as it is stored, in the places that a tree of shardings says."""
    if sharding is None:
        return jax.tree.map(lambda leaf: strong(leaf, copy), value)
    leaves, tree = jax.tree.flatten(value)
    places = spread(sharding, value, "sharding")
    put_there = [
        leaf if where is None else _put(leaf, where, "sharding")
        for leaf, where in zip(leaves, places, strict=True)
    ]
    return tree.unflatten([strong(leaf, copy) for leaf in put_there])


def like(leaf: Any, before: Leaf, place: str) -> Any:
    """A new leaf in the place of the one before, if that was put somewhere."""
    where = own_sharding(before)
    if where is None or is_traced(leaf) or not is_numeric(leaf):
        return leaf
    if np.ndim(leaf) != before.ndim or getattr(leaf, "sharding", None) == where:
        return leaf
    return _put(leaf, where, place)


def strong(leaf: Any, copy: bool = True) -> jax.Array:
    """An array of the leaf's own dtype: stored numbers do not stay weakly typed."""
    array = jnp.array(leaf) if copy else jnp.asarray(leaf)
    if jax.typeof(array).weak_type:
        return jax.lax.convert_element_type(array, array.dtype)
    return array


def _put(leaf: Any, where: Any, place: str) -> jax.Array:
    """The array as it lies elsewhere; refuses a sharding that does not fit it."""
    try:
        return jax.device_put(leaf, where)
    except (ValueError, TypeError) as error:
        raise unfit(place, leaf, where, error) from error


def unfit(
    place: str, leaf: Any, where: Any, error: Exception, owner: str | None = None
) -> ScanValueError:
    """The error of a value that cannot be split as it should be."""
    spec = getattr(where, "spec", where)
    return ScanValueError(
        place,
        needed=f"a value that can be laid out as {spec}",
        came=f"{type_text(leaf)} ({str(error).splitlines()[-1]:.300})",
        fix="pass another sharding, as in set_value(value, sharding=...), or pad the "
        "axes that are split",
        owner=owner,
    )


def spread(sharding: PyTree, value: PyTree, place: str) -> list[Any]:
    """Shardings of all leaves of `value`, from a tree of them that may be shorter."""
    is_whole = lambda x: x is None or isinstance(x, Sharding | PartitionSpec)
    try:
        full = jax.tree.broadcast(sharding, value, is_leaf=is_whole)
    except ValueError as error:
        raise ScanValueError(
            place,
            needed=f"one sharding, or a tree of them as in {jax.tree.structure(value)}",
            came=f"{jax.tree.structure(sharding, is_leaf=is_whole)}",
            fix="pass one jax.sharding.NamedSharding for all leaves",
        ) from error
    return jax.tree.leaves(full, is_leaf=is_whole)


def check_readable(leaf: Leaf, label: str) -> None:
    """Refuse an array of which this process has parts only; keys are never read."""
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.extended)
    if not (leaf.is_fully_addressable or leaf.is_fully_replicated or is_key):
        raise ScanValueError(
            "its value",
            needed="one that this process can read",
            came=f"parts of it, on the devices of {jax.process_count()} processes",
            fix=f"call {label}.get_value(gather=True) in every process, or give "
            f"{label}.value to a library for checkpoints",
        )


def on_host(leaf: Leaf, copy: bool, label: str, gather: bool = False) -> Any:
    """A NumPy array, where the leaf has such a form (random keys do not)."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.extended):
        return leaf
    if not gather:
        check_readable(leaf, label)
    elif not (leaf.is_fully_addressable or leaf.is_fully_replicated):
        leaf = jax.device_put(leaf, NamedSharding(leaf.sharding.mesh, PartitionSpec()))
    return np.array(leaf) if copy else np.asarray(leaf)


def places_of(value: PyTree) -> list[Any]:
    """Where the leaves lie, in plain words that pickle; None for free ones."""
    return [_description(own_sharding(leaf)) for leaf in jax.tree.leaves(value)]


def _description(where: Sharding | None) -> Any:
    if isinstance(where, SingleDeviceSharding):
        (device,) = where.device_set
        return {"device": device.id}
    if isinstance(where, NamedSharding) and isinstance(where.mesh, Mesh):
        return {
            "spec": tuple(where.spec),
            "axes": where.mesh.axis_names,
            "types": [kind.name for kind in where.mesh.axis_types],
            "devices": np.vectorize(lambda device: device.id)(where.mesh.devices),
        }
    return None if where is None else {}


def put_back(
    value: PyTree, places: list[Any] | None, subject: str, label: str
) -> PyTree:
    """A value where `places_of` found it; warns if its devices are not here."""
    leaves, tree = jax.tree.flatten(value)
    places = places or [None] * len(leaves)
    found = [None if place is None else _found_again(place) for place in places]
    if found.count(None) > places.count(None):
        warn(
            f"{subject}: the devices it lay on when it was pickled are not here, so it "
            f"is on one device. Fix: place it, by set_value({label}.value, "
            "sharding=...)."
        )
    where = tree.unflatten(found) if any(found) else None
    return laid_out(value, where, copy=True)


def _found_again(description: Any) -> Sharding | None:
    """The sharding that was described, where this process has its devices."""
    here = {device.id: device for device in jax.devices()}
    ids = description.get("devices", description.get("device", -1))
    if not set(np.ravel(ids)) <= here.keys():
        return None
    if "device" in description:
        return SingleDeviceSharding(here[ids])
    devices = np.vectorize(here.get, otypes=[object])(ids)
    types = tuple(AxisType[name] for name in description["types"])
    mesh = Mesh(devices, description["axes"], axis_types=types)
    return NamedSharding(mesh, PartitionSpec(*description["spec"]))
