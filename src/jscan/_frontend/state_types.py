"""The types of states: what an initial value must become so that the loop closes.

A weakly typed initial (a Python number) takes the type the step returns. A narrower
one is promoted up to the fixed point. A step that returns something narrower than its
state, of another shape or another tree, is an error.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jscan._base.errors import ScanError, ScanTypeError, ScanValueError
from jscan._base.kinds import in_line
from jscan._base.types import Leaf, PyTree, tree_texts, type_text
from jscan._frontend.spec import OutputSpec
from jscan._jax.types import axes_of, is_traced, varying


def promote_states(
    outputs: tuple[OutputSpec, ...], rows: Sequence[PyTree]
) -> tuple[OutputSpec, ...] | None:
    """Specs with promoted initials, or None when every type already closes.

    Args:
        outputs: One spec per output of the step.
        rows: The types of what the step returned for them.
    """
    promoted = tuple(
        _promote(spec, row, index) if spec.is_state else spec
        for index, (spec, row) in enumerate(zip(outputs, rows, strict=True))
    )
    return None if promoted == outputs else promoted  # a spec equals itself alone


def _promote(spec: OutputSpec, row: PyTree, index: int) -> OutputSpec:
    before, tree = jax.tree.flatten(spec.initial)
    after, row_tree = jax.tree.flatten(row)
    if tree != row_tree:
        needed, came = tree_texts(spec.row, row)
        raise ScanTypeError(
            spec.place,
            needed=f"a step that returns the tree of its initial, {needed}",
            came=f"{came} as output {index}",
            fix="return the state with the same structure, wrapped in a list if it "
            "is itself a tuple or list",
        )
    dtypes = [
        _closing_dtype(old, new, spec, index)
        for old, new in zip(jax.tree.leaves(spec.row), after, strict=True)
    ]
    axes = [axes_of(row) for row in after]  # inside jax.shard_map
    varies = any(a - axes_of(leaf) for a, leaf in zip(axes, before, strict=True))
    if not varies and all(dtype is None for dtype in dtypes):
        return spec
    leaves = [
        varying(old if dtype is None else _cast(old, dtype, spec), own)
        for old, dtype, own in zip(before, dtypes, axes, strict=True)
    ]
    return dataclasses.replace(spec, initial=jax.tree.unflatten(tree, leaves))


def _closing_dtype(
    old: jax.ShapeDtypeStruct,
    new: jax.ShapeDtypeStruct,
    spec: OutputSpec,
    index: int,
) -> Any:
    """The dtype the initial must take, or None when it may stay as it is."""
    if old.shape != new.shape:
        raise _mismatch(old, new, spec, index)
    if old.dtype == new.dtype:
        return new.dtype if old.weak_type and not new.weak_type else None
    if old.weak_type and not new.weak_type:
        return new.dtype
    wider = _wider(old, new)
    if wider is None or (wider == old.dtype and not new.weak_type):
        raise _mismatch(old, new, spec, index)
    return None if wider == old.dtype else wider


def _wider(old: jax.ShapeDtypeStruct, new: jax.ShapeDtypeStruct) -> Any:
    """The dtype that holds both, or None where none does (random keys)."""
    with jax.numpy_dtype_promotion("standard"):
        try:
            return jnp.result_type(old, new)
        except (TypeError, ValueError):
            return None


def _cast(leaf: Leaf, dtype: Any, spec: OutputSpec) -> Leaf:
    """The initial in the loop's dtype; a known value must survive the cast."""
    if not is_traced(leaf) and np.issubdtype(dtype, np.integer):
        given = np.asarray(leaf)
        with np.errstate(invalid="ignore"):
            exact = given.astype(dtype).astype(complex) == given.astype(complex)
        if not exact.all():
            raise ScanTypeError(
                spec.place,
                needed=f"an initial that fits the step's type, {dtype}",
                came=in_line(str(given)),
                fix="make the step return a float, or start from a whole number",
            )
    return jax.lax.convert_element_type(leaf, dtype)


def _mismatch(
    old: jax.ShapeDtypeStruct,
    new: jax.ShapeDtypeStruct,
    spec: OutputSpec,
    index: int,
) -> ScanError:
    kind: type[ScanError] = ScanValueError
    if old.shape == new.shape:
        kind = ScanTypeError
        fix = f"return output {index} with .astype({str(old.dtype)!r}), or start from "
        fix += f"an initial of dtype {new.dtype}"
    else:
        rows = "whose rows have the" if spec.has_rows else "of"
        start = f"start from an initial {rows} shape {new.shape}"
        if len(old.shape) < len(new.shape) and not spec.has_rows:
            fix = f"{start}, e.g. jnp.zeros({new.shape})"
        else:
            fix = f"return the shape {old.shape} at every step, outputs in the order "
            fix += f"of outputs_info; or {start}"
    return kind(
        f"{spec.place} (output {index})",
        needed=f"a step that returns its state's type, {type_text(old)}",
        came=type_text(new),
        fix=fix,
    )
