"""`truncate_gradient`: only the last steps of a loop are differentiated.

Theano's rule: everything that would flow through an earlier step is dropped, whatever
the cost reads. Two ways, by what is known when the loop is built:

* the number of steps is known: the loop is cut in two, and the head runs on values
  that are constants to JAX;
* it is not: the whole loop runs as a constant. Its derivative is that of a second loop
  over the last steps alone, started from the rows the first one left. Without a
  derivative there is no second loop.

Initial rows stay differentiable where one of the last steps reads them itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jscan._base.types import Leaf, PyTree
from jscan._execution.body import Body, Carry, Slices, body_of
from jscan._execution.plan import LoopPlan
from jscan._loops.chunks import (
    bounded_chunks,
    kept_in,
    plan_levels,
    scan_chunks,
)


def scan_truncated(
    plan: LoopPlan, inputs: Sequence[Leaf], kept: int
) -> tuple[Carry, Any]:
    """A loop of known length, differentiated in its last `kept` steps."""
    body = body_of(plan, inputs)
    constant = body_of(plan, list(map(_constant, inputs)))
    unroll = plan.options.unroll or 1
    cut = plan.n_steps - kept
    slices = body.slices_in_order()
    head = jax.lax.stop_gradient(jax.tree.map(lambda leaf: leaf[:cut], slices))
    carry, before = jax.lax.stop_gradient(
        scan_chunks(
            constant.step,
            constant.first_carry(),
            head,
            length=cut,
            levels=plan_levels(cut, None, plan.bar),
            unroll=unroll,
        )
    )
    carry, after = scan_chunks(
        body.step,
        body.resume(carry, cut),
        jax.tree.map(lambda leaf: leaf[cut:], slices),
        length=kept,
        levels=kept_in(
            plan_levels(kept, plan.options.checkpoint, plan.bar, cut),
            plan.options.memory_kind,
        ),
        unroll=unroll,
    )
    return carry, jax.tree.map(lambda *r: jnp.concatenate(r), before, after)


def _constant(leaf: Leaf) -> Leaf:
    is_ref = isinstance(leaf, jax.Ref)  # in which every step writes
    return leaf if is_ref else jax.lax.stop_gradient(leaf)


def bounded_truncated(
    plan: LoopPlan, inputs: Sequence[Leaf], kept: int
) -> tuple[PyTree, PyTree, Leaf]:
    """A loop whose length only shows when it runs: rows, shared values, steps."""

    @jax.custom_jvp
    def run(inputs: Sequence[Leaf]) -> Any:
        return _forward(body_of(plan, inputs))

    @run.defjvp
    def differentiate(primals: Any, tangents: Any) -> Any:
        results = run(*primals)
        known = jax.lax.stop_gradient(results)
        _, rates = jax.jvp(
            lambda inputs: _tail(body_of(plan, inputs), known, kept),
            primals,
            tangents,
        )
        return results, rates

    rows, shared, executed, _ = run(list(inputs))
    return rows, shared, executed


def _forward(body: Body) -> tuple[PyTree, PyTree, Leaf, PyTree]:
    """The whole loop, and the shared values before each of its steps."""

    def step(carry: Carry, slices: Slices) -> tuple[Carry, Any, Any]:
        new, rows, stop = body.step_until(carry, slices)
        return new, (rows, carry.shared), stop

    carry, (rows, history), executed = bounded_chunks(
        step,
        body.first_carry(),
        body.slices_in_order(),
        length=body.plan.n_steps,
        steps=body.most_steps,
        levels=plan_levels(body.plan.n_steps, None, body.plan.bar),
    )
    return rows, carry.shared, executed, history


def _tail(body: Body, known: Any, kept: int) -> tuple[PyTree, PyTree, Leaf, PyTree]:
    """The results of `_forward` with the last `kept` steps run again."""
    rows, _, executed, history = known
    cut = jnp.maximum(executed - kept, 0)
    carry, after, _ = bounded_chunks(
        lambda carry, slices: (*body.step(carry, slices), None),
        body.carry_at(cut, rows, history),
        jax.tree.map(
            lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, cut, kept),
            body.slices_in_order(),
        ),
        length=kept,
        steps=executed - cut,
        levels=plan_levels(kept, body.plan.options.checkpoint),
    )
    rows = jax.tree.map(
        lambda all_rows, new: jax.lax.dynamic_update_slice_in_dim(
            all_rows, new, cut, axis=0
        ),
        rows,
        after,
    )
    return rows, carry.shared, executed, history
