"""How one sample of each distribution is made: pure functions of a key.

``function(key, shape, dtype, **parameters)``; `shape` is that of the sample (for
vectors: without their last axis), parameters are arrays that broadcast to it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jscan._base.types import Leaf

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Distribution:
    """A distribution, and what its parameters and samples are like."""

    name: str  # the method that draws from it
    function: Callable[..., Leaf]
    kind: type | None = None  # whose default dtype samples have; None: a parameter's
    vectors: tuple[str, ...] = ()  # parameters that have one axis more than `shape`
    rank: int = 0  # axes that samples have beyond `shape`

    def sample(self, key: Leaf, shape: Shape | None, dtype: Any, given: Any) -> Leaf:
        """A sample with the parameters `given`; by default of their shape."""
        arrays = {name: jnp.asarray(x) for name, x in given.items() if x is not None}
        if shape is None:
            shape = jnp.broadcast_shapes(
                *(x.shape[: x.ndim - (n in self.vectors)] for n, x in arrays.items())
            )
        return self.function(key, shape, dtype, **arrays)


def _uniform(key: Leaf, shape: Shape, dtype: Any, low: Leaf, high: Leaf) -> Leaf:
    low, high = _spread(low, shape, dtype), _spread(high, shape, dtype)
    return jax.random.uniform(key, shape, dtype, low, high)


def _normal(key: Leaf, shape: Shape, dtype: Any, avg: Leaf, std: Leaf) -> Leaf:
    noise = jax.random.normal(key, shape, dtype)
    return _spread(avg, shape, dtype) + _spread(std, shape, dtype) * noise


def _bernoulli(key: Leaf, shape: Shape, dtype: Any, p: Leaf) -> Leaf:
    return jax.random.bernoulli(key, _spread(p, shape), shape).astype(dtype)


def _binomial(key: Leaf, shape: Shape, dtype: Any, n: Leaf, p: Leaf) -> Leaf:
    n, p = _spread(n, shape), _spread(p, shape)
    # The sampler wants 0 < p < 1; at the ends nothing is random.
    inner = jnp.where((p > 0) & (p < 1), p, jnp.full_like(p, 0.5))
    count = jax.random.binomial(key, n, inner, shape, p.dtype)
    count = jnp.where(p <= 0, jnp.zeros_like(n), jnp.where(p >= 1, n, count))
    return count.astype(dtype)


def _multinomial(key: Leaf, shape: Shape, dtype: Any, n: Leaf, pvals: Leaf) -> Leaf:
    pvals = jnp.broadcast_to(pvals, (*shape, pvals.shape[-1]))
    pvals = pvals.astype(_real(pvals))
    n = _spread(n, shape, pvals.dtype)
    return jax.random.multinomial(key, n, pvals, dtype=pvals.dtype).astype(dtype)


def _poisson(key: Leaf, shape: Shape, dtype: Any, lam: Leaf) -> Leaf:
    return jax.random.poisson(key, _spread(lam, shape), shape, dtype)


def _integers(key: Leaf, shape: Shape, dtype: Any, low: Leaf, high: Leaf) -> Leaf:
    low, high = _spread(low, shape, dtype), _spread(high, shape, dtype)
    return jax.random.randint(key, shape, low, high + 1, dtype)


def _choice(
    replace: bool, key: Leaf, shape: Shape, dtype: Any, a: Leaf, p: Leaf | None = None
) -> Leaf:
    return jax.random.choice(key, a, shape, replace, p).astype(dtype or a.dtype)


def _choice_below(
    replace: bool, n: int, key: Leaf, shape: Shape, dtype: Any, p: Leaf | None = None
) -> Leaf:
    dtype = dtype or jnp.result_type(int)
    return jax.random.choice(key, n, shape, replace, p).astype(dtype)


def _permutation(n: int, key: Leaf, shape: Shape, dtype: Any) -> Leaf:
    rows = jnp.broadcast_to(jnp.arange(n, dtype=dtype), (*shape, n))
    return _shuffled(key, shape, dtype, rows)


def _shuffled(key: Leaf, shape: Shape, dtype: Any, rows: Leaf) -> Leaf:
    return jax.random.permutation(key, rows, axis=-1, independent=True)


def _spread(parameter: Leaf, shape: Shape, dtype: Any = None) -> Leaf:
    """A parameter at the shape of the sample (default dtype: a real one)."""
    return jnp.broadcast_to(parameter.astype(dtype or _real(parameter)), shape)


def _real(parameter: Leaf) -> Any:
    """The parameter's dtype if it is a float, else JAX's default one."""
    is_float = jnp.issubdtype(parameter.dtype, jnp.floating)
    return parameter.dtype if is_float else jnp.result_type(float)


uniform = Distribution("uniform", _uniform, float)
normal = Distribution("normal", _normal, float)
bernoulli = Distribution("bernoulli", _bernoulli, int)
binomial = Distribution("binomial", _binomial, int)
multinomial = Distribution("multinomial", _multinomial, int, ("pvals",), rank=1)
poisson = Distribution("poisson", _poisson, int)
random_integers = Distribution("random_integers", _integers, int)
shuffle_row_elements = Distribution("shuffle_row_elements", _shuffled)


def choice(replace: bool, n: int | None = None) -> Distribution:
    """Elements of the vector `a`, or numbers below `n`, with the probabilities `p`."""
    if n is None:
        return Distribution("choice", partial(_choice, replace))
    return Distribution("choice", partial(_choice_below, replace, n))


def permutation(n: int) -> Distribution:
    """Orders ``[..., n]`` of the numbers below `n`."""
    return Distribution("permutation", partial(_permutation, n), int, rank=1)


class _Choice:
    """`choice` in pickles of version 0.1.0."""

    replace: bool

    def renewed(self) -> Distribution:
        return choice(self.replace)


class _Permutation:
    """`permutation` in pickles of version 0.1.0."""

    n: int

    def renewed(self) -> Distribution:
        return permutation(self.n)
