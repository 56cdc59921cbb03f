"""Names of loops, from the name stacks that JAX keeps."""

from __future__ import annotations

import re
from typing import Any

STRETCHES = "jscan_stretches"
"""The scope of a loop whose steps are stretches of another one, watched by a bar."""


def loop_name(scope: str, position: int, around: str = "") -> str:
    """A readable name from a name stack such as ``transpose(jvp(cell))/while``.

    A loop that has no name but that of the loop `around` it goes by its position.
    """
    name = scope_name(scope)
    named = name and name != scope_name(around)
    return name if named else f"loop {position}{_backward(scope)}"


def scope_name(scope: str) -> str:
    """The names the user gave in a name stack; empty if there are none."""
    plain = re.sub(r"\b(jit|pjit)\([^()]*\)/?", "", scope)
    plain = re.sub(r"\b(transpose|jvp|vmap|rematted_computation)\b|[()]", "", plain)
    parts = (part for part in plain.split("/") if part != STRETCHES)
    name = "/".join(filter(None, parts))
    return name + _backward(scope) if name else ""


def _backward(scope: str) -> str:
    """What is computed again for a backward loop is a forward loop."""
    is_forward = "transpose(" not in scope or "rematted_computation" in scope
    return "" if is_forward else " (backward)"


def called(equation: Any) -> str:
    """A loop's name in a sentence about another loop."""
    name = scope_name(str(equation.source_info.name_stack))
    return repr(name) if name else f"another loop of {equation.params['length']} steps"
