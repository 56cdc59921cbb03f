"""On how many devices a program runs, and what is known about who holds what.

On a mesh with Auto axes the compiler decides how arrays are split, after all
rewriting; a rewrite then has to be right for every split (`Context.is_split`). Under
`jax.shard_map` all axes are Manual: a program is of one device, and any rewrite will
do.
"""

import itertools
import math
from typing import Any

import jax
from jax.sharding import AxisType, PartitionSpec

from jscan._jax.jaxprs import every_equation, mesh_of


def is_split(context: Any) -> bool:
    """Whether the compiler splits a program; `context` is that of its module."""
    where = context.axis_context
    if hasattr(where, "num_devices"):
        return where.num_devices > 1
    sizes = where.mesh.shape.items()
    return any(size > 1 for name, size in sizes if name not in where.manual_axes)


def is_split_here() -> bool:
    """The same of what is traced here, where `jax.shard_map` may own all axes."""
    return devices_here() > 1


def devices_here() -> int:
    """Over how many devices at most the compiler splits an array of this trace."""
    mesh = jax.sharding.get_abstract_mesh()
    kinds = zip(mesh.axis_sizes, mesh.axis_types, strict=True)
    return math.prod(size for size, kind in kinds if kind != AxisType.Manual)


def is_split_when_compiled(compiled: Any) -> bool:
    """The same of a compiled program, which tells where its arrays lie."""
    places = jax.tree.leaves((compiled.input_shardings, compiled.output_shardings))
    return any(len(place.device_set) > 1 for place in places)


def whole_in_time(rows: Any) -> Any:
    """Rows `[T, ...]` of a loop, of which each device has all steps.

    A loop reads them one by one, so that the compiler gathers rows that are split in
    time. Not so what is computed of all of them at once: it would be gathered instead,
    and may be larger.
    """
    free = [PartitionSpec.UNCONSTRAINED] * (rows.ndim - 1)
    return jax.lax.with_sharding_constraint(rows, PartitionSpec(None, *free))


def known_mesh(jaxpr: Any) -> Any:
    """The mesh that a program was traced on, or `None`."""
    mesh = mesh_of(variable.aval for variable in jaxpr.invars)
    ambient = jax.sharding.get_abstract_mesh()
    return ambient if mesh is None and not ambient.empty else mesh


def explicit_axes(jaxpr: Any) -> list[str]:
    """Names of mesh axes with the type Explicit on which the program has arrays."""
    inner = itertools.chain.from_iterable(map(every_equation, jaxpr.eqns))
    variables = [*jaxpr.invars, *(v for equation in inner for v in equation.outvars)]
    names: dict[str, None] = {}
    for variable in variables:
        mesh = mesh_of([variable.aval])
        if mesh is not None:
            kinds = zip(mesh.axis_names, mesh.axis_types, strict=True)
            explicit = (name for name, kind in kinds if kind == AxisType.Explicit)
            names.update(dict.fromkeys(map(str, explicit)))
    return list(names)
