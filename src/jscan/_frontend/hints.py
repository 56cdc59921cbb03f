"""What to do about the usual slips: in a call of `scan`, and in a step that is traced."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Any

import jax

from jscan._base.errors import loop_label
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

_DEBUG = 'or look at values with mode="DEBUG"'
_ERRORS = jax.errors
# The first that fits counts.
_FIXES: tuple[tuple[type[Exception], str], ...] = (
    (
        _ERRORS.TracerBoolConversionError,
        "in place of if, while, and, or, not on a value of the loop write "
        f"jnp.where(condition, a, b), jax.lax.cond, or & | ~; {_DEBUG}",
    ),
    (
        _ERRORS.TracerIntegerConversionError,
        "in place of range write jax.lax.fori_loop or a scan; index an array, as in "
        f"jnp.asarray(items)[i], not a list; {_DEBUG}",
    ),
    (
        _ERRORS.TracerArrayConversionError,
        f"in place of numpy write jax.numpy, as in jnp.sin for np.sin; {_DEBUG}",
    ),
    (
        _ERRORS.NonConcreteBooleanIndexError,
        f"in place of x[mask] write jnp.where(mask, x, 0); {_DEBUG}",
    ),
    (
        _ERRORS.ConcretizationTypeError,
        "keep it an array: no float(...), int(...), .item(), math.sin(...) but "
        f"x.astype(...), jnp.sin(x); a size must be a Python int; {_DEBUG}",
    ),
)


def add_step(
    error: Exception,
    fn: Callable[..., Any],
    arguments: Sequence[Any],
    name: str | None,
    index: int | None,
) -> None:
    """Note in which step of which loop the user's step failed, and how to mend it.

    Where it runs on real values, `index` is the number of the step.
    """
    step = "the step" if index is None else f"step {index}"
    place = f"{step} of {loop_label(name)}, called as {called_as(fn, arguments)}"
    fixes = (fix for kind, fix in _FIXES if isinstance(error, kind))
    add_place(error, place, next(fixes, None))


def called_as(fn: Callable[..., Any], arguments: Sequence[Any]) -> str:
    """The call with names and types: ``step(x_t: float32[3], h: float32[32])``."""
    try:
        signature = inspect.signature(fn)
        bound = signature.bind(*arguments).arguments
    except (TypeError, ValueError):  # a builtin without a signature
        return f"{step_name(fn)}({', '.join(map(_type, arguments))})"
    parts = []
    for name, value in bound.items():
        if signature.parameters[name].kind is inspect.Parameter.VAR_POSITIONAL:
            named = enumerate(value)
            parts += [f"{name}[{place}]: {_type(part)}" for place, part in named]
        else:
            parts.append(f"{name}: {_type(value)}")
    return f"{step_name(fn)}({', '.join(parts)})"


def _type(argument: PyTree) -> str:
    """The type of an argument, in few words."""
    if isinstance(argument, ArrayLike):
        return f"{type(argument).__name__} {_type(argument.value)}"
    text = tree_text(argument)
    if len(text) <= 60:
        return text
    return f"{type(argument).__name__} of {len(jax.tree.leaves(argument))} arrays"
