"""Primitives of others that compute a program the optimizer may look into."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class OwnLoop:
    """What the optimizer knows of a primitive that runs a loop its own way.

    Attributes:
        program_of: Its parameters to the closed jaxpr of the loop as a scan, or to
            `None` where the equation is to be left alone.
        with_program: Its parameters and that jaxpr, rewritten, to new parameters.
        is_watched: Its parameters to whether somebody watches its runs, so that their
            number may not change.
    """

    program_of: Callable[[Any], Any]
    with_program: Callable[[Any, Any], Any]
    is_watched: Callable[[Any], bool]


_LOOPS: dict[Any, OwnLoop] = {}
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


def register_loop(primitive: Any, loop: OwnLoop) -> None:
    """Teach the optimizer a primitive that runs a loop its own way."""
    _LOOPS[primitive] = loop


def own_loop(equation: Any) -> Any:
    """The program of a loop that a registered primitive runs, or `None`."""
    found = _LOOPS.get(equation.primitive)
    return found and found.program_of(equation.params)


def with_own_loop(equation: Any, program: Any) -> Any:
    """The equation of such a loop, with its program rewritten."""
    change = _LOOPS[equation.primitive].with_program
    return equation.replace(params=change(equation.params, program))


def is_watched(equation: Any) -> bool:
    """Whether the equation is such a loop whose runs somebody watches."""
    found = _LOOPS.get(equation.primitive)
    return found is not None and found.is_watched(equation.params)
