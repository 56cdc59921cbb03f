"""save_memory, across a derivative: a row padded to all rows is padded in the step.

The derivative of ``ys[-1]`` is that row with zeros before it, ``[T, ...]``. A loop in
chunks (`checkpoint=`) folds them to ``[T / N, N, ...]`` and reads one chunk a step.
That would take as much memory as the rows that were not to be stored. Here the loop
reads ``[T / N, 1, ...]``, and its step pads that to a chunk. The chunk may be folded
again: the program of the step is treated alike.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax

from jscan._base.kinds import counted
from jscan._jax.equations import exchanged, splice, with_body
from jscan._jax.jaxprs import is_variable, open_jaxpr, variable_like
from jscan._jax.names import primitives
from jscan._jax.scans import is_scan, read_scan
from jscan._optimizer.analysis.index import Flat
from jscan._optimizer.passes.across_loops.chunk_slices import is_fold
from jscan._optimizer.record.context import Context
from jscan._optimizer.record.notes import Note


@dataclass(frozen=True)
class _Padded:
    """Rows ``[size, ...]`` of one number, but for those of `part` from `start` on."""

    part: Any  # None: there are no others
    filling: Any  # the literal of that number
    start: int
    source: Any  # the equation that fills

    @property
    def count(self) -> int:
        """How many rows are not filled."""
        return 0 if self.part is None else self.part.aval.shape[0]

    def cut(self, start: int, limit: int) -> "_Padded | None":
        """The same of some rows; `None` if those are not all or none of the part."""
        if self.start + self.count <= start or limit <= self.start:
            return replace(self, part=None)
        inside = start <= self.start and self.start + self.count <= limit
        return replace(self, start=self.start - start) if inside else None


def run(flat: Flat, _: Context) -> Flat:
    """Let loops over chunks pad in their steps what is folded padding."""
    padded = _padded(flat.equations)
    new: dict[int, list[Any]] = {}
    sources: set[int] = set()
    for loop in filter(is_scan, flat.equations):
        folded = _folded(loop, flat, padded)
        if folded:
            new[id(loop)] = _padding_in_step(loop, folded)
            sources |= {id(rows.source) for rows in folded.values()}
            text = f"{counted(len(folded), 'sequence')} of one row padded in the step"
            flat = flat.noted(loop, Note(True, text))
    if not new:
        return flat
    for equation in flat.equations:  # rows of a last, shorter chunk
        parts = [(v, padded[v]) for v in equation.outvars if v in padded]
        known = equation.primitive.name in _CUTS and len(parts) == len(equation.outvars)
        if known and all(id(rows.source) in sources for _, rows in parts):
            new[id(equation)] = [e for v, p in parts for e in _padding(p, v, equation)]
    return flat.with_equations(exchanged(flat.equations, new))


_CUTS = frozenset({"slice", "split"})


def _padded(equations: Sequence[Any]) -> dict[Any, _Padded]:
    """What is known to be padding but for a few rows."""
    found: dict[Any, _Padded | None] = {}
    for equation in equations:
        if equation.primitive in (primitives.pad_p, primitives.broadcast_in_dim_p):
            found[equation.outvars[0]] = _filled(equation)
        elif equation.primitive.name in _CUTS and found.get(equation.invars[0]):
            rows = found[equation.invars[0]]
            parts = zip(equation.outvars, _row_ranges(equation), strict=True)
            found.update({v: rows and span and rows.cut(*span) for v, span in parts})
    return {v: rows for v, rows in found.items() if rows}


def _filled(equation: Any) -> _Padded | None:
    """The result of an equation that pads its first axis with a number, or all."""
    if equation.primitive is primitives.broadcast_in_dim_p:
        whole = not is_variable(equation.invars[0]) and equation.outvars[0].aval.shape
        return _Padded(None, equation.invars[0], 0, equation) if whole else None
    part, filling = equation.invars
    (low, high, between), *others = equation.params["padding_config"] or [(-1, 0, 0)]
    fits = low >= 0 <= high and not between and not any(map(any, others))
    if is_variable(filling) or not fits:
        return None
    return _Padded(part, filling, int(low), equation)


def _row_ranges(cut: Any) -> list[tuple[int, int] | None]:
    """From which row to which each result of a slice or split reaches."""
    if cut.primitive.name == "split":
        sizes = cut.params["sizes"]
        ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
        first = cut.params["axis"] == 0
        spans = zip(sizes, ends, strict=True)
        return [(end - size, end) if first else None for size, end in spans]
    starts, limits = cut.params["start_indices"], cut.params["limit_indices"]
    shape = cut.invars[0].aval.shape
    whole = not any(starts[1:]) and tuple(limits[1:]) == shape[1:]
    return [(starts[0], limits[0]) if whole and not cut.params["strides"] else None]


def _folded(loop: Any, flat: Flat, padded: Mapping[Any, _Padded]) -> dict[int, _Padded]:
    """By operand of a loop: the padded rows that are folded to its sequence."""
    scan = read_scan(loop)
    found: dict[int, _Padded] = {}
    for place in range(scan.num_constants + scan.num_carry, len(loop.invars)):
        outer = loop.invars[place]
        fold = flat.producers.get(outer) if is_variable(outer) else None
        if fold is None or fold.primitive is not primitives.reshape_p:
            continue
        rows = padded.get(fold.invars[0]) if is_variable(fold.invars[0]) else None
        if rows is None or not is_fold(fold.invars[0], outer, fold):
            continue
        if rows.start % outer.aval.shape[1] + rows.count <= outer.aval.shape[1]:
            found[place] = rows
    return found


def _padding_in_step(loop: Any, folded: Mapping[int, _Padded]) -> list[Any]:
    """The loop that reads the rows alone, and what makes one of them for each chunk."""
    closed = loop.params["jaxpr"]
    body, _ = open_jaxpr(closed)
    operands, inputs = list(loop.invars), list(body.invars)
    before: list[Any] = []
    first: list[Any] = []
    for place, rows in folded.items():
        chunks, size = operands[place].aval.shape[:2]
        chunk, start = divmod(rows.start, size)
        shape = () if rows.part is None else rows.part.aval.shape
        outer = variable_like(operands[place], (chunks, *shape))
        inner = variable_like(inputs[place], shape)
        before += _padding(replace(rows, start=chunk), outer, loop, as_one=True)
        part = None if rows.part is None else inner
        first += _padding(replace(rows, part=part, start=start), inputs[place], loop)
        operands[place], inputs[place] = outer, inner
    step = with_body(closed, [*first, *body.eqns], body.outvars, inputs)
    params = {**loop.params, "jaxpr": step}
    return [*before, loop.replace(invars=operands, params=params)]


def _padding(
    rows: _Padded, result: Any, like: Any, *, as_one: bool = False
) -> list[Any]:
    """Equations that make the padded rows; the part is one of them, or all its rows."""
    shape = result.aval.shape

    def pad(filling: Any, *part: Any) -> Any:
        if not part:
            return jax.lax.broadcast(filling, shape)
        inside = part[0][None] if as_one else part[0]
        after = shape[0] - rows.start - inside.shape[0]
        edges = [(rows.start, after, 0), *[(0, 0, 0)] * (len(shape) - 1)]
        return jax.lax.pad(inside, filling, edges)

    operands = [rows.filling] + ([] if rows.part is None else [rows.part])
    return splice(pad, operands, like, [result])
