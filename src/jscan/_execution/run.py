"""Run the loop, in the way its plan asks for.

`run_loop` gets a plan and flat inputs and returns flat results. The loop is run as a
region (`_programs/regions.py`): JAX differentiates and batches it, and the optimizer
rewrites it when it is lowered, which needs nothing from the stages before.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jscan._base.types import Leaf
from jscan._execution.body import Body, Carry, body_of, flip
from jscan._execution.plan import LoopPlan
from jscan._execution.truncation import bounded_truncated, scan_truncated
from jscan._loops.chunks import (
    Level,
    bounded_chunks,
    in_chunks,
    scan_chunk_ends,
    scan_chunks,
)
from jscan._programs.regions import run_region, usual_options


def run_loop(plan: LoopPlan, inputs: Sequence[Leaf]) -> list[Leaf]:
    """Run the loop of `plan`.

    Returns:
        Leaf by leaf: the stacked rows ``[T, ...]`` of every output (the last row only
        where the plan says so), then the final values of the updated variables. A loop
        whose number of steps is not known before adds the last executed rows, unless
        they are its only ones, and the number of steps that ran.
    """
    options = usual_options(plan.options.mode == "FAST_RUN")
    return run_region(PlannedLoop(plan), inputs, options)


@dataclass(frozen=True)
class PlannedLoop:
    """The loop of a plan as a function of its flat inputs."""

    plan: LoopPlan

    @property
    def run_key(self) -> Hashable:
        """Equal for loops that compute the same, whatever rules their steps bring."""
        return dataclasses.replace(self.plan, step=self.plan.step.run_key)

    def __call__(self, *inputs: Leaf) -> list[Leaf]:
        """The results that `run_loop` returns."""
        name = self.plan.options.name
        with jax.named_scope(name) if name else contextlib.nullcontext():
            body = body_of(self.plan, inputs)
            if self.plan.is_bounded:
                return _bounded(body, inputs)
            carry, rows = _counted(body, inputs)
            return [*jax.tree.leaves(rows), *jax.tree.leaves(carry.shared)]


def _counted(body: Body, inputs: Sequence[Leaf]) -> tuple[Carry, Any]:
    """A loop of known length: its rows, or the last one of each output."""
    plan = body.plan
    if plan.options.row_every is not None:
        return scan_chunk_ends(
            body.step,
            lambda carry: body.last_rows(carry, ()),
            body.first_carry(),
            body.slices_in_order(),
            length=plan.n_steps,
            size=plan.options.row_every,
        )
    if plan.kept_steps is not None:
        carry, rows = scan_truncated(plan, inputs, plan.kept_steps)
    elif plan.levels:
        carry, rows = scan_chunks(
            body.step,
            body.first_carry(),
            body.slices_in_order(),
            length=plan.n_steps,
            levels=plan.levels,
            unroll=plan.options.unroll or 1,
        )
    elif plan.carry.block:
        carry, rows = _scan_in_blocks(body, plan.carry.block)
    else:
        carry, rows = _scan(body)
    return carry, body.last_rows(carry, rows) if plan.options.last_only else rows


def _bounded(body: Body, inputs: Sequence[Leaf]) -> list[Leaf]:
    """A loop that may end early."""
    plan = body.plan
    newest: Any = [None] * len(plan.states)
    if plan.kept_steps is not None:
        rows, shared, executed = bounded_truncated(plan, inputs, plan.kept_steps)
    else:
        carry, rows, executed = bounded_chunks(
            body.step_until,
            body.first_carry(),
            body.slices_in_order(),
            length=plan.n_steps,
            steps=body.most_steps,
            levels=plan.levels,
        )
        shared, newest = carry.shared, body.newest(carry)
        if plan.options.last_only:
            rows = body.last_rows(carry, rows)
    last = _last_rows(plan, newest, rows, executed) if plan.returns_last else []
    return [*jax.tree.leaves((rows, shared)), *last, executed]


def _last_rows(plan: LoopPlan, newest: Any, rows: Any, executed: Leaf) -> list[Leaf]:
    """The last executed row of every output, leaf by leaf; zero if none was.

    That of a state is carried; others, and all of a truncated loop, are read.
    """
    found, states = [], iter(newest)
    for output, stacked in zip(plan.outputs, rows, strict=True):
        carried = next(states) if output.is_state else None
        for position, leaf in enumerate(jax.tree.leaves(stacked)):
            is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.extended)
            if carried is None or is_key:
                index = jnp.maximum(executed - 1, 0)
                row = jax.lax.dynamic_index_in_dim(leaf, index, 0, keepdims=False)
            else:
                row = jax.tree.leaves(carried)[position]
                row = jax.lax.select(executed > 0, row, jnp.zeros_like(row))
            found.append(row)
    return found


def _scan(body: Body) -> tuple[Carry, Any]:
    """One `lax.scan` over all steps."""
    plan = body.plan
    backwards = plan.options.go_backwards
    carry, rows = jax.lax.scan(
        body.step,
        body.first_carry(),
        body.slices(),
        # JAX takes a symbolic length (of `jax.export`) from the sequences alone.
        length=plan.n_steps if isinstance(plan.n_steps, int) else None,
        reverse=backwards,
        unroll=plan.options.unroll or 1,
    )
    # lax.scan puts rows where their slices lie; here row 0 is the first iteration.
    return carry, jax.tree.map(flip, rows) if backwards else rows


def _scan_in_blocks(body: Body, block: int) -> tuple[Carry, Any]:
    """Long lags read whole blocks of earlier rows, sliced once per block."""
    plan = body.plan
    slices = body.slices_in_order()
    unroll = plan.options.unroll or 1

    def run(state: Any, slices: Any, length: int) -> tuple[Any, Any]:
        carry, history = state
        past = body.block_slices(history, length)
        carry, rows = jax.lax.scan(
            body.step, carry, slices._replace(past=past), length=length, unroll=unroll
        )
        return (carry, body.advance_history(history, rows)), rows

    state = body.first_carry(), body.first_history()
    level = Level(block, recomputed=False)
    (carry, _), rows = in_chunks(run, state, slices, plan.n_steps, level)
    return carry, rows
