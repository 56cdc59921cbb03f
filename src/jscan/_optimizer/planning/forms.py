"""The forms in which a loop is tried: as the rules write it at other costs."""

from __future__ import annotations

from dataclasses import dataclass, replace

from jscan._optimizer import rules
from jscan._optimizer.options import Options
from jscan._optimizer.record.verdict import AS_WRITTEN, ESTIMATED

_WITHOUT = " without "
# These take work or memory away for nothing, or prepare what others do.
_ALWAYS = ("merge", "save_memory", "hoist.constants", "hoist.return_pieces")


@dataclass(frozen=True)
class Form:
    """One way to write a loop; its name says all of it.

    Attributes:
        leaning: The costs that the rules go by: see `costs/leanings.py`.
        without: Rules that are switched off.
    """

    leaning: str
    without: tuple[str, ...] = ()

    @classmethod
    def named(cls, name: str) -> Form:
        """The form of a name."""
        leaning, *without = name.split(_WITHOUT)
        return cls(leaning, tuple(without))

    @property
    def name(self) -> str:
        """What reports call it."""
        return _WITHOUT.join((self.leaning, *self.without))

    def options(self, options: Options) -> Options:
        """The caller's choices, by which this form is written."""
        options = replace(options, plan="estimate")
        if not self.without:
            return options
        asked = rules.DEFAULT if options.passes is None else options.passes
        names = (n for n in rules.RULE_NAMES if {n, n.partition(".")[0]} & asked)
        return replace(options, passes=frozenset(names) - {*self.without})

    def fewer(self, fired: list[str]) -> list[Form]:
        """The same, each time without one of the rules that changed the loop."""
        names = [n for n in dict.fromkeys(fired) if not n.startswith(_ALWAYS)]
        return [replace(self, without=(*self.without, name)) for name in names]


WRITTEN, ESTIMATE = Form(AS_WRITTEN), Form(ESTIMATED)
FIRST = (WRITTEN, ESTIMATE, Form("eager"), Form("cautious"))
