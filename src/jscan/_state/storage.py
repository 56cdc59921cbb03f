"""The stored values of several variables, read and written at one moment."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from itertools import repeat
from operator import attrgetter
from typing import TYPE_CHECKING

from jscan._base.types import PyTree

if TYPE_CHECKING:
    from jscan._state.variables import SharedVariable


_stored = attrgetter("stored")


def values_of(variables: Iterable[SharedVariable]) -> list[PyTree]:
    """The stored values of variables, all of one moment."""
    return list(map(_stored, variables))


def store(new: Mapping[SharedVariable, PyTree]) -> None:
    """Store the values of several variables, all of them or none.

    It is one call of C code: no other thread and no signal handler gets in between.
    """
    old = values_of(new)  # to free memory may run Python code: not before the end
    deque(map(setattr, new, repeat("stored"), new.values()), maxlen=0)
    del old
