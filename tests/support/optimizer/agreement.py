"""Whether an optimized program agrees with the program as it was written.

Integers agree exactly. Floats agree within what another order of summation can do to
their type, and are NaN in the same places. Random programs divide by differences and
compare almost equal numbers, so some are so unstable that no bound holds: those betray
themselves, because the *plain* program moves as far when its inputs are changed by a
few units in the last place, or when the same loop is compiled unrolled.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

# Reassociated sums of up to 7 steps x 24 terms lose a few dozen units at most; the
# probes below decide about what lies beyond.
ULPS = 48
PROBES = 4

Call = Callable[..., object]


@dataclasses.dataclass(frozen=True)
class Disagreement:
    """One leaf that differs.

    Attributes:
        leaf: Its number among the results.
        plain: Its value as written.
        optimized: Its value optimized.
    """

    leaf: int
    plain: np.ndarray
    optimized: np.ndarray

    def __str__(self) -> str:
        return (
            f"result {self.leaf} differs\nplain:\n{self.plain}\n"
            f"optimized:\n{self.optimized}"
        )


def disagreement(
    plain: object,
    optimized: object,
    probes: Callable[[], Iterator[object]],
    unit: float = 0.0,
) -> Disagreement | None:
    """Compares results; `probes` yields results of slightly different plain programs.

    Args:
        plain: Results of the program as written, a pytree of arrays.
        optimized: Results of the optimized program.
        probes: Called only where the results differ by more than rounding.
        unit: Relative size of the last place, where the program itself rounds to a
            coarser type than that of its results.

    Returns:
        The first leaf that differs by more than the program's own instability.
    """
    first, tree = jax.tree.flatten(plain)
    second, other_tree = jax.tree.flatten(optimized)
    assert tree == other_tree, f"{tree} became {other_tree}"
    for a, b in zip(first, second, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype), f"{a.aval} became {b.aval}"
    apart = [
        i
        for i, (a, b) in enumerate(zip(first, second, strict=True))
        if not _close(a, b, unit, slack=None)
    ]
    if not apart:
        return None
    moved = [[wide(leaf) for leaf in jax.tree.leaves(probe)] for probe in probes()]
    for i in apart:
        if not jnp.issubdtype(first[i].dtype, jnp.inexact) or not _close(
            first[i], second[i], unit, slack=[leaves[i] for leaves in moved]
        ):
            return Disagreement(i, wide(first[i]), wide(second[i]))
    return None


def perturbed(arguments: object, seed: int) -> object:
    """The arguments with every number moved by a few units in the last place."""
    random = np.random.default_rng(seed)

    def move(a: jax.Array) -> jax.Array:
        if not jnp.issubdtype(a.dtype, jnp.inexact):
            return a
        sign = random.choice([-1.0, 1.0], a.shape)
        step = 4 * float(jnp.finfo(a.dtype).eps)
        return a * jnp.asarray(1 + step * sign).astype(a.dtype)

    return jax.tree.map(move, arguments)


def wide(value: jax.Array) -> np.ndarray:
    """A NumPy array in which differences of `value` can be taken."""
    array = np.asarray(value)
    if jnp.issubdtype(value.dtype, jnp.complexfloating):
        return array.astype(np.complex128)
    if jnp.issubdtype(value.dtype, jnp.floating):
        return array.astype(np.float64)
    return array


def _close(
    a: jax.Array, b: jax.Array, unit: float, slack: list[np.ndarray] | None
) -> bool:
    first, second = wide(a), wide(b)
    if not jnp.issubdtype(a.dtype, jnp.inexact):
        return bool(np.array_equal(first, second))
    if np.iscomplexobj(first):
        # Which part of a product of complex infinities is NaN is nobody's promise.
        others = [first, second, *(slack or [])]
        first, second, *rest = [np.where(np.isfinite(z), z, np.nan) for z in others]
        slack = None if slack is None else rest
    return all(
        _parts_close(
            getattr(first, part),
            getattr(second, part),
            max(unit, float(jnp.finfo(a.dtype).eps)),
            None if slack is None else [getattr(s, part) for s in slack],
        )
        for part in ("real", "imag")
    )


def _parts_close(
    first: np.ndarray, second: np.ndarray, eps: float, slack: list[np.ndarray] | None
) -> bool:
    """Compares real arrays, with infinities and NaN in the same places."""
    finite = np.isfinite(first) & np.isfinite(second)
    scale = np.max(np.abs(first), initial=0.0, where=np.isfinite(first))
    allowed = np.full(first.shape, ULPS * eps * scale)
    unsettled = np.zeros(first.shape, bool)
    for other in slack or []:
        settled = np.isfinite(other) & np.isfinite(first)
        # An element that is NaN or infinite in one probe only says nothing.
        unsettled |= ~settled & ~_same_special(first, other)
        with np.errstate(invalid="ignore"):  # both may be infinite
            moved = np.abs(np.where(settled, other - first, 0.0))
        # What one element moves by, its neighbours may: the sums are shared.
        allowed = np.maximum(allowed, 16 * np.max(moved, initial=0.0))
    with np.errstate(invalid="ignore"):
        near = np.abs(first - second) <= allowed
    return bool(
        np.all(unsettled | np.where(finite, near, _same_special(first, second)))
    )


def _same_special(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return (np.isnan(first) & np.isnan(second)) | (first == second)
