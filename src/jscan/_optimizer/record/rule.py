"""What a rule is: a name, what it does, and why it stands where it stands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jscan._optimizer.options import Options


@dataclass(frozen=True)
class Rule:
    """One rule of the optimizer.

    Attributes:
        name: Its family and its own name, `"hoist.cut_rows"`; of a family of one rule
            just that. Either switches it on.
        run: Takes what is rewritten and its `Context`; returns it changed, with notes.
        reason: Why it stands here.
        otherwise: What runs in its place where nobody asked for it.
        mixes: It joins, cuts or folds axes: devices that hold parts of them would have
            to exchange what they have.
        opt_in: It changes rounding more than others, and runs only when asked for.
    """

    name: str
    run: Callable[..., Any]
    reason: str
    otherwise: Callable[..., Any] | None = None
    mixes: bool = False
    opt_in: bool = False

    @property
    def family(self) -> str:
        """The rules it is switched on and off with."""
        return self.name.partition(".")[0]

    def chosen(self, options: Options) -> Callable[..., Any] | None:
        """What is to be run in its place, as the caller chose."""
        names = options.passes
        is_asked = not self.opt_in
        if names is not None:
            is_asked = not names.isdisjoint((self.name, self.family))
        return self.run if is_asked else self.otherwise
