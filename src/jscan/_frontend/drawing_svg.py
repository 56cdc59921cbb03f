"""The picture of a loop as SVG, written by hand: boxes in columns, the step between.

What a step reads stands on the left, what it writes on the right; what comes back at
the next step runs around below. It has its own light ground, so that it can be read on
a dark page, and letters of one width, so that boxes fit their text.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from jscan._frontend.flow import Flow, Port

_COLOURS = {
    "sequence": "#1f4e79",
    "state": "#a85d12",
    "constant": "#6b4c9a",
    "captured": "#6b4c9a",
    "variable": "#0f6b6b",
    "random": "#5b6670",
    "output": "#2f7040",
    "update": "#0f6b6b",
    "stop": "#a12f3d",
}
_INK, _PALE = "#1b2733", "#5b6670"
_HIGH, _PITCH, _EDGE, _LANE = 42, 58, 20, 9
_LONGEST = 34  # characters of a text; a longer one is cut, and whole in its title
_FONT = "ui-monospace,Menlo,Consolas,'DejaVu Sans Mono','Liberation Mono',monospace"


def _wide(text: str, size: float) -> float:
    """How wide a text may be: no letter is wider than 0.62 of its size."""
    return 0.62 * size * min(len(text), _LONGEST)


@dataclass(frozen=True)
class _Places:
    """Where things stand: x of the columns, y of the rows, and the size of it all."""

    lanes: float
    left: float
    into: float  # the left edge of the step
    out: float  # its right edge
    right: float
    end: float
    top: float
    low: float
    reads: Sequence[float]
    writes: Sequence[float]

    @classmethod
    def of(cls, flow: Flow, head: int) -> _Places:
        lanes = _EDGE + _LANE * len(flow.loops_back)
        rows = max(len(flow.reads), len(flow.writes), 1)
        left = lanes + max((_box_width(p) for p in flow.reads), default=0)
        into = left + max((_wide(p.slices, 11.5) for p in flow.reads), default=0) + 34
        out = into + _wide(flow.step, 14) + 36
        right = out + max((_wide(p.slices, 11.5) for p in flow.writes), default=0) + 34
        end = right + max((_box_width(p) for p in flow.writes), default=0)
        top = 42.0 + 20 * head

        def spread(count: int) -> list[float]:
            first = top + _PITCH * (rows - count) / 2 + _HIGH / 2
            return [first + _PITCH * row for row in range(count)]

        low = top + _PITCH * rows - (_PITCH - _HIGH)
        reads, writes = spread(len(flow.reads)), spread(len(flow.writes))
        return cls(lanes, left, into, out, right, end, top, low, reads, writes)


def write_svg(flow: Flow) -> str:
    """The picture of a flow."""
    at = _Places.of(flow, 0)
    width = max(at.end + at.lanes, 2 * _EDGE + _wide(flow.title, 15), 360)
    head = textwrap.wrap(
        flow.call, int((width - 2 * _EDGE) / 8), subsequent_indent="    "
    )
    at = _Places.of(flow, len(head))
    back = flow.loops_back
    height = at.low + _EDGE + (_LANE * len(back) + 22 if back else 0)
    parts = [
        f'<rect x="0.5" y="0.5" width="{width - 1:.0f}" height="{height - 1:.0f}" '
        'rx="8" fill="#fff" stroke="#c9d3dc"/>',
        _text(_EDGE, 26, flow.title, 15, _INK, "font-weight:bold"),
        *(_text(_EDGE, 46 + 20 * n, line, 12.5, _INK) for n, line in enumerate(head)),
        *_backward(flow, at),
        *(_read(port, at, y) for port, y in zip(flow.reads, at.reads, strict=True)),
        *(_write(port, at, y) for port, y in zip(flow.writes, at.writes, strict=True)),
        _step(flow.step, at),
    ]
    label = escape(f"Data flow of {flow.title}. {flow.call}", quote=True)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" '
        f'height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}" role="img" '
        f'aria-label="{label}" style="max-width:100%;height:auto" '
        f'font-family="{_FONT}">' + "\n".join(parts) + "</svg>"
    )


def _box_width(port: Port) -> float:
    first = _wide(port.name, 13) + 14 + _wide(port.kind, 10)
    return max(first, _wide(port.type, 11.5), 80) + 20


def _text(
    x: float, y: float, text: str, size: float, colour: str, style: str = ""
) -> str:
    """A line of text, with its spaces."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{colour}" '
        f'xml:space="preserve" style="{style}">{escape(text)}</text>'
    )


def _cut(
    x: float, y: float, text: str, size: float, colour: str, style: str = ""
) -> str:
    """The same; a text that is too long is cut, and its title holds all of it."""
    if len(text) <= _LONGEST:
        return _text(x, y, text, size, colour, style)
    short = _text(x, y, text[: _LONGEST - 1] + "…", size, colour, style)
    return f"<g><title>{escape(text)}</title>{short}</g>"


def _box(port: Port, x: float, y: float, width: float) -> str:
    colour, top = _COLOURS[port.kind], y - _HIGH / 2
    dash = ' stroke-dasharray="4 3"' if port.kind == "captured" else ""
    return (
        f'<rect x="{x:.1f}" y="{top:.1f}" width="{width:.1f}" height="{_HIGH}" rx="5" '
        f'fill="#fff" stroke="{colour}" stroke-width="1.4"{dash}/>'
        + _cut(x + 10, top + 17, port.name, 13, colour, "font-weight:bold")
        + _text(x + width - 10, top + 16, port.kind, 10, _PALE, "text-anchor:end")
        + _cut(x + 10, top + 34, port.type, 11.5, _INK)
    )


def _arrow(start: float, end: float, y: float, colour: str) -> str:
    return (
        f'<path d="M{start:.1f} {y:.1f}H{end - 6:.1f}" stroke="{colour}" '
        'stroke-width="1.5" fill="none"/>'
        f'<path d="M{end:.1f} {y:.1f}l-8 -4.5v9z" fill="{colour}"/>'
    )


def _read(port: Port, at: _Places, y: float) -> str:
    colour = _COLOURS[port.kind]
    return (
        _box(port, at.lanes, y, at.left - at.lanes)
        + _arrow(at.left, at.into, y, colour)
        + _cut(at.left + 10, y - 6, port.slices, 11.5, colour)
    )


def _write(port: Port, at: _Places, y: float) -> str:
    colour = _COLOURS[port.kind]
    return (
        _arrow(at.out, at.right, y, colour)
        + _cut(at.out + 10, y - 6, port.slices, 11.5, colour)
        + _box(port, at.right, y, at.end - at.right)
    )


def _step(name: str, at: _Places) -> str:
    wide, middle = at.out - at.into, (at.top + at.low) / 2
    return (
        f'<rect x="{at.into:.1f}" y="{at.top:.1f}" width="{wide:.1f}" '
        f'height="{at.low - at.top:.1f}" rx="6" fill="{_INK}"/>'
        + _cut(
            at.into + wide / 2,
            middle + 5,
            name,
            14,
            "#fff",
            "text-anchor:middle;font-weight:bold",
        )
    )


def _backward(flow: Flow, at: _Places) -> list[str]:
    """Lines from what is written to the reads of the next step, without crossings.

    The upper rows take the outer lanes.
    """
    back = sorted(flow.loops_back)
    parts = []
    for index, (write, read) in enumerate(back):
        lane = _LANE * (len(back) - index)
        colour = _COLOURS[flow.reads[read].kind]
        end, low = at.end + lane, at.low + lane + 4
        start = at.lanes - lane - 2
        path = (
            f"M{at.end:.1f} {at.writes[write]:.1f}H{end:.1f}V{low:.1f}H{start:.1f}"
            f"V{at.reads[read]:.1f}H{at.lanes - 6:.1f}"
        )
        parts.append(
            f'<path d="{path}" stroke="{colour}" stroke-width="1.5" fill="none" '
            'stroke-linejoin="round"/>'
            f'<path d="M{at.lanes:.1f} {at.reads[read]:.1f}l-8 -4.5v9z" '
            f'fill="{colour}"/>'
        )
    if back:
        low = at.low + _LANE * len(back) + 22
        middle = "text-anchor:middle"
        text = "what the next step reads"
        parts.append(_text((at.left + at.right) / 2, low, text, 11.5, _PALE, middle))
    return parts
