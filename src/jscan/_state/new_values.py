"""New values of shared variables: of the types of the old ones, and where they lie."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jscan._base.errors import ScanTypeError
from jscan._base.kinds import fix_of_kind
from jscan._base.types import Leaf, is_numeric, tree_texts, type_text
from jscan._state import donation, frames
from jscan._state.array_likes import ArrayLike
from jscan._state.placement import like, strong


def check_value(
    variable: frames.Variable,
    value: Any,
    place: str,
    *,
    same_shape: bool = False,
    moves: bool = False,
) -> list[Leaf]:
    """Leaves of a new value of a variable, in its tree, dtypes and ranks (or shapes).

    Python numbers take the variable's dtype, but floats none of integers. `place` says
    in errors where the value came from; `same_shape` holds inside loops, whose carry
    cannot change its shape.
    Known values are put where the old ones lie, unless the variable `moves`.
    """
    if isinstance(value, ArrayLike):
        value = value.value
    donation.check_alive(value, place)
    before = frames.value_of(variable)
    old, tree = jax.tree.flatten(before)
    new, new_tree = jax.tree.flatten(value)
    if tree != new_tree:
        needed, came = tree_texts(before, value)
        raise ScanTypeError(
            place,
            needed=f"a value of the variable's tree, {needed}",
            came=came,
            fix="give the whole tree, with every entry",
        )
    if not moves:
        new = [like(x, before, place) for x, before in zip(new, old, strict=True)]
    return [
        _checked_leaf(*pair, place, same_shape) for pair in zip(old, new, strict=True)
    ]


def _checked_leaf(before: Leaf, given: Any, place: str, same_shape: bool) -> Leaf:
    after = given
    if is_numeric(given) or isinstance(given, ArrayLike):
        after = jnp.asarray(given)
        if after.dtype != before.dtype and jax.typeof(after).weak_type:
            with jax.numpy_dtype_promotion("standard"):
                after = after.astype(jnp.result_type(after, before))
        if after.ndim != before.ndim or (same_shape and after.shape != before.shape):
            keeps = "of the same shape" if same_shape else "with as many axes"
            fix = f"give a value {keeps}, or make another variable for it"
        elif after.dtype != before.dtype:
            dtype = repr(str(before.dtype))
            fix = f"convert it with .astype({dtype})"
            if isinstance(given, int | float | complex):  # which have no method for it
                fix = f"convert it with jnp.asarray(value, {dtype})"
        else:
            return strong(after, copy=False)
    else:
        fix = fix_of_kind(after)
    needed, came = type_text(before), type_text(after)
    raise ScanTypeError(place, needed=needed, came=came, fix=fix)
