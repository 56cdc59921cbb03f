"""What a rule is told about its surroundings."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from jscan._optimizer.costs.leanings import leaning
from jscan._optimizer.costs.machine import Machine
from jscan._optimizer.costs.tables import machine_by
from jscan._optimizer.options import Options


@dataclass(frozen=True)
class Context:
    """What a rule sees besides its loop.

    Attributes:
        options: The caller's choices.
        platform: Where the program will run (`"cpu"`, `"cuda"`, ...).
        consumers: For each variable of the program around the loop, the equations
            that read it, or `None` if the program returns it.
        producers: The equation that makes each variable of that program.
        run: Runs a program with its loops optimized.
        finish: Runs all rules on a part of a loop, and then the part.
        scopes: Names of what is around the program that is being rewritten.
        seconds: What each rule has taken so far.
        is_split: The compiler splits arrays over devices, nobody knows how: a rewrite
            must not join, cut or fold an axis that may be split, or devices would
            have to exchange what each of them has.
        is_dispatched: Another thread runs the program, whatever becomes of its loops.
        counted: If not, the operations that XLA counts in it.
        leaning: In which direction the costs are bent, for a form that is tried.
    """

    options: Options
    platform: str
    consumers: Mapping[Any, tuple[Any, ...] | None] = field(default_factory=dict)
    producers: Mapping[Any, Any] = field(default_factory=dict)
    run: Callable[..., list[Any]] | None = None
    finish: Callable[[Any], dict[Any, Any]] | None = None
    scopes: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    is_split: bool = False
    is_dispatched: bool = False
    counted: int = 0
    leaning: str = ""

    @contextmanager
    def inside(self, scope: str) -> Iterator[None]:
        """While a program is rewritten that something of this name holds."""
        self.scopes.append(scope)
        try:
            yield
        finally:
            self.scopes.pop()

    @property
    def machine(self) -> Machine:
        """The cost constants of the platform."""
        machine = machine_by(self.platform, self.options.machine)
        machine = machine.dispatched() if self.is_dispatched else machine
        return leaning(machine, self.leaning)

    @property
    def splits_time(self) -> bool:
        """Whether devices may each do a part of the steps, as `associate` asks."""
        return self.is_split and "associate" in (self.options.passes or ())

    @property
    def budget(self) -> int:
        """Bytes that one rewrite of one loop may add."""
        return self.options.memory_budget
