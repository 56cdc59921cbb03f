"""Loops as a program of their own, and why some cannot be run alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jscan._jax.equations import free_variables, needed, program
from jscan._jax.here import backend_of
from jscan._jax.jaxprs import every_equation, is_variable, mesh_of, number_of_bytes
from jscan._jax.names import ClosedJaxpr, ShapedArray
from jscan._jax.operations import MOVES_DATA, REDUCTIONS, is_elementwise
from jscan._optimizer.analysis.dependence import is_collective
from jscan._optimizer.analysis.index import Flat, holds_loop
from jscan._optimizer.costs.flops import flops

LARGEST = 2**30
"""Bytes of what goes in and out of a loop that is measured."""

# What runs other people's code, or takes as long as the values say.
_UNKNOWN = {
    "while": "how many steps a loop inside takes depends on values",
    "cond": "which branch a step takes depends on values",
    "ffi_call": "a step calls foreign code",
}
_DEVICES = "it runs on several devices"


@dataclass(frozen=True)
class Alone:
    """Loops that run as one, and what is computed of their results alone.

    The rules look at it: who wants the last row only gets no others. What is computed
    of nothing (zeros, counters) is in it as well.
    """

    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]
    equations: tuple[Any, ...]

    @property
    def program(self) -> Any:
        """It as a closed program."""
        return ClosedJaxpr(program(self.inputs, self.outputs, self.equations), ())


def alone(flat: Flat, group: Sequence[Any]) -> Alone:
    """Cut loops out of the program they stand in."""
    constant: set[Any] = set()
    made = {v for equation in group for v in equation.outvars}
    before, behind = [], []
    loops = {*map(id, group)}
    for equation in flat.equations:
        read = set(filter(is_variable, equation.invars))
        if id(equation) in loops or equation.effects or holds_loop(equation):
            continue
        if read <= constant:
            before.append(equation)
            constant.update(equation.outvars)
        elif read <= constant | made and read & made and _is_light(equation):
            behind.append(equation)
            made.update(equation.outvars)
    inside = {*loops, *map(id, behind)}

    def leaves(variable: Any) -> bool:
        readers = flat.readers.get(variable, ())
        return readers is None or any(id(e) not in inside for e in readers)

    outputs = [v for e in (*group, *behind) for v in e.outvars if leaves(v)]
    equations = needed([*before, *group, *behind], outputs)
    return Alone(tuple(free_variables(equations)), tuple(outputs), tuple(equations))


def _is_light(equation: Any) -> bool:
    name = equation.primitive.name
    return is_elementwise(equation) or name in MOVES_DATA or name in REDUCTIONS


def refusal(part: Alone, platform: str, *, is_split: bool) -> str | None:
    """Why a loop is not run alone, on other values of the same types; or `None`."""
    if jax.process_count() > 1:
        return "several processes run the program, and have to run the same"
    if backend_of(platform) != backend_of():
        return f"it is compiled for {platform}, and programs run elsewhere here"
    if all(e.params.get("length", 0) < 2 for e in part.equations):
        return "a loop of one step is left alone"
    types = [v.aval for v in (*part.inputs, *part.outputs)]
    ambient = jax.sharding.get_abstract_mesh()
    if is_split or mesh_of(types) is not None or not ambient.empty:
        return _DEVICES
    if not all(map(_can_be_made_up, types)):
        return "it reads or writes what is no array of numbers or keys"
    inside = [e for equation in part.equations for e in every_equation(equation)]
    if reason := next(_obstacles(inside), None):
        return reason
    held = [v for e in part.equations for v in e.outvars]
    size = sum(map(number_of_bytes, [*part.inputs, *held]))
    if size > LARGEST:
        return f"its arrays take {size} bytes, measured are up to {LARGEST}"
    return None


def _can_be_made_up(aval: Any) -> bool:
    if not isinstance(aval, ShapedArray) or aval.dtype == jax.dtypes.float0:
        return False
    extended = jnp.issubdtype(aval.dtype, jax.dtypes.extended)
    return not extended or jnp.issubdtype(aval.dtype, jax.dtypes.prng_key)


def _obstacles(equations: Sequence[Any]) -> Iterator[str]:
    for equation in equations:
        name = equation.primitive.name
        if name in _UNKNOWN:
            yield _UNKNOWN[name]
        if "callback" in name or "custom_call" in name:
            yield f"a step calls what is outside of the program ({name})"
        if equation.effects:
            yield "an effect would happen again"
        if name == "shard_map" or is_collective(equation):
            yield _DEVICES


def least_seconds(part: Alone) -> float:
    """A time that a run of it takes at least, about."""
    steps = sum(e.params["length"] for e in part.equations if "length" in e.params)
    return 1e-8 * steps + 2e-11 * flops(part.equations)
