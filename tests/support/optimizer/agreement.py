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

from support.comparing import is_close, wide

# Reassociated sums of up to 7 steps x 24 terms lose a few dozen units at most; the
# probes below decide about what lies beyond.
ULPS = 48
PROBES = 4
# Weights and most numbers are about 1. Where they cancel, as in the derivative of gates
# that sum to 1, three units in the last place of 1 remain, whichever way it is done.
CANCELLED = 3 / ULPS

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

    def agree(i: int, moved: list[list[np.ndarray]]) -> bool:
        here = [leaves[i] for leaves in moved]
        limit = ULPS * max(unit, eps(first[i]))
        return is_close(first[i], second[i], limit, here, least=CANCELLED)

    apart = [i for i in range(len(first)) if not agree(i, [])]
    if not apart:
        return None
    moved = [[wide(leaf) for leaf in jax.tree.leaves(probe)] for probe in probes()]
    for i in apart:
        if not agree(i, moved):
            return Disagreement(i, wide(first[i]), wide(second[i]))
    return None


def eps(value: jax.Array) -> float:
    """The last place of a number's type; 0 for integers."""
    inexact = jnp.issubdtype(value.dtype, jnp.inexact)
    return float(jnp.finfo(value.dtype).eps) if inexact else 0.0


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
