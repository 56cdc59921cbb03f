"""`Draw`: a random sample that belongs to the place where it is used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax

from jscan._base.errors import ScanAttributeError
from jscan._base.turns import Turn, to_update
from jscan._base.verbs import verb
from jscan._state import frames
from jscan._state.array_likes import ArrayLike, unwrapped
from jscan._state.distributions import Distribution
from jscan._state.positions import IMPLEMENTATION, Position
from jscan._state.streams import Stream, take

_NAMES = {"shape": "size", "loc": "avg", "mean": "avg", "scale": "std", "sigma": "std"}
# Makes a function one that draws.
draws = verb(
    "give size first, then parameters by name, as in rng.normal((3,), avg=0)",
    {theirs: f"write {ours}= for {theirs}=" for theirs, ours in _NAMES.items()},
)


def unknown_distribution(name: str) -> ScanAttributeError:
    """The error for a draw that there is not."""
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
    """

    stream: Stream
    distribution: Distribution
    requested_dtype: Any
    size_given: tuple[int, ...] | None
    parameters: dict[str, Any]
    _place: Position | None = None  # at top level: in the stream,
    _fixed: Any = None  # and the sample there

    def __setstate__(self, state: dict[str, Any]) -> None:
        """In pickles of version 0.1.0 some distributions are objects of other kinds."""
        self.__dict__.update(state)
        if hasattr(self.distribution, "renewed"):
            self.distribution = self.distribution.renewed()  # pyright: ignore

    @ArrayLike.value.getter
    def value(self) -> jax.Array:
        """The sample where the caller stands, ``[*size, ...]``."""
        frame = frames.current()
        if frame is None:
            if self._fixed is None:
                sample = self._sample(self._position())
                with Turn(to_update((self,))):  # the first one stays
                    self._fixed = sample if self._fixed is None else self._fixed
            return self._fixed
        frames.value_of(self.stream)  # refuses a use where JAX would freeze it
        if self not in frame.samples:
            frame.samples[self] = self._sample(self._position())
        return frame.samples[self]

    @property
    def label(self) -> str:
        """How errors call the draw in code."""
        return "draw"

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the sample; asking for it does not draw."""
        return self._type().shape

    @property
    def dtype(self) -> Any:
        """Dtype of the sample; asking for it does not draw."""
        return self._type().dtype

    def __repr__(self) -> str:
        return f"<Draw {self.distribution.name} from {self.stream!r}>"

    def _position(self) -> Position:
        """The draw's place in the stream, one per step or call of a function."""
        frame = frames.sampling_frame()
        if frame is None:
            with Turn(to_update((self.stream,))):
                if self._place is None:
                    self._place = take(self.stream, 1)
                return self._place
        if self not in frame.positions:
            frame.positions[self] = take(self.stream, 1)
        return frame.positions[self]

    def _sample(self, position: Position) -> jax.Array:
        return self._compute(position.sample_key(), self._resolved())

    def _type(self) -> Any:
        key = jax.eval_shape(lambda: jax.random.key(0, impl=IMPLEMENTATION))
        return jax.eval_shape(self._compute, key, self._resolved())

    def _resolved(self) -> dict[str, Any]:
        """Parameters as they are worth here."""
        return {name: unwrapped(value) for name, value in self.parameters.items()}

    def _compute(self, key: Any, parameters: dict[str, Any]) -> jax.Array:
        shape, dtype = self.size_given, self.requested_dtype
        return self.distribution.sample(key, shape, dtype, parameters)
