"""Slices of rows that a loop in chunks hands out, in front of what joins the chunks.

Such a loop (`checkpoint=`) stacks ``[T / N, N, ...]``, of which a reshape makes
``[T, ...]``; rows of a last, shorter chunk are concatenated. Rows of one chunk are cut
from the stack of the chunks, or from the part they are in.
"""

from collections.abc import Sequence
from typing import Any

from jscan._jax.jaxprs import Atom
from jscan._jax.names import primitives
from jscan._jax.slices import slice_of


def joins_chunks(equation: Any) -> bool:
    """Whether an equation makes one axis of the first two, or joins along the first."""
    if equation.primitive is primitives.concatenate_p:
        return equation.params["dimension"] == 0
    return equation.primitive is primitives.reshape_p and is_fold(
        equation.outvars[0], equation.invars[0], equation
    )


def is_fold(flat: Atom, chunks: Atom, reshape: Any) -> bool:
    """Whether an equation reshapes ``[n * N, ...]`` and ``[n, N, ...]``, either way."""
    whole, parts = flat.aval.shape, chunks.aval.shape
    if reshape.params["dimensions"] is not None or len(reshape.invars) != 1:
        return False
    same = len(parts) == len(whole) + 1 > 1 and parts[2:] == whole[1:]
    return same and parts[0] * parts[1] == whole[0]


def cut_before(join: Any, cut: Any) -> list[Any] | None:
    """A slice of joined chunks as one of a single chunk; `None` if it needs several."""
    starts, limits = cut.params["start_indices"], cut.params["limit_indices"]
    if cut.params["strides"] is not None or starts[0] == limits[0]:
        return None
    rows, rest = (starts[0], limits[0]), (starts[1:], limits[1:])
    if join.primitive is primitives.concatenate_p:
        return _cut_part(join, rows, rest, cut)
    chunks = join.invars[0]
    size = chunks.aval.shape[1]
    chunk, row = divmod(rows[0], size)
    if row + rows[1] - rows[0] > size:
        return None
    edges = (row, *rest[0]), (row + rows[1] - rows[0], *rest[1])
    part = slice_of(chunks, (chunk, *edges[0]), (chunk + 1, *edges[1]), cut)
    sizes = {"new_sizes": cut.outvars[0].aval.shape}
    params = {**join.params, **sizes}
    return [part, join.replace(invars=part.outvars, outvars=cut.outvars, params=params)]


def _cut_part(
    join: Any, rows: tuple[int, int], rest: Sequence[Any], cut: Any
) -> list[Any] | None:
    start, limit = rows
    for part in join.invars:
        size = part.aval.shape[0]
        if start >= 0 and limit <= size:
            new = slice_of(part, (start, *rest[0]), (limit, *rest[1]), cut)
            return [new.replace(outvars=cut.outvars)]
        start, limit = start - size, limit - size
    return None
