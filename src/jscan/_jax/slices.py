"""Equations that cut a piece out of an array."""

from __future__ import annotations

from typing import Any

from jax.extend.core import primitives

from jscan._jax.jaxprs import variable_like


def slice_of(
    atom: Any, starts: tuple[int, ...], limits: tuple[int, ...], like: Any
) -> Any:
    """An equation that slices an operand, at the source location of another."""
    shape = [limit - start for start, limit in zip(starts, limits, strict=True)]
    return like.replace(
        primitive=primitives.slice_p,
        invars=[atom],
        outvars=[variable_like(atom, shape)],
        params={
            "start_indices": tuple(starts),
            "limit_indices": tuple(limits),
            "strides": None,
        },
        effects=frozenset(),
    )
