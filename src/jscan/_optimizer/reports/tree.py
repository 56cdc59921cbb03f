"""Loops under the loop they are in: as text, and as a page with colours."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

from jscan._optimizer.record.notes import Note

_COLOURS = {"done": "#1a7f37", "refused": "#9a6700", "left": "#57606a"}
_LIST = "list-style:none;padding-left:.8em;line-height:1.6"


def as_text(loops: Sequence[Any]) -> str:
    """A tree of `LoopReport`, drawn with lines; one out of all others has space."""
    lines: list[str] = []
    depths = [loop.depth for loop in loops]
    for index, loop in enumerate(loops):
        later = depths[index + 1 :]
        goes_on = [_goes_on(later, level) for level in range(1, loop.depth + 1)]
        stem = "".join("│  " if more else "   " for more in goes_on)
        knot = "├─ " if goes_on and goes_on[-1] else "└─ "
        head, *rest = str(loop).splitlines()
        holds = later[:1] == [loop.depth + 1]
        lines += [""] if lines and not loop.depth else []
        lines.append(stem[:-3] + knot + head if loop.depth else head)
        lines += [stem + ("│" + line[1:] if holds else line) for line in rest]
    return "\n".join(lines)


def _goes_on(later: Sequence[int], level: int) -> bool:
    """Whether another loop of this level follows, before one further out does."""
    return next((depth for depth in later if depth <= level), -1) == level


def as_page(loops: Sequence[Any]) -> str:
    """The tree as nested parts of HTML, which open and close."""
    parts = []
    for index, loop in enumerate(loops):
        after = loops[index + 1].depth if index + 1 < len(loops) else 0
        notes = "".join(map(_note, loop.notes)) or _item("left", "", "nothing to do")
        if loop.timing:
            notes = f"<li><b>{html.escape(str(loop.timing))}</b></li>{notes}"
        rows = "".join(
            f"<tr><td>{what}</td><td>{old}</td><td>{new}</td></tr>"
            for what, old, new in loop.rows()
        )
        indent = "margin-left:1.5em;" if loop.depth else ""
        parts.append(
            f'<details open="open" style="{indent}margin-top:.6em">'
            f"<summary><b>{html.escape(loop.name)}</b>{html.escape(loop.facts)}"
            f'</summary><ul style="{_LIST}">{notes}</ul>'
            "<table><tr><th></th><th>before</th><th>after</th></tr>"
            f"{rows}</table>" + "</details>" * (loop.depth + 1 - after)
        )
    return "\n".join(parts)


def _note(note: Note) -> str:
    return _item("done" if note.fired else "refused", note.rule, note.text)


def _item(kind: str, rule: str, text: str) -> str:
    badge = (
        f'<span style="background:{_COLOURS[kind]};color:#fff;border-radius:3px;'
        f'padding:0 .4em">{kind}</span>'
    )
    return f"<li>{badge} <b>{rule}</b> {html.escape(text)}</li>"
