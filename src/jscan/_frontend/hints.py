"""What to do about the usual slips: in a call of `scan`, and in a traced step."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import Any

import jax

from jscan._base.errors import ScanError, loop_label
from jscan._base.types import PyTree, tree_text
from jscan._base.verbs import add_place
from jscan._frontend.signature import step_name
from jscan._state.array_likes import ArrayLike

ORDER = (
    "the order is scan(step, sequences, outputs_info, non_sequences, n_steps), and "
    "the step's is step(slices..., states..., constants...)"
)
SLIPS = MappingProxyType(
    {
        "f": "pass the step first",
        **dict.fromkeys(
            ("in_axes", "out_axes", "axis", "axes"),
            "leave it out: loops run along axis 0; jnp.moveaxis puts another there",
        ),
        "xs": "write sequences= for xs=, and let the step take slices before states",
        "init": "write outputs_info= for init=, and let the step return the new state "
        "alone",
        "length": "write n_steps= for length=",
        "reverse": "write go_backwards=True, whose row 0 is the first step's",
        "taps": "write taps in a dict: dict(input=x, taps=[...]) in sequences, "
        "dict(initial=y, taps=[...]) in outputs_info",
        "until": "return jscan.until(condition) last from the step",
        "updates": "return updates from the step, as in return y, {variable: new}",
        "return_updates": "leave it out: outputs, updates = scan(...)",
        "givens": "pass the values in non_sequences",
        "dtype": "give the arrays this dtype, as in x.astype(...)",
        "options": "pass each option by its name",
    }
)

# Of the verbs that have fewer arguments.
VIEW_SLIPS = SLIPS | dict.fromkeys(
    [
        *("n_steps", "strict", "profile", "return_list", "max_steps", "checkpoint"),
        *("unroll", "progress", "mode", "truncate_gradient", "go_backwards"),
    ],
    "use jscan.scan, which has it",
)

_DEBUG = '; or look at values with mode="DEBUG"'
_ERRORS = jax.errors
# JAX needed a value that it does not have; the first that fits counts.
_FIXES: tuple[tuple[type[Exception], str], ...] = (
    (
        _ERRORS.TracerBoolConversionError,
        "in place of if, while, and, or, not on a traced value write "
        "jnp.where(condition, a, b), jax.lax.cond, or & | ~",
    ),
    (
        _ERRORS.TracerIntegerConversionError,
        "in place of range write jax.lax.fori_loop or a scan; index an array, as in "
        "jnp.asarray(items)[i], not a list",
    ),
    (
        _ERRORS.TracerArrayConversionError,
        "in place of numpy write jax.numpy, as in jnp.sin for np.sin",
    ),
    (
        _ERRORS.NonConcreteBooleanIndexError,
        "in place of x[mask] write jnp.where(mask, x, 0)",
    ),
    (
        _ERRORS.ConcretizationTypeError,
        "keep it an array: no float(...), int(...), .item(), math.sin(...) but "
        "x.astype(...), jnp.sin(x); a size must be a Python int",
    ),
)
# Errors of other kinds, by what they say.
_WORDS = {
    "Tracer has no attribute": "use what JAX's arrays have, or jax.numpy",
    "is not defined": "give the name a value before the call, or let it be an argument",
    "cannot access local variable": "the assignment to it makes the name a local one: "
    "give what is assigned another name",
    "concrete values of integer type": "a size must be a Python int",
    **dict.fromkeys(
        ("unhashable type: 'jaxlib", "unhashable type: 'Dynamic"),
        "the key of an update is the variable: {w: new}, not {w.value: new}",
    ),
    **dict.fromkeys(
        ("contracting dimensions", "ncompatible shapes"),
        "compare the types above; a step of a loop sees one row of a sequence, without "
        "the axis of time",
    ),
}


def add_step(
    error: Exception,
    fn: Callable[..., Any],
    arguments: Sequence[Any],
    loop: str | None,
    index: int | None,
) -> None:
    """Note in which step of which loop the user's step failed, and how to mend it.

    Where it runs on real values, `index` is the number of the step.
    """
    step = "the step" if index is None else f"step {index}"
    add_call(error, f"{step} of {loop_label(loop)}", fn, arguments)


def add_call(
    error: Exception,
    place: str,
    fn: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any] = MappingProxyType({}),
    called: str = "step",
    otherwise: str = _DEBUG,
) -> None:
    """Note where the user's function failed, how it was called, and how to mend it.

    Args:
        error: What it raised.
        place: Where: ``the step of scan 'rnn'``.
        fn: The function.
        args: What it was called with.
        kwargs: The same, by name.
        called: What to call a function without a name.
        otherwise: Another fix where JAX needed a value that it does not have.
    """
    types, fix = "...", None
    with suppress(Exception):  # what the user's objects do when asked is theirs
        types = ", ".join(_types(fn, args, kwargs))
        fix = _fix_of(error, otherwise)
    add_place(error, f"{place}, called as {step_name(fn, called)}({types})", fix)


def _fix_of(error: Exception, otherwise: str) -> str | None:
    for kind, fix in _FIXES:
        if isinstance(error, kind):
            return fix + otherwise
    text = "" if isinstance(error, ScanError) else str(error)
    return next((fix for words, fix in _WORDS.items() if words in text), None)


def _types(
    fn: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> list[str]:
    """The arguments of a call with their names and types: ``x_t: float32[3]``."""
    try:
        signature = inspect.signature(fn)
        bound = signature.bind(*args, **kwargs).arguments
    except (TypeError, ValueError):  # it has no signature, or this call does not fit it
        return [*map(_type, args), *(f"{k}: {_type(x)}" for k, x in kwargs.items())]
    parts = []
    for name, value in bound.items():
        if signature.parameters[name].kind is inspect.Parameter.VAR_POSITIONAL:
            named = enumerate(value)
            parts += [f"{name}[{place}]: {_type(part)}" for place, part in named]
        else:
            parts.append(f"{name}: {_type(value)}")
    return parts


def _type(argument: PyTree) -> str:
    """The type of an argument, in few words."""
    if isinstance(argument, ArrayLike):
        return f"{type(argument).__name__} {_type(argument.value)}"
    text = tree_text(argument)
    if len(text) <= 60:
        return text
    return f"{type(argument).__name__} of {len(jax.tree.leaves(argument))} arrays"
