"""`Draw`: a random sample that belongs to the place where it is used."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Never

import jax

from jscan._base.errors import ScanAttributeError, ScanTypeError
from jscan._base.turns import Turn, to_update
from jscan._base.types import type_text
from jscan._base.verbs import verb
from jscan._state import frames
from jscan._state.array_likes import ArrayLike, refuse_to_set, unwrapped
from jscan._state.distributions import Distribution
from jscan._state.positions import IMPLEMENTATION, Position
from jscan._state.streams import Stream, take

_RENAMED = {
    "stream": "_stream",
    "distribution": "_distribution",
    "requested_dtype": "_dtype",
    "size_given": "_size",
    "parameters": "_parameters",
}
_NAMES = {"shape": "size", "loc": "avg", "mean": "avg", "scale": "std", "sigma": "std"}
# The verb of the methods that draw.
draws = verb(
    "give size first, then parameters by name, as in rng.normal((3,), avg=0)",
    {theirs: f"write {ours}= for {theirs}=" for theirs, ours in _NAMES.items()},
)


def unknown_distribution(name: str) -> ScanAttributeError:
    """The error for a distribution that `RandomStreams` does not have."""
    return ScanAttributeError(
        f"the distribution {name!r}",
        needed="uniform, normal or another of those that help(RandomStreams) lists",
        came="none of them",
        fix="make it of these, or draw by jax.random from keys in sequences",
        owner="RandomStreams",
    )


@dataclass(eq=False, repr=False)
class Draw(ArrayLike):
    """One random draw, which is sampled where it is used.

    Used in a step, made there or outside, it is a fresh sample at every step, and one
    sample however often the step reads it. Passed through ``non_sequences`` it is one
    sample for the whole loop. In a `function` it is fresh at every call. Outside of
    all these it is one sample, fixed when it is first used.

    It acts as an array in arithmetic; functions of `jax.numpy` need ``draw.value``.
    The methods of `RandomStreams` make it.

    Example:
        >>> import jscan
        >>> noise = jscan.RandomStreams(1).normal(size=(2,))
        >>> noise
        <Draw normal: float32[2]>
        >>> bool((noise.value == noise + 0).all())  # at top level, one sample
        True
    """

    _kind = "draw"

    _stream: Stream
    _distribution: Distribution
    _dtype: Any  # as asked for
    _size: tuple[int, ...] | None  # as asked for
    _parameters: dict[str, Any]
    _place: Position | None = None  # in the stream, of the one sample at top level
    _fixed: Any = None  # that sample

    def __setstate__(self, state: dict[str, Any]) -> None:
        """In older pickles fields have other names; some hold other objects."""
        self.__dict__.update({_RENAMED.get(key, key): x for key, x in state.items()})
        if hasattr(self._distribution, "renewed"):
            self._distribution = self._distribution.renewed()  # pyright: ignore

    @property
    def value(self) -> jax.Array:
        """The sample where the caller stands, ``[*size, ...]``."""
        frame = frames.current()
        if frame is None:
            if self._fixed is None:
                sample = self._sample(self._position())
                with Turn(to_update((self,))):  # the first one stays
                    self._fixed = sample if self._fixed is None else self._fixed
            return self._fixed
        frames.value_of(self._stream)  # refuses a use where JAX would freeze it
        if self not in frame.samples:
            frame.samples[self] = self._sample(self._position())
        return frame.samples[self]

    @value.setter
    def value(self, new: Never) -> None:
        refuse_to_set(self, new)

    if not TYPE_CHECKING:  # a checker knows that it cannot be called

        def __call__(self, *_: Any, **__: Any) -> Never:
            raise ScanTypeError(
                "a draw that is called",
                needed="a use of it as an array",
                came=f"{self!r}(...)",
                fix="leave the parentheses out: draw + 1, or draw.value; each step, "
                "and each call of a function, draws anew",
                owner="RandomStreams",
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the sample; asking for it does not draw."""
        return self._type().shape

    @property
    def dtype(self) -> Any:
        """Dtype of the sample; asking for it does not draw."""
        return self._type().dtype

    def __repr__(self) -> str:
        text = ""
        if frames.current() is None:  # in a trace a look at parameters is a read
            with contextlib.suppress(Exception):  # parameters that do not fit
                text = f": {type_text(self._type())}"
        return f"<Draw {self._distribution.name}{text}>"

    def _position(self) -> Position:
        """The draw's place in the stream: one for each step or call, or one in all."""
        frame = frames.sampling_frame()
        if frame is None:
            with Turn(to_update((self._stream,))):
                if self._place is None:
                    self._place = take(self._stream, 1)
                return self._place
        if self not in frame.positions:
            frame.positions[self] = take(self._stream, 1)
        return frame.positions[self]

    def _sample(self, position: Position) -> jax.Array:
        return self._compute(position.sample_key(), self._resolved())

    def _type(self) -> Any:
        key = jax.eval_shape(lambda: jax.random.key(0, impl=IMPLEMENTATION))
        return jax.eval_shape(self._compute, key, self._resolved())

    def _resolved(self) -> dict[str, Any]:
        """Parameters as they are worth here."""
        return {name: unwrapped(value) for name, value in self._parameters.items()}

    def _compute(self, key: Any, parameters: dict[str, Any]) -> jax.Array:
        sample = self._distribution.sample
        return sample(key, self._size, self._dtype, parameters)
