"""Calls that stay calls: XLA would put the equations of a `jit` in their place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
from jax.core import eval_jaxpr
from jax.extend.core import primitives

from jscan._jax.equations import free_variables, program, unique_variables
from jscan._jax.jaxprs import NotUnderstoodError, avals_of, open_jaxpr, trace

try:
    from jax.experimental import xla_metadata
except ImportError:  # it is experimental
    xla_metadata = None


def call_of(
    equations: Sequence[Any], results: Sequence[Any], renamed: Sequence[Any]
) -> Any:
    """One equation that calls others for some results, by other names.

    Results that the equations do not make are handed through. `inlineable` is what XLA
    asks a call for before it opens it.
    """
    says = getattr(xla_metadata, "set_xla_metadata", None)
    if says is None:
        raise NotUnderstoodError("this version of JAX says nothing to XLA")
    made = {v for equation in equations for v in equation.outvars}
    given = [v for v in results if v not in made]
    inputs = unique_variables([*free_variables(equations), *given])
    inner = program(inputs, results, equations)

    def called(*values: Any) -> list[Any]:
        return eval_jaxpr(inner, [], *values)

    # It is traced before the attribute is set, or all it does would have it.
    (traced,) = _equations(jax.jit(called), inputs)

    def call(*values: Any) -> list[Any]:
        with says(inlineable="false"):
            return primitives.jit_p.bind(*values, **traced.params)

    (equation,) = _equations(call, inputs)
    return equation.replace(invars=inputs, outvars=list(renamed))


def _equations(function: Any, inputs: Sequence[Any]) -> list[Any]:
    return open_jaxpr(trace(function, avals_of(inputs)))[0].eqns
