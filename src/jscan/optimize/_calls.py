"""Primitives of others that compute a program the optimizer may look into."""

from collections.abc import Callable
from typing import Any

_PROGRAMS: dict[Any, Callable[[Any], Any]] = {}


def register_call(primitive: Any, program_of: Callable[[Any], Any]) -> None:
    """Teach the optimizer a primitive that computes a closed program.

    Args:
        primitive: The primitive.
        program_of: Its parameters to the closed jaxpr it computes, or to `None` where
            the equation is to be left alone.
    """
    _PROGRAMS[primitive] = program_of


def is_registered(equation: Any) -> bool:
    """Whether the equation's primitive was registered."""
    return equation.primitive in _PROGRAMS


def called_programs(equation: Any) -> list[Any]:
    """The program a registered equation computes; none if it is to be left alone."""
    program = _PROGRAMS[equation.primitive](equation.params)
    return [] if program is None else [program]
