"""A place in a random stream.

The sample of draw ``c`` is a function of ``(key, c)`` alone. So no key is carried from
step to step, and no step waits for another one.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jscan._base.types import Leaf

DRAWS = 2**32 - 1  # of one stream: its counter has 32 bits

IMPLEMENTATION = "threefry2x32"  # the same numbers on every backend


class Position(NamedTuple):
    """The key data ``uint32[2]`` of a stream, and the index of its next draw."""

    key: Leaf
    counter: Leaf

    def moved(self, count: Any) -> Position:
        """The place `count` draws later."""
        return Position(self.key, self.counter + jnp.asarray(count, jnp.uint32))

    def sample_key(self) -> jax.Array:
        """The random key of the draw at this place."""
        key = jax.random.wrap_key_data(self.key, impl=IMPLEMENTATION)
        return jax.random.fold_in(key, self.counter)


def later(here: Position, there: Position) -> Position:
    """Of two positions in one stream, the one that more draws lie before."""
    return Position(there.key, jnp.maximum(here.counter, there.counter))
