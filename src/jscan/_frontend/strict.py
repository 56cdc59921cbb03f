"""`strict=True`: nothing may reach the step but through its arguments.

What a step captures and what it makes itself look alike in one trace; in a second one,
under another setting of JAX's so that nothing kept is used, what it makes is made anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax

from jscan._base.errors import ScanTypeError
from jscan._base.types import Leaf, type_text
from jscan._frontend.signature import captured_names
from jscan._frontend.spec import ScanSpec
from jscan._state.streams import Stream
from jscan._state.variables import SharedVariable


def another_precision() -> str:
    """A setting under which JAX traces anew what it has traced and kept."""
    now = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
    return "float32" if now != "float32" else "highest"


def in_both(closed: Any, again: Any) -> list[Any]:
    """Arrays that a step met in two traces; those that it makes are other ones."""
    return [x for x in closed.consts if any(x is other for other in again.consts)]


def refuse_captured(
    spec: ScanSpec, captured: Sequence[Leaf], reads: Sequence[SharedVariable]
) -> None:
    """Refuse arrays and variables that are no arguments; streams may be captured."""
    known = captured_names(spec.fn)
    found = [
        next((key for key, value in known.items() if value is leaf), "an array")
        + f" ({type_text(leaf)})"
        for leaf in captured
    ] + [
        repr(variable)
        for variable in reads
        if variable not in spec.listed and not isinstance(variable, Stream)
    ]
    if found:
        raise ScanTypeError(
            "strict=True",
            needed="a step that uses only its arguments",
            came=f"a step that captures {', '.join(found)}",
            fix="pass it in non_sequences and take it as an argument",
        )
