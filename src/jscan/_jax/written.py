"""Steps that are written down already, for `lax.scan`, which wants to trace its step.

Tracing a step anew takes as long as it is. What JAX traces here is one equation that
holds the whole step, a `jax.checkpoint` that stores all; `expanded` then puts the step
in its place. Where that is not done the equation is lowered to the same.
"""

import operator
from collections.abc import Iterable, Sequence
from typing import Any

import jax
from jax.core import eval_jaxpr
from jax.extend.core import primitives

from jscan._jax.equations import reading, unique_variables, with_body
from jscan._jax.jaxprs import Atom, is_variable, open_jaxpr
from jscan._jax.scans import is_scan


def run_written(jaxpr: Any, operands: Sequence[Any]) -> list[Any]:
    """The results of an open program; in a trace it is noted down as it is, if it can.

    On a mesh it is traced: there types say more than what equations are written with.
    """
    if jaxpr.effects or not jax.sharding.get_abstract_mesh().empty:
        return eval_jaxpr(jaxpr, [], *operands)
    # What a step only hands on is seen to be handed on: JAX looks for that.
    values = dict(zip(jaxpr.invars, operands, strict=True))
    made = [v for v in unique_variables(jaxpr.outvars) if v not in values]
    if made:
        held = {**_PARAMETERS, "jaxpr": jaxpr.replace(outvars=made)}
        results = primitives.remat_p.bind(*operands, **held)
        values.update(zip(made, results, strict=True))
    return [values[a] if is_variable(a) else a.val for a in jaxpr.outvars]


def expanded(equations: Iterable[Any]) -> list[Any]:
    """The equations, with loops whose steps are held by one equation written out."""
    return [_with_step(e) if is_scan(e) else e for e in equations]


def _with_step(loop: Any) -> Any:
    body = loop.params["jaxpr"]
    new = _written_out(body)
    return loop if new is body else loop.replace(params={**loop.params, "jaxpr": new})


def _written_out(body: Any) -> Any:
    opened, _ = open_jaxpr(body)
    names: dict[Any, Atom] = {}

    def current(atom: Atom) -> Atom:
        return names.get(atom, atom) if is_variable(atom) else atom

    equations: list[Any] = []
    for equation in expanded(opened.eqns):
        if not _is_held(equation):
            equations.append(reading(equation, names))
            continue
        step = equation.params["jaxpr"]
        operands = [*map(current, equation.invars)]
        names.update(zip(step.invars, operands, strict=True))
        for inner in step.eqns:
            inner = reading(inner, names)
            if _hands_on(inner):
                names[inner.outvars[0]] = inner.invars[0]
            else:
                equations.append(inner)
        names.update(zip(equation.outvars, map(current, step.outvars), strict=True))
    if not names and all(map(operator.is_, equations, opened.eqns)):
        return body
    return with_body(body, equations, list(map(current, opened.outvars)))


def _is_held(equation: Any) -> bool:
    is_remat = equation.primitive is primitives.remat_p
    return is_remat and equation.params["policy"] is _stores_all


def _hands_on(equation: Any) -> bool:
    """A spreading to the shape that is there already, which tracing leaves out."""
    if equation.primitive is not primitives.broadcast_in_dim_p:
        return False
    (operand, *_), params = equation.invars, equation.params
    return operand.aval.shape == params["shape"] and params["sharding"] is None


def _stores_all(*_: Any, **__: Any) -> bool:
    """A policy of `jax.checkpoint`, by which a step is known that is held."""
    return True


def _parameters() -> dict[str, Any]:
    """Those of an equation that holds a program, as JAX writes it down."""
    held = jax.checkpoint(lambda x: x, policy=_stores_all, prevent_cse=False)
    (equation,) = open_jaxpr(jax.make_jaxpr(held)(0.0))[0].eqns
    return equation.params


_PARAMETERS = _parameters()
