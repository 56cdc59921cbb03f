"""Evaluate a traced program so that its loops are rewritten after differentiation.

The loops and what reads them are bound as one primitive (`_primitive.loop_p`). JAX
differentiates and batches it, and the optimizer sees what came of it, forward and
backward, when it is lowered.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
from jax.core import eval_jaxpr

from ._primitive import run_program
from ._program import Program, as_structs, open_jaxpr
from ._types import Leaf, is_traced
from .optimize import Options, enabled, has_loops, is_explicitly_sharded, rewrite, split


def evaluate_rewritten(
    closed_jaxpr: Any, inputs: Sequence[Leaf], options: Options | None
) -> list[Leaf]:
    """The results of a traced program, whose loops get rewritten.

    Args:
        closed_jaxpr: The program.
        inputs: Its inputs, arrays all.
        options: How its loops are rewritten; `None` or no passes: not here.

    A program with effects (callbacks, collectives) is rewritten in place, where JAX
    orders and counts them itself: a derivative taken later is that of the rewritten
    program.
    """
    body, constants = open_jaxpr(closed_jaxpr), closed_jaxpr.consts
    if options is None or not (options.passes and enabled() and has_loops(body)):
        return eval_jaxpr(body, constants, *inputs)
    if body.effects or is_explicitly_sharded(body):
        platform = jax.default_backend()
        new = rewrite(closed_jaxpr, platform=platform, options=options, stage="whole")
        return eval_jaxpr(open_jaxpr(new), new.consts, *inputs)
    if not any(map(is_traced, (*constants, *inputs))):
        program, captured = Program.close(closed_jaxpr)
        return run_program(program, [*captured, *inputs], options)
    return _around_loops(body, constants, inputs, options)


def _around_loops(
    body: Any, constants: Sequence[Leaf], inputs: Sequence[Leaf], options: Options
) -> list[Leaf]:
    """The loops as one primitive; what stands before and behind them as it is.

    The derivative of what is bound is traced by us, at a cost that grows with its
    size, so that only as much as the optimizer needs to see is bound.
    """
    values: dict[Any, Leaf] = dict(zip(body.constvars, constants, strict=True))
    values.update(zip(body.invars, inputs, strict=True))
    parts = split(body)
    for part in (parts.before, parts.core, parts.after):
        operands = [values[variable] for variable in part.invars]
        if part is parts.core:
            types = as_structs([variable.aval for variable in part.invars])
            program = Program.trace(functools.partial(eval_jaxpr, part, ()), *types)
            results = run_program(program, operands, options)
        else:
            results = eval_jaxpr(part, (), *operands)
        values.update(zip(part.outvars, results, strict=True))
    return [
        atom.val if hasattr(atom, "val") else values[atom] for atom in parts.results
    ]
