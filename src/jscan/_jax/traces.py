"""Where the calling code stands: is it being recorded by JAX, or computed?"""

from __future__ import annotations

from typing import Any

from jax.extend.core import find_top_trace

# Transformations that compute on given values and keep no program.
_PASSING = ("JVPTrace", "LinearizeTrace", "BatchTrace")


def staging_trace() -> Any:
    """JAX's trace that records operations right now, or None when they are computed."""
    trace: Any = find_top_trace(())
    while type(trace).__name__ in _PASSING:
        trace = trace.parent_trace
    return trace if hasattr(trace, "parent_trace") else None


def is_staging() -> bool:
    """Whether operations are recorded right now, to be run as part of a program."""
    return staging_trace() is not None
