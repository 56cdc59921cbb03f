"""Run equations of a step for all steps at once."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jscan._jax.equations import evaluate, free_variables, needed, unique_variables
from jscan._jax.jaxprs import Atom, open_jaxpr
from jscan._jax.scans import holds_loop
from jscan._optimizer.record.context import Context
from jscan._optimizer.record.loop import Loop, unknown
from jscan._optimizer.writing.extremes import keeping_nan


def batched(
    loop: Loop,
    equations: Sequence[Any],
    outputs: Sequence[Atom],
    context: Context,
    rows: Mapping[Any, Any] | None = None,
    chunk: int | None = None,
) -> list[Any]:
    """Values `[length, ...]` of the outputs of a step, all of it batchable.

    What changes is in the sequences, or in the `rows` that are known once the loop has
    run. With a `chunk`, so many steps are done at a time, to bound memory.
    """
    constants, rows = loop.constants, loop.sequences if rows is None else rows
    equations = unknown(equations, constants.keys() | rows.keys())
    equations = needed(equations, outputs)
    if context.platform == "cpu":
        equations = keeping_nan(equations, outputs, context.is_split)
    outside = unique_variables([*free_variables(equations), *outputs])
    changing = [v for v in outside if v in rows]
    fixed = {v: constants[v] for v in outside if v in constants}

    def step(*values: Any) -> list[Any]:
        here = {**fixed, **dict(zip(changing, values, strict=True))}
        return evaluate(equations, here, outputs)

    if not changing:
        return [repeated(value, loop.length) for value in step()]
    operands = [rows[v] for v in changing]

    def function(*operands: Any) -> list[Any]:
        if chunk is None:
            return jax.vmap(step)(*operands)
        return jax.lax.map(lambda row: step(*row), operands, batch_size=chunk)

    if context.run is None or not any(map(holds_loop, equations)):
        return function(*operands)
    # The batched program has loops of its own: let the optimizer see them.
    traced = jax.make_jaxpr(function)(*operands)
    return context.run(*open_jaxpr(traced), operands)


def repeated(value: Any, length: int) -> Any:
    """Rows `[length, ...]` of one value."""
    return jnp.broadcast_to(value, (length, *jnp.shape(value)))
