"""Buffers given away: who took them, so that a later use of one can be explained.

`function(..., donate=True)` updates variables in place. An array somebody read from
such a variable before the call is gone after it.
"""

from __future__ import annotations

import functools
import weakref
from typing import Any

import jax

from jscan._base.errors import ScanValueError
from jscan._base.types import PyTree
from jscan._jax.types import is_traced

_takers: dict[int, tuple[weakref.ref[Any], str]] = {}


def note_taken(tree: PyTree, text: str) -> None:
    """Remember who took the arrays of `tree` that are gone, while somebody has them."""
    for leaf in filter(_is_deleted, jax.tree.leaves(tree)):
        # No Python code: an interrupt in it would be lost.
        forget = functools.partial(_takers.pop, id(leaf))
        _takers[id(leaf)] = (weakref.ref(leaf, forget), text)


def is_gone(tree: PyTree) -> bool:
    """Whether the buffer of an array of `tree` is deleted."""
    return any(map(_is_deleted, jax.tree.leaves(tree)))


def check_alive(tree: PyTree, place: str, owner: str | None = None) -> None:
    """Refuse arrays whose buffers are deleted; without an owner, the verb signs it."""
    for leaf in jax.tree.leaves(tree):
        if _is_deleted(leaf):
            known = _takers.get(id(leaf))
            text = known[1] if known else "a function that donates its arguments"
            raise ScanValueError(
                place,
                needed="an array that still exists",
                came=f"one whose buffer was reused in place by {text}",
                fix="read the variable's .value again after each call, copy what "
                "you keep with get_value(), or drop donate=True",
                owner=owner,
            )


def _is_deleted(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and not is_traced(leaf) and leaf.is_deleted()
