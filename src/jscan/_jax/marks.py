"""Marked names: how a `jax.jit` says what the optimizer is to do with its program.

JAX keeps the name of a jitted function in all that it makes of it: derivatives,
forward and backward, batches, what `jax.checkpoint` runs again. So a name is what
reaches the place where programs are lowered (`_optimizer/lowering.py`), and it says
what the caller chose (`Options.name`): it needs no table to be understood, and means
the same in every thread and process.
"""

import re
from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import primitives
from jax.interpreters import mlir

PLAIN = "jscan_plain"
"""The mark of a program that stays as it is, whatever is around it."""

_CHOICES = r"__[a-z_.+]*__\d+(__[a-z]+__\d+__[0-9a-f]*)?"
_NAMES = re.compile(rf"jscan_(plain|(loop|optimize)({_CHOICES})?)")


def is_marked(name: str) -> bool:
    """Whether a jitted function of this name is a region of ours."""
    return _NAMES.fullmatch(name) is not None


def lowering_rule() -> Any:
    """The rule by which JAX lowers an inner `jit`; `None` where it is not found.

    The table it stands in is the one thing of JAX's without a documented name.
    """
    known = getattr(mlir, "_lowerings", {}).get(primitives.jit_p)
    return getattr(known, "rule", known)


def marked(function: Callable[..., Any], name: str = PLAIN) -> Callable[..., Any]:
    """A jitted function whose program is a region; its name says what is done."""
    function.__name__ = function.__qualname__ = name
    return jax.jit(function)


def is_plain(equation: Any) -> bool:
    """Whether an equation is a region that nobody may look into."""
    return equation.primitive is primitives.jit_p and equation.params["name"] == PLAIN
