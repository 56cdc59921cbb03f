"""Marked names: how a `jax.jit` says what the optimizer is to do with its program.

JAX keeps the name of a jitted function in all that it makes of it: derivatives,
forward and backward, batches, what `jax.checkpoint` runs again. So a name is what
reaches the place where programs are lowered (`_optimizer/lowering.py`), and it stands
for the caller's choices.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import primitives
from jax.interpreters import mlir

PLAIN = "jscan_plain"
"""The mark of a program that stays as it is, whatever is around it."""

_choices: dict[str, Any] = {PLAIN: None}


def mark(choices: Any, label: str) -> str:
    """The name that stands for `choices`; a new one begins with `label`."""
    known = dict(_choices)
    for name, earlier in known.items():
        if earlier == choices:
            return name
    name = label if label not in known else f"{label}_{len(known)}"
    _choices[name] = choices
    return name


def is_marked(name: str) -> bool:
    """Whether a jitted function of this name is a region of ours."""
    return name in _choices


def choices_of(name: str) -> Any:
    """What a marked name stands for; `None` if nothing is to be done."""
    return _choices[name]


def lowering_rule() -> Any:
    """The rule by which JAX lowers an inner `jit`; `None` where it is not found.

    The table it stands in is the one thing of JAX's without a documented name.
    """
    known = getattr(mlir, "_lowerings", {}).get(primitives.jit_p)
    return getattr(known, "rule", known)


def marked(
    function: Callable[..., Any], choices: Any, label: str = PLAIN
) -> Callable[..., Any]:
    """A jitted function whose program is a region; `choices` are made for it."""
    function.__name__ = function.__qualname__ = mark(choices, label)
    return jax.jit(function)


def is_plain(equation: Any) -> bool:
    """Whether an equation is a region that nobody may look into."""
    return equation.primitive is primitives.jit_p and equation.params["name"] == PLAIN
