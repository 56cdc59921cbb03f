"""`Drawing`: the data flow of a loop, as text in a terminal and SVG in a notebook."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from jscan._frontend.drawing_svg import write_svg
from jscan._frontend.flow import Flow, Port

_WIDEST = 48  # characters of a cell
_LINE = 88


@dataclass(frozen=True, repr=False)
class Drawing:
    """The picture of a loop that `draw` returns.

    It prints as text, and a notebook shows it as SVG.

    Attributes:
        flow: What is drawn: the call of the step, what that reads and what it writes.

    Example:
        >>> import jax.numpy as jnp, jscan
        >>> drawing = jscan.draw(lambda x, total: total + x, jnp.arange(5), 0)
        >>> drawing.svg.startswith("<svg")
        True
    """

    flow: Flow

    @property
    def svg(self) -> str:
        """The picture as SVG, to be saved to a file. It needs no other file."""
        return write_svg(self.flow)

    def _repr_svg_(self) -> str:
        return self.svg

    def __repr__(self) -> str:
        flow = self.flow
        call = textwrap.wrap(flow.call, _LINE, subsequent_indent="    ")
        ports = [*flow.reads, *flow.writes]
        columns = zip(*map(_cells, ports), strict=True)
        widths = [max(map(len, column)) for column in columns]
        width = sum(widths) + 2 * len(widths)
        back = flow.loops_back
        into, out_of = {read for _, read in back}, {write for write, _ in back}
        lines = []
        for at, port in enumerate(flow.reads):
            corner = "┐" if at == 0 else "┤"
            rail = _rail(at, into, after=True)
            lines.append(_row(port, widths) + f"  ─{corner}{rail}")
        rail, indent = "  │" if back else "", " " * (width + 3)
        lines += [f"{indent}▼{rail}"] if flow.reads else []
        lines.append(f"  {flow.step}".ljust(width + 4) + rail)
        lines += [f"{indent}│{rail}"] if flow.writes else []
        for at, port in enumerate(flow.writes):
            corner = "┘" if at == len(flow.writes) - 1 else "┤"
            rail = _rail(at, out_of, after=False)
            lines.append(_row(port, widths) + f" ◀─{corner}{rail}")
        return "\n".join([flow.title, *call, "", *(line.rstrip() for line in lines)])


def _rail(at: int, joined: set[int], *, after: bool) -> str:
    """The line by which what a step writes comes back, beside a row of the table.

    It runs from the first row that is joined to it (`after`), or to the last one.
    """
    if not joined:
        return ""
    end = min(joined) if after else max(joined)
    if at == end:
        return "◀─╮" if after else "──╯"
    if (at < end) == after:
        return ""
    if at in joined:
        return "◀─┤" if after else "──┤"
    return "  │"


def _row(port: Port, widths: Sequence[int]) -> str:
    cells = map(str.ljust, _cells(port), widths)
    return "  " + "  ".join(cells)


def _cells(port: Port) -> list[str]:
    cells = port.kind, port.name, port.type, port.slices
    return [c if len(c) <= _WIDEST else c[: _WIDEST - 1] + "…" for c in cells]
