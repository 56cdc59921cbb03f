"""What a family of loops is, and the list that the modules of this package fill."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import jscan


@dataclasses.dataclass(frozen=True)
class Case:
    """A loop of some size, as people write it and as an expert would.

    Attributes:
        step: `step(parameters, carry, x) -> (carry, y)`, as `lax.scan` takes it.
        parameters: What the gradient is taken for, a pytree of float arrays.
        init: The first carry.
        xs: The sequences `[T, ...]`, a pytree; `None` if there are none.
        read: `read(last carry, rows) -> result`; by default the rows.
        by_hand: `by_hand(parameters, init, xs) -> result`, after profiling; `None` if
            an expert would write nothing else.
        length: The number of steps T.
    """

    step: Callable[[Any, Any, Any], tuple[Any, Any]]
    parameters: Any
    init: Any
    xs: Any
    read: Callable[[Any, Any], Any] = lambda last, rows: rows
    by_hand: Callable[[Any, Any, Any], Any] | None = None
    length: int | None = None

    @property
    def arguments(self) -> tuple[Any, Any, Any]:
        """What `plain`, `unasked` and `by_hand` take."""
        return self.parameters, self.init, self.xs

    def plain(self, parameters: Any, init: Any, xs: Any) -> Any:
        """With `lax.scan`."""
        step = lambda carry, x: self.step(parameters, carry, x)
        return self.read(*lax.scan(step, init, xs, length=self.length))

    def unasked(self, parameters: Any, init: Any, xs: Any) -> Any:
        """With `jscan.scan`, which nobody asked to optimize."""

        def step(*row: Any) -> list[Any]:
            *x, carry = row
            carry, y = self.step(parameters, carry, x[0] if x else None)
            return [carry] if y is None else [carry, y]

        x = None if xs is None else jax.tree.map(lambda rows: rows[0], xs)
        _, y = jax.eval_shape(self.step, parameters, init, x)
        states = [dict(initial=init), *([] if y is None else [None])]
        given = [] if xs is None else [xs]
        if y is None and given:  # who wants the end alone asks for no rows
            return self.read(jscan.reduce(step, given, states).outputs, None)
        how = dict(n_steps=self.length, return_list=True)
        last, *rows = jscan.scan(step, given, states, **how).outputs
        last = jax.tree.map(lambda all_: all_[-1], last)
        return self.read(last, rows[0] if rows else None)


@dataclasses.dataclass(frozen=True)
class Family:
    """Loops of one kind.

    Attributes:
        name: Row name, `kind/loop`.
        draw: Draws the sizes and makes a case of them.
        gradient: Whether derivatives are measured, too.
    """

    name: str
    draw: Callable[[Sizes], Case]
    gradient: bool

    @property
    def is_held_out(self) -> bool:
        """Whether it judges the costs; the others are what they are fitted to."""
        return zlib.crc32(self.name.encode()) % 2 == 1

    def case(self, seed: int, quick: bool) -> Case:
        """The loop of a seed."""
        return self.draw(Sizes(self.name, seed, quick))


class Sizes:
    """Draws sizes, and arrays of them."""

    def __init__(self, name: str, seed: int, quick: bool) -> None:
        self.random = np.random.default_rng((zlib.crc32(name.encode()), seed))
        self.quick = quick

    def between(self, least: int, most: int) -> int:
        """A number, as likely small as large."""
        drawn = np.exp(self.random.uniform(np.log(least), np.log(most + 1)))
        return least if self.quick else int(drawn)

    def steps(self, least: int = 100, most: int = 4000) -> int:
        """The number of steps."""
        drawn = self.between(least, most)
        return 12 if self.quick else drawn

    def normal(self, *shape: int, scale: float = 1.0) -> jax.Array:
        """Float32 noise."""
        return jnp.asarray(scale * self.random.standard_normal(shape), jnp.float32)

    def weight(self, *shape: int) -> jax.Array:
        """A matrix that keeps the size of what it is multiplied with."""
        return self.normal(*shape, scale=0.9 / shape[0] ** 0.5)

    def below(self, most: int, *shape: int) -> jax.Array:
        """Whole numbers."""
        return jnp.asarray(self.random.integers(most, size=shape), jnp.int32)

    def key(self) -> jax.Array:
        """A random key."""
        return jax.random.key(int(self.random.integers(2**31)))


FAMILIES: list[Family] = []


def family(name: str, gradient: bool = True) -> Callable[[Any], Any]:
    """Adds the decorated function, which draws a `Case`, to `FAMILIES`."""

    def register(draw: Callable[[Sizes], Case]) -> Callable[[Sizes], Case]:
        FAMILIES.append(Family(name, draw, gradient))
        return draw

    return register


def last(carry: Any, rows: Any) -> Any:
    """Reads the last carry alone."""
    return carry
