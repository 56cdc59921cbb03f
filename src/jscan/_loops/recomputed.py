"""A chunk of steps of which the backward pass finds the state before it, no more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from jscan._base.caches import cached
from jscan._base.types import Leaf, PyTree

Step = Callable[[PyTree, PyTree], tuple[PyTree, PyTree]]

STATE = "jscan_state"  # the name of what a chunk begins with, to policies of JAX


def recomputed(steps: Step, memory_kind: str | None, *, within: bool) -> Step:
    """Steps that the backward pass runs again, from the state that they began with.

    They take arrays alone: with `static_argnums` JAX would keep all that they hold.

    Args:
        steps: A chunk.
        memory_kind: The memory in which that state is kept; None: where it is.
        within: Whether the chunk runs in a loop.
    """
    # Inside a loop the compiler cannot merge the two runs of a chunk into one.
    how: Any = dict(prevent_cse=not within)
    if memory_kind is None:
        return jax.checkpoint(steps, **how)

    def named(carry: PyTree, part: PyTree) -> Any:
        return steps(jax.tree.map(_named, carry), part)

    return jax.checkpoint(named, policy=_keeping_in(memory_kind), **how)


def _named(leaf: Leaf) -> Leaf:
    if not jnp.issubdtype(leaf.dtype, jnp.inexact):
        return leaf  # small, and not differentiated
    return checkpoint_name(leaf, STATE)


@cached
def _keeping_in(memory_kind: str) -> Any:
    """The policy of JAX; one object for each memory, so that programs stay equal."""
    return jax.checkpoint_policies.save_and_offload_only_these_names(
        names_which_can_be_saved=[],
        names_which_can_be_offloaded=[STATE],
        offload_src="device",
        offload_dst=memory_kind,
    )
