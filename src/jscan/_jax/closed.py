"""Closed programs: what is inside, and how to run one."""

from __future__ import annotations

from typing import Any

import jax
from jax.core import eval_jaxpr

from jscan._base.types import Leaf


def run_jaxpr(closed_jaxpr: Any, *inputs: Leaf) -> list[Leaf]:
    """The results of a closed jaxpr; under a trace, in-line."""
    results = eval_jaxpr(open_jaxpr(closed_jaxpr), closed_jaxpr.consts, *inputs)
    # A constant truth value comes as a Python bool, of which ``~`` is an integer.
    return [jax.numpy.asarray(x) if isinstance(x, bool) else x for x in results]


def open_jaxpr(jaxpr: Any) -> Any:
    """The plain jaxpr inside a closed one (on new JAX versions they are one type)."""
    return jaxpr.jaxpr if hasattr(jaxpr, "jaxpr") else jaxpr
