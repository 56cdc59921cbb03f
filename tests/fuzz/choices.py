"""The choices that make one random program: from a seed, or given again.

A generator asks for nothing but `below`; the choices it was given can be recorded,
changed and given again, and that is all that shrinking needs. The first of what
there is to choose from is meant to be the simplest.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


class Choices:
    """Choices of a seed, or those of a list; after its end always the first.

    Attributes:
        taken: The choices made so far.
    """

    def __init__(self, seed: int | None = None, given: Sequence[int] = ()) -> None:
        self._random = None if seed is None else random.Random(seed)
        self._given = given
        self.taken: list[int] = []

    def below(self, bound: int) -> int:
        """One of the numbers ``0, ..., bound - 1``."""
        place = len(self.taken)
        if self._random is not None:
            choice = self._random.randrange(bound)
        else:
            choice = self._given[place] if place < len(self._given) else 0
        self.taken.append(min(choice, bound - 1))
        return self.taken[-1]

    def pick(self, items: Sequence[T]) -> T:
        """One of the items."""
        return items[self.below(len(items))]

    def between(self, low: int, high: int) -> int:
        """A whole number, both ends included; the lowest is the simplest."""
        return low + self.below(high - low + 1)

    def rarely(self, one_in: int = 4) -> bool:
        """True once in so many times; False is simpler."""
        return self.below(one_in) == one_in - 1

    def many(self, make: Callable[[], T], low: int, high: int) -> list[T]:
        """Between `low` and `high` things."""
        return [make() for _ in range(self.between(low, high))]


def shrunk(taken: list[int], fails: Callable[[list[int]], bool]) -> list[int]:
    """Simpler choices that still fail: fewer of them, and more that are the first."""
    improved = True
    while improved:
        improved = False
        for candidate in _simpler(taken):
            if fails(candidate):
                taken, improved = candidate, True
                break
    return taken


def _simpler(taken: list[int]) -> Iterator[list[int]]:
    """What to try in place of some choices, the boldest first."""
    for size in (16, 8, 4, 2, 1):
        for start in range(0, len(taken) - size + 1, max(1, size // 2)):
            yield taken[:start] + taken[start + size :]
    for place in (p for p, choice in enumerate(taken) if choice):
        for smaller in sorted({0, taken[place] // 2, taken[place] - 1}):
            if smaller < taken[place]:
                yield [*taken[:place], smaller, *taken[place + 1 :]]
