"""How one sample of each distribution is made: pure functions of a key.

``function(key, shape, dtype, **parameters)``; `shape` is that of the sample (for
vectors: without their last axis), parameters are arrays that broadcast to it.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jscan._base.types import Leaf

Shape = tuple[int, ...]


def uniform(key: Leaf, shape: Shape, dtype: Any, low: Leaf, high: Leaf) -> Leaf:
    """Evenly on ``[low, high)``."""
    low, high = _spread(low, shape, dtype), _spread(high, shape, dtype)
    return jax.random.uniform(key, shape, dtype, low, high)


def normal(key: Leaf, shape: Shape, dtype: Any, avg: Leaf, std: Leaf) -> Leaf:
    """Gaussian; differentiable in mean and standard deviation."""
    noise = jax.random.normal(key, shape, dtype)
    return _spread(avg, shape, dtype) + _spread(std, shape, dtype) * noise


def bernoulli(key: Leaf, shape: Shape, dtype: Any, p: Leaf) -> Leaf:
    """One with probability `p`, else zero."""
    return jax.random.bernoulli(key, _spread(p, shape), shape).astype(dtype)


def binomial(key: Leaf, shape: Shape, dtype: Any, n: Leaf, p: Leaf) -> Leaf:
    """Number of successes among `n` trials."""
    n, p = _spread(n, shape), _spread(p, shape)
    # The sampler wants 0 < p < 1; at the ends nothing is random.
    inner = jnp.where((p > 0) & (p < 1), p, jnp.full_like(p, 0.5))
    count = jax.random.binomial(key, n, inner, shape, p.dtype)
    count = jnp.where(p <= 0, jnp.zeros_like(n), jnp.where(p >= 1, n, count))
    return count.astype(dtype)


def multinomial(key: Leaf, shape: Shape, dtype: Any, n: Leaf, pvals: Leaf) -> Leaf:
    """Counts ``[..., k]`` of `n` trials over the `k` outcomes of `pvals`."""
    pvals = jnp.broadcast_to(pvals, (*shape, pvals.shape[-1]))
    pvals = pvals.astype(_real(pvals))
    n = _spread(n, shape, pvals.dtype)
    return jax.random.multinomial(key, n, pvals, dtype=pvals.dtype).astype(dtype)


def poisson(key: Leaf, shape: Shape, dtype: Any, lam: Leaf) -> Leaf:
    """Number of events at the rate `lam`."""
    return jax.random.poisson(key, _spread(lam, shape), shape, dtype)


def random_integers(key: Leaf, shape: Shape, dtype: Any, low: Leaf, high: Leaf) -> Leaf:
    """Whole numbers from `low` to `high`, both included."""
    low, high = _spread(low, shape, dtype), _spread(high, shape, dtype)
    return jax.random.randint(key, shape, low, high + 1, dtype)


def choice(
    key: Leaf, shape: Shape, dtype: Any, a: Leaf, p: Leaf | None, *, replace: bool
) -> Leaf:
    """Elements of the vector `a`, with the probabilities `p`."""
    return jax.random.choice(key, a, shape, replace, p).astype(dtype)


def permutation(key: Leaf, shape: Shape, dtype: Any, *, n: int) -> Leaf:
    """Orders ``[..., n]`` of the numbers below `n`."""
    rows = jnp.broadcast_to(jnp.arange(n, dtype=dtype), (*shape, n))
    return jax.random.permutation(key, rows, axis=-1, independent=True)


def shuffle_row_elements(key: Leaf, shape: Shape, dtype: Any, rows: Leaf) -> Leaf:
    """Every row in an order of its own."""
    return jax.random.permutation(key, rows, axis=-1, independent=True)


def _spread(parameter: Leaf, shape: Shape, dtype: Any = None) -> Leaf:
    """A parameter at the shape of the sample (default dtype: a real one)."""
    return jnp.broadcast_to(parameter.astype(dtype or _real(parameter)), shape)


def _real(parameter: Leaf) -> Any:
    """The parameter's dtype if it is a float, else JAX's default one."""
    if jnp.issubdtype(parameter.dtype, jnp.floating):
        return parameter.dtype
    return jnp.result_type(float)
