"""How JAX stores a scan, in every supported version."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jax.extend.core import primitives

from jscan._jax.jaxprs import NotUnderstoodError, holds, open_jaxpr

_SCAN_PARAMETERS = {
    *("jaxpr", "length", "reverse", "unroll"),
    *("num_consts", "num_carry"),  # JAX 0.10
    *("ft_in", "ft_out"),  # JAX 0.12
}


@dataclass(frozen=True)
class ScanParameters:
    """A scan equation, read."""

    num_constants: int
    num_carry: int
    body: Any
    body_constants: list[Any]
    length: int
    reverse: bool
    unroll: int


def read_scan(equation: Any) -> ScanParameters:
    """Read the parameters of a scan equation of any supported JAX version."""
    parameters = equation.params
    unknown = set(parameters) - _SCAN_PARAMETERS
    if unknown:
        raise NotUnderstoodError(f"scan has unknown parameters {sorted(unknown)}")
    if "num_consts" in parameters:
        num_constants, num_carry = parameters["num_consts"], parameters["num_carry"]
    else:
        constants, carry, _ = parameters["ft_in"].unpack()
        num_constants, num_carry = len(constants), len(carry)
    return ScanParameters(
        num_constants,
        num_carry,
        *open_jaxpr(parameters["jaxpr"]),
        length=int(parameters["length"]),
        reverse=bool(parameters["reverse"]),
        unroll=int(parameters["unroll"]),
    )


def is_scan(equation: Any) -> bool:
    """Whether the equation is a `lax.scan`."""
    return equation.primitive is primitives.scan_p


def holds_loop(equation: Any) -> bool:
    """Whether an equation is a `lax.scan` or holds one."""
    return holds(equation, frozenset({"scan"}))


def has_loops(jaxpr: Any) -> bool:
    """Whether a program holds a `lax.scan` anywhere."""
    return any(map(holds_loop, jaxpr.eqns))
