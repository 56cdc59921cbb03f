"""`RandomStreams`: random draws that are fresh at every step."""

from __future__ import annotations

import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jscan._base.errors import ScanTypeError, ScanValueError, Subject
from jscan._base.kinds import shown
from jscan._base.types import Size
from jscan._jax.types import is_traced
from jscan._state import distributions, frames
from jscan._state.distributions import (  # the last two for old pickles
    Distribution,
    _Choice,  # noqa: F401  # pyright: ignore
    _Permutation,  # noqa: F401  # pyright: ignore
)
from jscan._state.draws import Draw, draws, unknown_distribution
from jscan._state.positions import IMPLEMENTATION, Position
from jscan._state.streams import Stream, place_text

_SUBJECT = Subject("RandomStreams")


class RandomStreams:
    """A source of random draws; each is a `Draw`, sampled where it is used.

    The numbers depend on the seed and on how many draws came before, and on nothing
    else: not on unrolling, checkpoints, early stop, `jit` or the backend. They differ
    from those of Theano's generators. A loop of ``T`` steps with ``d`` draws moves the
    stream on by ``T*d``; the loop's `updates` report it, and it happens whether or not
    they are used. (Inside a step of an outer loop, a loop that stops early moves it by
    its bound.) A stream has ``2**32 - 1`` draws.

    Make it outside of the steps that draw from it: one made in a step would start again
    at every step, and is refused.

    Under `jax.vmap`, a stream from outside gives all lanes the same numbers; for others
    make one from each lane's key. Samples are differentiable in low, high, avg and std.

    Parameters may be arrays, shared variables or other draws. Without `size` the
    sample has the shape of its parameters; `ndim`, where given, must be its rank.
    Whole numbers have JAX's default integer type, others its default float type.

    Args:
        seed: An integer, or a JAX random key (also a traced one); None: a random one.
        sharding: Where the stream's state is to lie, as in `shared`.

    Attributes:
        state: A shared variable that holds the place in the stream: what to save and
            restore, by its `value` and `set_value`.

    Source: Theano 0.9, ``shared_randomstreams.RandomStreams``; works in `jit`
    (`function`), `grad`, `jvp`, `vmap` and `hessian`.

    Example:
        >>> import jax.numpy as jnp, jscan
        >>> rng = jscan.RandomStreams(1)
        >>> noise = rng.normal()
        >>> walk, _ = jscan.scan(lambda s: s + noise, outputs_info=0., n_steps=100)
        >>> len(set(jnp.diff(walk).tolist())) > 90  # fresh at every step
        True
    """

    def __init__(self, seed: Any = None, *, sharding: Any = None) -> None:
        _refuse_in_a_step()
        first = _first_position(seed)
        self.state = Stream(first, "RandomStreams", sharding=sharding)

    def seed(self, seed: Any = None) -> None:
        """Start again from a seed."""
        self.state.set_value(_first_position(seed))

    def __repr__(self) -> str:
        return f"<RandomStreams{place_text(self.state)}>"

    @draws
    def uniform(
        self,
        size: Size = None,
        low: Any = 0.0,
        high: Any = 1.0,
        ndim: int | None = None,
        dtype: DTypeLike | None = None,
    ) -> Draw:
        """Evenly on ``[low, high)``."""
        return self._draw(distributions.uniform, size, ndim, dtype, low=low, high=high)

    @draws
    def normal(
        self,
        size: Size = None,
        avg: Any = 0.0,
        std: Any = 1.0,
        ndim: int | None = None,
        dtype: DTypeLike | None = None,
    ) -> Draw:
        """Gaussian with mean `avg` and standard deviation `std`."""
        return self._draw(distributions.normal, size, ndim, dtype, avg=avg, std=std)

    @draws
    def bernoulli(
        self,
        size: Size = None,
        p: Any = 0.5,
        ndim: int | None = None,
        dtype: DTypeLike | None = None,
    ) -> Draw:
        """One with probability `p`, else zero."""
        return self._draw(distributions.bernoulli, size, ndim, dtype, p=p)

    @draws
    def binomial(
        self,
        size: Size = None,
        n: Any = 1,
        p: Any = 0.5,
        ndim: int | None = None,
        dtype: DTypeLike | None = None,
    ) -> Draw:
        """Number of successes among `n` trials of probability `p`."""
        if isinstance(n, int) and n == 1:  # the usual case, and much cheaper
            return self._draw(distributions.bernoulli, size, ndim, dtype, p=p)
        return self._draw(distributions.binomial, size, ndim, dtype, n=n, p=p)

    @draws
    def multinomial(
        self,
        size: Size = None,
        n: Any = 1,
        pvals: Any = (0.5, 0.5),
        ndim: int | None = None,
        dtype: DTypeLike | None = None,
    ) -> Draw:
        """Counts ``[*size, k]`` of `n` trials over ``pvals[..., k]``."""
        return self._draw(
            distributions.multinomial, size, ndim, dtype, n=n, pvals=pvals
        )

    @draws
    def poisson(
        self,
        size: Size = None,
        lam: Any = 1.0,
        ndim: int | None = None,
        dtype: DTypeLike | None = None,
    ) -> Draw:
        """Number of events at the rate `lam`."""
        return self._draw(distributions.poisson, size, ndim, dtype, lam=lam)

    @draws
    def random_integers(
        self,
        size: Size = None,
        low: Any = 0,
        high: Any = 1,
        ndim: int | None = None,
        dtype: DTypeLike | None = None,
    ) -> Draw:
        """Whole numbers from `low` to `high`, both included."""
        return self._draw(
            distributions.random_integers, size, ndim, dtype, low=low, high=high
        )

    @draws
    def choice(
        self,
        size: Size = None,
        a: Any = 2,
        replace: bool = True,
        p: Any = None,
        ndim: int | None = None,
        dtype: DTypeLike | None = None,
    ) -> Draw:
        """Elements of the vector `a` (a number: of ``arange(a)``).

        Args:
            size: Shape of the sample; None: one element.
            a: What to choose from.
            replace: False: no element twice in one sample.
            p: Probability of every element; None: all alike.
            ndim: Rank of the sample, to check `size`.
            dtype: Dtype of the sample; None: that of `a`.
        """
        size = () if size is None else size
        if isinstance(a, int | np.integer):  # no array: a strict step may draw
            distribution, a = distributions.choice(bool(replace), int(a)), None
        else:
            distribution = distributions.choice(bool(replace))
        return self._draw(distribution, size, ndim, dtype, a=a, p=p)

    @draws
    def permutation(
        self,
        size: Size = None,
        n: int = 1,
        ndim: int | None = None,
        dtype: DTypeLike | None = None,
    ) -> Draw:
        """Orders ``[*size, n]`` of the numbers below `n`."""
        size = () if size is None else size
        distribution = distributions.permutation(operator.index(n))
        return self._draw(distribution, size, ndim, dtype)

    def shuffle_row_elements(self, input: Any) -> Draw:
        """``input[..., k]`` with every row in an order of its own."""
        distribution = distributions.shuffle_row_elements
        return self._draw(distribution, None, None, None, rows=input)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "state":
            raise AttributeError(name)
        raise unknown_distribution(name)

    def _draw(
        self, distribution: Distribution, size: Any, ndim: Any, dtype: Any, **given: Any
    ) -> Draw:
        if dtype is None and distribution.kind is not None:
            dtype = jnp.result_type(distribution.kind)
        draw = Draw(self.state, distribution, dtype, _shape(size), given)
        if ndim is not None and ndim != draw.ndim - distribution.rank:
            raise ScanValueError(
                "ndim",
                needed=f"the rank of the sample, {draw.ndim}",
                came=str(ndim),
                fix="leave ndim out, or make it agree with size",
                owner=_SUBJECT,
            )
        return draw


MRG_RandomStreams = RandomStreams


def _refuse_in_a_step() -> None:
    """A stream made in a step has no place that passes from step to step."""
    scopes = [frame.scope for frame in frames.around(frames.current())]
    if frames.Scope.STEP in scopes:
        raise ScanValueError(
            "a stream made in a step",
            needed="one that exists before the loop, which each step moves on",
            came="one that would give every step the same numbers",
            fix="call RandomStreams outside of the step; with a key of each "
            "step's own, draw by jax.random",
            owner=_SUBJECT,
        )


def _first_position(seed: Any) -> Position:
    """The start of the stream of a seed or key."""
    fresh = np.random.SeedSequence
    given: Any = int(fresh().generate_state(1)[0]) if seed is None else seed
    dtype: Any = getattr(seed, "dtype", None)
    is_scalar = isinstance(seed, jax.Array) and seed.ndim == 0
    is_int = isinstance(given, int | np.integer) and not isinstance(given, bool)
    if is_int or (is_scalar and jnp.issubdtype(dtype, jnp.integer)):
        key = jax.random.key(int(given) if is_int else given, impl=IMPLEMENTATION)
    elif is_scalar and jnp.issubdtype(dtype, jax.dtypes.prng_key):
        key = given
    else:
        raise ScanTypeError(
            "seed",
            needed="an integer or one JAX random key",
            came=shown(seed),
            fix="write RandomStreams(1234); for a batch of keys use jax.vmap",
            owner=_SUBJECT,
        )
    data = jax.random.key_data(key)
    if data.shape != (2,):
        raise ScanTypeError(
            "seed",
            needed=f"a key of the implementation {IMPLEMENTATION}",
            came=f"one of {jax.random.key_impl(key)}",
            fix=f"make it by jax.random.key(seed, impl={IMPLEMENTATION!r})",
            owner=_SUBJECT,
        )
    return Position(data, jnp.zeros((), jnp.uint32))


def _shape(size: Any) -> tuple[int, ...] | None:
    """`size` as a shape: an int, a sequence of ints, or None."""
    if size is None:
        return None
    try:
        size = size.tolist() if isinstance(size, np.ndarray) else size
        items = size if isinstance(size, tuple | list) else (size,)
        return tuple(map(operator.index, items))
    except TypeError:
        traced = any(map(is_traced, jax.tree.leaves(size)))
        raise ScanTypeError(
            "size",
            needed="an integer or a tuple of integers",
            came="a traced value" if traced else repr(size),
            fix="sizes are part of the program: pass a Python int",
            owner=_SUBJECT,
        ) from None
