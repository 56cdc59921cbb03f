"""Programs as JAX stores them: what is inside, of which types, and how to run one."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import ShapedArray, eval_jaxpr
from jax.extend import core
from jax.extend.core import primitives
from jax.sharding import NamedSharding, PartitionSpec

from jscan._base.types import Leaf
from jscan._jax.marks import is_plain

Var = core.Var
Literal = core.Literal
Jaxpr = core.Jaxpr
ClosedJaxpr = core.ClosedJaxpr  # pyright: ignore[reportPrivateImportUsage]
Atom: TypeAlias = Any  # Var | Literal; both classes are opaque to type checkers
Environment: TypeAlias = Mapping[Any, Any]


class NotUnderstoodError(NotImplementedError):
    """A program holds something the optimizer does not know; it stays as it is."""


def is_variable(atom: Atom) -> bool:
    """Whether an operand is a variable (else it is a literal)."""
    return not isinstance(atom, Literal)


def is_jaxpr(value: Any) -> bool:
    """Whether an equation's parameter is a program."""
    return isinstance(value, Jaxpr | ClosedJaxpr)


def open_jaxpr(jaxpr: Any) -> tuple[Any, list[Any]]:
    """The plain program inside a closed one, and the values of its constants."""
    # From JAX 0.12 on the two classes are one, and it always holds constants.
    if isinstance(jaxpr, ClosedJaxpr):
        return jaxpr.jaxpr, list(jaxpr.consts)
    return jaxpr, []


def run_jaxpr(closed_jaxpr: Any, *inputs: Leaf) -> list[Leaf]:
    """The results of a closed program; under a trace, in-line."""
    results = eval_jaxpr(*open_jaxpr(closed_jaxpr), *inputs)
    # A constant truth value comes as a Python bool, of which ``~`` is an integer.
    return [jax.numpy.asarray(x) if isinstance(x, bool) else x for x in results]


def avals_of(atoms: Iterable[Atom]) -> list[Any]:
    """Types of operands; JAX's tracing functions take them as arguments."""
    return [atom.aval for atom in atoms]


def trace(function: Callable[..., Any], avals: Sequence[Any]) -> Any:
    """A closed program of `function`, on the mesh its arguments lie on.

    A program is rewritten while it is lowered, where JAX has left the mesh (and the
    names of its manual axes) that it was traced under.
    """
    mesh = mesh_of(avals)
    if mesh is None:
        return jax.make_jaxpr(function)(*avals)
    kinds = zip(mesh.axis_names, mesh.axis_sizes, mesh.axis_types, strict=True)
    manual = jax.sharding.AxisType.Manual
    names = [(name, size) for name, size, kind in kinds if kind == manual]
    with jax.sharding.use_abstract_mesh(mesh):
        return jax.make_jaxpr(function, axis_env=names)(*avals)


def holds_wide(jaxpr: Any) -> bool:
    """Whether an open program computes with numbers of 64 bits."""
    return any(dtype in _WIDE for dtype in _dtypes(jaxpr))


def holds_complex(jaxpr: Any) -> bool:
    """Whether an open program computes with complex numbers."""
    return any(jnp.issubdtype(d, jnp.complexfloating) for d in _dtypes(jaxpr))


def _dtypes(jaxpr: Any) -> set[Any]:
    """Of everything that an open program reads or makes, programs inside included."""
    inner = (e for equation in jaxpr.eqns for e in every_equation(equation))
    made = (v for equation in inner for v in equation.outvars)
    found = {getattr(v.aval, "dtype", None) for v in (*jaxpr.invars, *made)}
    return found - {None}


_WIDE = frozenset(map(np.dtype, (np.int64, np.uint64, np.float64, np.complex128)))


def mesh_of(avals: Iterable[Any]) -> Any:
    """The mesh that values of these types lie on, or `None`."""
    for aval in avals:
        mesh = getattr(getattr(aval, "sharding", None), "mesh", None)
        if mesh is not None and not mesh.empty:
            return mesh
    return None


def variable_like(atom: Atom, shape: Sequence[int] | None = None) -> Any:
    """A new variable of the operand's type, of the same or another shape.

    It varies over the same manual axes of a mesh.
    """
    aval = atom.aval
    if shape is not None:
        placed = {}
        if mesh := mesh_of([aval]):
            placed["sharding"] = NamedSharding(
                mesh, PartitionSpec(*[None] * len(shape))
            )
            placed["manual_axis_type"] = aval.manual_axis_type
        aval = ShapedArray(tuple(shape), aval.dtype, **placed)
    return Var(aval)


def number_of_bytes(atom: Atom) -> int:
    """Bytes one value of the operand takes."""
    aval = atom.aval
    return aval.size * aval.dtype.itemsize if hasattr(aval, "shape") else 8


def sub_programs(equation: Any, *, plain: bool = False) -> Iterator[Any]:
    """The programs an equation holds: bodies, branches, functions.

    That of a plain region only if `plain`, for who looks and changes nothing.
    """
    if is_plain(equation) and not plain:
        return
    for value in equation.params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if is_jaxpr(item):
                yield item


def fills_with_zero(equation: Any) -> bool:
    """Whether the equation makes an array of zeros, or a zero of another type."""
    makers = primitives.broadcast_in_dim_p, primitives.convert_element_type_p
    return equation.primitive in makers and is_zero_literal(equation.invars[0])


def is_zero_literal(atom: Atom) -> bool:
    """Whether an operand is the number zero."""
    if is_variable(atom) or atom.aval.dtype == jax.dtypes.float0:
        return False
    return bool(atom.val == 0)


def every_equation(equation: Any, *, plain: bool = False) -> Iterator[Any]:
    """The equation and all equations of its `sub_programs`, and of theirs."""
    yield equation
    for inner in sub_programs(equation, plain=plain):
        for nested in open_jaxpr(inner)[0].eqns:
            yield from every_equation(nested, plain=plain)


def holds(equation: Any, names: frozenset[str]) -> bool:
    """Whether the equation, or a program inside it, uses one of the primitives."""
    return any(nested.primitive.name in names for nested in every_equation(equation))


def stack_bytes(atoms: list[Atom], length: int) -> int:
    """Bytes of the stacks `[length, ...]` of some operands."""
    return length * sum(map(number_of_bytes, atoms))
