"""Equations that cut a piece out of an array."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from jax.extend.core import primitives

from jscan._jax.jaxprs import variable_like


def slice_of(atom: Any, starts: Sequence[int], limits: Sequence[int], like: Any) -> Any:
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


def part_of(atom: Any, axis: int, start: int, limit: int, like: Any) -> Any:
    """The same along one axis alone."""
    starts, limits = [0] * atom.aval.ndim, list(atom.aval.shape)
    starts[axis], limits[axis] = start, limit
    return slice_of(atom, starts, limits, like)


def parts_of(atom: Any, axis: int, sizes: Sequence[int], like: Any) -> list[Any]:
    """Equations that cut an operand into consecutive parts along an axis."""
    ends = list(accumulate(sizes))
    starts = [end - size for end, size in zip(ends, sizes, strict=True)]
    return [part_of(atom, axis, *edge, like) for edge in zip(starts, ends, strict=True)]


def of_rows(cut: Any, start: int, limit: int, stride: int) -> Any:
    """A slice that reads other rows of an operand, and the same of each."""
    strides = cut.params["strides"]
    parameters = {
        **cut.params,
        "start_indices": (start, *cut.params["start_indices"][1:]),
        "limit_indices": (limit, *cut.params["limit_indices"][1:]),
        "strides": None if strides is None else (stride, *strides[1:]),
    }
    return cut.replace(params=parameters)
