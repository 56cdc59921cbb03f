"""save_memory, across a derivative: what a loop stores for its backward loop.

For a gate ``s`` JAX stores both ``s`` and its derivative ``s * (1 - s)``, a row each.
The second is two multiplications away from the first, which costs less than writing a
row in one loop and reading it in another. Of ``rate * g`` where both move it stores
both, though one of them may be made of what the step reads anyway. Which rows the
backward loop reads is settled where JAX splits a loop, before the optimizer sees it, so
the step says it in JAX's own words: a `jax.checkpoint` whose policy stores everything
but cheap arithmetic.

Where no derivative is taken, such a step is what it was.
"""

from typing import Any

import jax

from jscan._jax.equations import with_body
from jscan._jax.jaxprs import holds, holds_complex, open_jaxpr, variable_like
from jscan._jax.names import primitives
from jscan._jax.scans import has_loops, is_scan, read_scan
from jscan._optimizer.analysis.derivative_rows import derivative_rows
from jscan._optimizer.costs.stored import gains_by_work
from jscan._optimizer.record.inlining import is_plain_call, stores_all_but_cheap

_GATES = frozenset({"logistic", "tanh"})
"""What JAX stores the derivative of, beside the value it is made of."""


def run(closed_jaxpr: Any) -> Any:
    """The program with steps that store less for a derivative, if one is taken."""
    opened, _ = open_jaxpr(closed_jaxpr)
    if not has_loops(opened):
        return closed_jaxpr
    equations = [_equation(equation) for equation in opened.eqns]
    if all(new is old for new, old in zip(equations, opened.eqns, strict=True)):
        return closed_jaxpr
    return with_body(closed_jaxpr, equations, opened.outvars)


def _equation(equation: Any) -> Any:
    if not (is_scan(equation) or is_plain_call(equation)):
        return equation
    body = equation.params["jaxpr"]
    new = run(body)
    if is_scan(equation) and new is body and _stores_less(equation):
        new = _checkpointed(body)
    if new is body:
        return equation
    return equation.replace(params={**equation.params, "jaxpr": new})


def _stores_less(scan: Any) -> bool:
    """Whether a step has rows that pay, and nothing that may not be run again."""
    body, _ = open_jaxpr(scan.params["jaxpr"])
    if any(e.effects or e.primitive is primitives.remat_p for e in body.eqns):
        return False
    if holds_complex(body):
        return False  # `jax.checkpoint` of JAX to 0.12 cannot store complex numbers
    if any(holds(equation, _GATES) for equation in body.eqns):
        return True
    loop = read_scan(scan)
    # Without a state all steps are mostly done at once, where a row is read once more.
    rows = derivative_rows(loop) if loop.num_carry else None
    return rows is not None and gains_by_work(rows.stored, rows.fewer, rows.again)


def _checkpointed(body: Any) -> Any:
    opened, constants = open_jaxpr(body)
    if constants:
        return body
    # Written, not traced: of a program with many loops that takes half as long.
    step = _STEP.replace(
        invars=list(map(variable_like, opened.invars)),
        outvars=list(map(variable_like, opened.outvars)),
        params={**_STEP.params, "jaxpr": opened},
    )
    return with_body(body, [step], step.outvars, step.invars)


def _some_step() -> Any:
    """A checkpointed step, as JAX writes it down."""
    keep, tanh = stores_all_but_cheap, jax.numpy.tanh
    step = jax.checkpoint(tanh, policy=keep, prevent_cse=False)
    return open_jaxpr(jax.make_jaxpr(step)(0.0))[0].eqns[0]


_STEP = _some_step()
