"""Mistakes of users, each with what its error has to say and the program as mended."""

from collections.abc import Callable
from typing import Any, NamedTuple


class Mistake(NamedTuple):
    """A wrong program, words its error must hold, and what its fix makes of it.

    Words are regular expressions; the error has its place, what was needed or came,
    and the fix among them. `raised` is the built-in type that a caller would catch.

    Grade A: the error holds all of these; B: one of them is missing, or a word that
    the user has to look up stands for it.
    """

    wrong: Callable[[], Any]
    words: tuple[str, ...]
    right: Callable[[], Any]
    raised: type[Exception] | tuple[type[Exception], ...] = (TypeError, ValueError)
    grade: str = "A"


Table = dict[str, Mistake]
