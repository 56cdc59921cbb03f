"""What the step is called with, in words: ``step(u[t], h[t-1], h[t-3], W)``."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from types import FunctionType
from typing import Any

from jscan._base.errors import ScanTypeError, is_ours
from jscan._base.kinds import counted
from jscan._base.types import is_number
from jscan._frontend.spec import OutputSpec, ScanSpec, SequenceSpec


def argument_names(spec: ScanSpec) -> list[str]:
    """One name per argument of the step, in order, by place: ``sequences[0][t-1]``."""
    return _names(spec, lambda part: part.place)


def expected_signature(spec: ScanSpec) -> str:
    """The call the step has to accept, with the caller's variable names where known."""
    known = caller_names()

    def label(part: Any) -> str:
        return known(part.source) or part.place.replace("outputs_info", "outputs")

    return f"{step_name(spec.fn)}({', '.join(_names(spec, label))})"


def step_name(fn: Callable[..., Any], otherwise: str = "step") -> str:
    """How texts call the step: by its name, if it has one."""
    name = getattr(fn, "__name__", otherwise)
    return name if name.isidentifier() else otherwise


def caller_names() -> Callable[[Any], str | None]:
    """How the code that called jscan calls a value that it passed, where known."""
    scope = _caller_scope()

    def name(source: Any) -> str | None:
        known = [key for key, value in scope.items() if value is source]
        named = getattr(source, "name", None)
        unique = known and not is_number(source)  # numbers may be one object
        return named or (known[0] if unique else None)

    return name


def check_arity(spec: ScanSpec) -> None:
    """Raise when the step cannot take the arguments that scan would pass."""
    tapped = (*spec.sequences, *spec.states)
    count = sum(len(part.taps) for part in tapped) + len(spec.non_sequences)
    if _obviously_takes(spec.fn, count):
        return
    try:
        signature = inspect.signature(spec.fn)
    except (TypeError, ValueError):  # a builtin without a signature: let it speak
        return
    if not _takes(signature, count):
        raise ScanTypeError(
            "fn",
            needed=f"a step that accepts {counted(count, 'positional argument')}, "
            f"{expected_signature(spec)}",
            came=f"{step_name(spec.fn)}{signature}",
            fix=_fix_of_arity(spec, signature, count),
        )


def _takes(signature: inspect.Signature, count: int) -> bool:
    try:
        signature.bind(*range(count))
    except TypeError:
        return False
    return True


def _fix_of_arity(spec: ScanSpec, signature: inspect.Signature, count: int) -> str:
    """What to do; a list that was meant as one argument is the usual slip."""
    for parts, fix in (
        (
            spec.states,
            "a tuple or list is several states; one state that is a tuple goes into a "
            "list, outputs_info=[(h, c)], and is returned in one",
        ),
        (
            spec.sequences,
            "a list is several sequences; stack the rows of one, jnp.stack(rows)",
        ),
        (
            spec.non_sequences,
            "a list is several constants; one that is a list goes into a list, "
            "non_sequences=[[W, b]]",
        ),
    ):
        arguments = sum(len(getattr(part, "taps", "1")) for part in parts)
        if len(parts) > 1 and _takes(signature, count - arguments + 1):
            return fix
    return (
        "take sequences first, then past outputs in the order of outputs_info, then "
        "non_sequences"
    )


def _obviously_takes(fn: Callable[..., Any], count: int) -> bool:
    """Whether a plain function takes so many arguments: `inspect` takes its time."""
    if type(fn) is not FunctionType or fn.__dict__:  # which may hold another signature
        return False
    code = fn.__code__
    least = code.co_argcount - len(fn.__defaults__ or ())
    fits = least <= count and (
        count <= code.co_argcount or bool(code.co_flags & inspect.CO_VARARGS)
    )
    return fits and code.co_kwonlyargcount == len(fn.__kwdefaults__ or ())


def captured_names(fn: Callable[..., Any]) -> dict[str, Any]:
    """Variables the step closes over or reads from its module, by name."""
    try:
        found = inspect.getclosurevars(fn)
    except (TypeError, ValueError):
        return {}
    return {**found.globals, **found.nonlocals}


def _names(spec: ScanSpec, label: Callable[[Any], str]) -> list[str]:
    tapped = (*spec.sequences, *spec.states)
    slices = [name for part in tapped for name in slice_names(label(part), part)]
    return slices + [label(constant) for constant in spec.non_sequences]


def slice_names(name: str, part: SequenceSpec | OutputSpec) -> list[str]:
    """What one step sees of an argument, tap by tap: ``x[t-1]``, ``x[t]``."""
    return [f"{name}[t{tap:+d}]" if tap else f"{name}[t]" for tap in part.taps]


def _caller_scope() -> dict[str, Any]:
    """Local and global variables of the code that called jscan."""
    frame = sys._getframe()
    while frame.f_back and is_ours(frame.f_globals.get("__name__", "")):
        frame = frame.f_back
    return {**frame.f_globals, **frame.f_locals}
