"""The one comparison of the tests: equal trees, numbers as close as their type allows.

Shapes, types and whole numbers agree exactly; NaN and infinities stand in the same
places; other floats differ by no more than a part of the largest of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Tree = Any

TOLERANCES = {"float16": 2e-3, "bfloat16": 2e-2, "float32": 2e-5, "float64": 1e-10}
"""What another order of summation does to a type, relative to the largest number."""


def assert_close(
    actual: Tree,
    expected: Tree,
    tolerance: float | None = None,
    *,
    least: float = 0.0,
) -> None:
    """Same tree, shapes and types; floats within the tolerance, or that of their type.

    Args:
        actual: What is tested.
        expected: What it should be.
        tolerance: Relative to the largest finite number of each leaf of `expected`.
        least: What counts as the largest number where all are smaller.
    """
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    leaves, _ = jax.tree.flatten_with_path(actual)
    for (path, mine), theirs in zip(leaves, jax.tree.leaves(expected), strict=True):
        place = f"result{jax.tree_util.keystr(path)}"
        mine, theirs = np.asarray(mine), np.asarray(theirs)
        assert mine.shape == theirs.shape, f"{place}: {mine.shape}, not {theirs.shape}"
        assert mine.dtype == theirs.dtype, f"{place}: {mine.dtype}, not {theirs.dtype}"
        limit = tolerance_of(theirs.dtype) if tolerance is None else tolerance
        assert is_close(theirs, mine, limit, least=least), (
            f"{place} differs by more than {limit} of the largest number\n"
            f"got\n{mine}\nexpected\n{theirs}\ndifference\n{_difference(mine, theirs)}"
        )


def tolerance_of(dtype: Any) -> float:
    """How close numbers of a type are, that of its parts for a complex one."""
    if not jnp.issubdtype(dtype, jnp.inexact):
        return 0.0
    return TOLERANCES[jnp.finfo(dtype).dtype.name]


def is_close(
    first: Any,
    second: Any,
    tolerance: float,
    moved: Sequence[np.ndarray] = (),
    *,
    least: float = 0.0,
) -> bool:
    """Whether two arrays of one type agree.

    Args:
        first: What the scale is taken from.
        second: What is compared with it.
        tolerance: Relative to the largest finite number.
        moved: The first array as slightly different programs compute it. What one
            element moves by there, its neighbours may: sums are shared.
        least: What counts as the largest number where all are smaller.
    """
    if not jnp.issubdtype(first.dtype, jnp.inexact):
        return bool(np.array_equal(first, second))
    first, second, *moved = map(wide, (first, second, *moved))
    if np.iscomplexobj(first):
        # Which part of a product of complex infinities is NaN is nobody's promise.
        first, second, *moved = (
            np.where(np.isfinite(z), z, np.nan) for z in (first, second, *moved)
        )
    return all(
        _parts_close(
            getattr(first, part),
            getattr(second, part),
            tolerance,
            [getattr(other, part) for other in moved],
            least,
        )
        for part in ("real", "imag")
    )


def wide(value: Any) -> np.ndarray:
    """A NumPy array in which differences of `value` can be taken."""
    array = np.asarray(value)
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        return array.astype(np.complex128)
    if jnp.issubdtype(array.dtype, jnp.floating):
        return array.astype(np.float64)
    return array


def _parts_close(
    first: np.ndarray,
    second: np.ndarray,
    tolerance: float,
    moved: list[np.ndarray],
    least: float,
) -> bool:
    """Compares real arrays, with infinities and NaN in the same places."""
    finite = np.isfinite(first) & np.isfinite(second)
    scale = np.max(np.abs(first), initial=least, where=np.isfinite(first))
    allowed = np.full(first.shape, tolerance * scale)
    unsettled = np.zeros(first.shape, bool)
    for other in moved:
        settled = np.isfinite(other) & np.isfinite(first)
        # An element that is NaN or infinite in one probe only says nothing.
        unsettled |= ~settled & ~_same_special(first, other)
        with np.errstate(invalid="ignore"):  # both may be infinite
            shift = np.abs(np.where(settled, other - first, 0.0))
        allowed = np.maximum(allowed, 16 * np.max(shift, initial=0.0))
    with np.errstate(invalid="ignore"):
        near = np.abs(first - second) <= allowed
    same = np.where(finite, near, _same_special(first, second))
    return bool(np.all(unsettled | same))


def _same_special(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return (np.isnan(first) & np.isnan(second)) | (first == second)


def _difference(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return wide(first) - wide(second)
