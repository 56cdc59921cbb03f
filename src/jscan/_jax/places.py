"""Where in the user's code an equation comes from, as far as JAX remembers it."""

from __future__ import annotations

import os
import re
import sysconfig
from pathlib import Path
from typing import Any

from jax.extend import source_info_util

_LINE = re.compile(r"(.+?):(\d+)(?::\d+)? \(.*\)")  # file:line:column (function)
_OURS = str(Path(__file__).parents[1]) + os.sep
_KINDS = ("stdlib", "platstdlib", "purelib", "platlib")
_INSTALLED = tuple(sysconfig.get_path(kind) + os.sep for kind in _KINDS)


def place_of(source: Any) -> str:
    """``model.py:12``: the innermost line that is neither JAX's nor ours; or nothing.

    The lines of an installed library (flax) count where there are no others.
    """
    lines = _lines(source)
    own = [line for line in lines if not line[0].startswith(_INSTALLED)] or lines
    if not own:
        return ""
    path, number = Path(own[-1][0]), own[-1][1]
    in_notebook = path.parent.name.startswith("ipykernel_")
    return f"notebook cell, line {number}" if in_notebook else f"{path.name}:{number}"


def placed(inner: Any, call: Any) -> Any:
    """The source of an equation, with the lines of the call it is in if it has none.

    A region is traced by itself, so that JAX remembers the user's line for the call.
    """
    return inner if _lines(inner) else inner.replace(traceback=call.traceback)


def _lines(source: Any) -> list[tuple[str, str]]:
    """Files and lines outside of JAX and jscan, the innermost last."""
    text = source_info_util.summarize(source, num_frames=1000)
    found = filter(None, map(_LINE.fullmatch, text.splitlines()))
    return [(m[1], m[2]) for m in found if not m[1].startswith(_OURS)]
