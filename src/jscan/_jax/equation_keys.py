"""Which equations compute the same."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import jax
import numpy as np

from jscan._jax.jaxprs import Atom, Literal, is_jaxpr, is_variable, open_jaxpr


def equation_key(equation: Any, operand: Callable[[Atom], Hashable]) -> Hashable:
    """Equal for equations that compute the same; `operand` gives keys of operands."""
    context = equation.ctx
    surroundings = (
        getattr(context, "compute_type", None),
        getattr(context, "threefry_partitionable", None),
        getattr(context, "xla_metadata", None),
    )
    return (
        equation.primitive,
        _parameter_key(equation.params),
        tuple(map(operand, equation.invars)),
        tuple(v.aval for v in equation.outvars),
        _parameter_key(surroundings),
    )


def value_key(value: Any) -> Hashable:
    """Equal for one array, or for equal numbers; `value` may be an operand."""
    value = value.val if isinstance(value, Literal) else value
    if isinstance(value, jax.Array) or not hasattr(value, "__array__"):
        return _parameter_key(value)
    array = np.asarray(value)
    if array.ndim:
        return ("object", id(value))
    return ("number", str(array.dtype), array.tobytes())


def _parameter_key(value: Any) -> Hashable:
    if is_jaxpr(value):
        return _program_key(value)
    if isinstance(value, tuple | list):
        return (type(value), *map(_parameter_key, value))
    if isinstance(value, dict):
        return (dict, *((k, _parameter_key(v)) for k, v in value.items()))
    if isinstance(value, bool | int | float | complex):
        return (type(value), repr(value))  # 0.0 == -0.0, and nan != nan
    if isinstance(value, jax.Array) or hasattr(value, "__array__"):
        return ("object", id(value))
    try:
        hash(value)
    except TypeError:
        return ("object", id(value))
    return (type(value), value)


def _program_key(jaxpr: Any) -> Hashable:
    opened, constants = open_jaxpr(jaxpr)
    numbers: dict[Any, int] = {}

    def operand(atom: Atom) -> Hashable:
        if not is_variable(atom):
            return (value_key(atom), atom.aval)
        return numbers.setdefault(atom, len(numbers))

    inputs = [*opened.constvars, *opened.invars]
    key: list[Hashable] = [tuple((operand(v), v.aval) for v in inputs)]
    for equation in opened.eqns:
        key.append(equation_key(equation, operand))
        key.append(tuple(map(operand, equation.outvars)))
    key.append(tuple(map(operand, opened.outvars)))
    return (*key, *(id(constant) for constant in constants))
