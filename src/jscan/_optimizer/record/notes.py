"""What rules say of what they did, and of what they left alone."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Note:
    """One decision of one rule: whether it fired, and why in a plain sentence.

    Attributes:
        fired: Whether the rule changed the loop.
        text: What was done, or why not.
        rule: The rule; who notes something need not know its own name.
    """

    fired: bool
    text: str
    rule: str = ""

    def __setstate__(self, state: dict[str, Any]) -> None:
        """In pickles of 0.1.0 a note names the family alone."""
        family = state.pop("pass_name", "")
        self.__dict__.update({"rule": family, **state})

    @property
    def pass_name(self) -> str:
        """The rule's family, by which it is switched on and off."""
        return self.rule.partition(".")[0]


def signed(notes: Iterable[Note], rule: str) -> tuple[Note, ...]:
    """The notes, each once; the new ones are those of this rule."""
    names = (note if note.rule else replace(note, rule=rule) for note in notes)
    return tuple(dict.fromkeys(names))
