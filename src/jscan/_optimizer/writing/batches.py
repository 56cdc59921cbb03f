"""Run equations of a step for all steps at once."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jscan._jax.equations import evaluate, free_variables, needed, unique_variables
from jscan._jax.jaxprs import Atom, open_jaxpr
from jscan._optimizer.analysis.index import holds_loop
from jscan._optimizer.record.context import Context
from jscan._optimizer.record.loop import unknown


def batched(
    equations: Sequence[Any],
    outputs: Sequence[Atom],
    constants: Mapping[Any, Any],
    rows: Mapping[Any, Any],
    length: int,
    context: Context,
    chunk: int | None = None,
) -> list[Any]:
    """Values `[length, ...]` of the outputs.

    Args:
        equations: Equations of a step, all of them batchable.
        outputs: The operands to compute.
        constants: Values of variables that are the same at each step.
        rows: Values `[length, ...]` of variables that change.
        length: Number of steps.
        context: Used to optimize loops inside the equations.
        chunk: If given, batch so many steps at a time, to bound memory.
    """
    equations = unknown(equations, constants.keys() | rows.keys())
    equations = needed(equations, outputs)
    outside = unique_variables([*free_variables(equations), *outputs])
    changing = [v for v in outside if v in rows]
    fixed = {v: constants[v] for v in outside if v in constants}

    def step(*values: Any) -> list[Any]:
        here = {**fixed, **dict(zip(changing, values, strict=True))}
        return evaluate(equations, here, outputs)

    if not changing:
        return [repeated(value, length) for value in step()]
    operands = [rows[v] for v in changing]
    function = jax.vmap(step) if chunk is None else _in_chunks(step, length, chunk)
    if context.run is None or not any(map(holds_loop, equations)):
        return function(*operands)
    # The batched program has loops of its own: let the optimizer see them.
    traced = jax.make_jaxpr(function)(*operands)
    return context.run(*open_jaxpr(traced), operands)


def repeated(value: Any, length: int) -> Any:
    """Rows `[length, ...]` of one value."""
    return jnp.broadcast_to(value, (length, *jnp.shape(value)))


def _in_chunks(step: Any, length: int, chunk: int) -> Any:
    whole, rest = divmod(length, chunk)

    def function(*operands: Any) -> list[Any]:
        split = whole * chunk
        blocks = [x[:split].reshape(whole, chunk, *x.shape[1:]) for x in operands]
        _, results = jax.lax.scan(
            lambda _, block: ((), jax.vmap(step)(*block)), (), blocks
        )
        results = [y.reshape(split, *y.shape[2:]) for y in results]
        if not rest:
            return results
        tail = jax.vmap(step)(*[x[split:] for x in operands])
        return [jnp.concatenate(pair) for pair in zip(results, tail, strict=True)]

    return function
