"""How many functions of a program are ready at once, as XLA's CPU executor runs it.

The compiled program is a list of functions, one for each group of operations that are
fused, each with those it waits for. Those that wait for nothing are done in order.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jscan._jax.jaxprs import is_variable
from jscan._jax.operations import TRANSCENDENTAL
from jscan._jax.scans import is_scan, read_scan
from jscan._optimizer.analysis.index import Flat
from jscan._optimizer.costs.functions import is_fused

BITCASTS = frozenset({"reshape", "squeeze"})
"""What changes a shape alone, and is no function."""


def most_ready(flat: Flat) -> int:
    """The most functions of a program that wait for nothing while another one runs."""
    return _most(_Functions(flat).waits)


@dataclass
class _Functions:
    """The functions of a program, and for which of them each one waits."""

    flat: Flat
    waits: dict[Hashable, set[Hashable]] = field(default_factory=dict)
    behind: dict[Any, frozenset[Hashable]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        fixed: set[Any] = set()
        for equation in self.flat.equations:
            operands = list(filter(is_variable, equation.invars))
            if is_scan(equation):
                self._loop(equation, fixed)
            elif not equation.effects and fixed.issuperset(operands):
                fixed.update(equation.outvars)
            elif self._is_one(equation):
                self._function(id(equation), operands, equation.outvars)
            else:
                found = frozenset().union(*map(self._made_by, operands))
                self.behind.update(dict.fromkeys(equation.outvars, found))

    def _made_by(self, variable: Any) -> frozenset[Hashable]:
        return self.behind.get(variable, frozenset())

    def _function(
        self, name: Hashable, operands: Sequence[Any], results: Sequence[Any]
    ) -> None:
        self.waits[name] = set().union(*map(self._made_by, operands))
        self.behind.update(dict.fromkeys(results, frozenset({name})))

    def _is_one(self, equation: Any) -> bool:
        """Whether an equation is a function that others wait for."""
        name = equation.primitive.name
        if name in BITCASTS:
            return False
        if not is_fused(equation):
            return True
        for variable in equation.outvars:
            readers = self.flat.readers.get(variable, ())
            if readers is None:
                return True
            several = len(readers) > 1 and name in TRANSCENDENTAL
            if several or any(map(self._stores, readers)):
                return True
        return False

    def _stores(self, reader: Any) -> bool:
        """Whether a reader reads what is stored, in whatever shape."""
        if reader.primitive.name in BITCASTS:
            behind = self.flat.readers.get(reader.outvars[0], ())
            return behind is None or any(map(self._stores, behind))
        return is_scan(reader) or not is_fused(reader)

    def _loop(self, loop: Any, fixed: set[Any]) -> None:
        """A loop copies what it starts from, and fills what it writes to with zeros."""
        read = read_scan(loop)
        start, end = read.num_constants, read.num_constants + read.num_carry
        waits: set[Hashable] = set()
        self.waits.setdefault("counter", set())
        waits.add(self._named(("counter", id(loop)), {"counter"}))
        for number, atom in enumerate(loop.invars):
            variable = is_variable(atom)
            made = self._made_by(atom) if variable else frozenset()
            is_state = start <= number < end
            if variable and atom in fixed and atom.aval.size > 1:
                waits.add(self._filled(atom, (id(loop), number)) if is_state else "")
            elif is_state and not made:
                waits.add(self._named((id(loop), number), set()))
            waits |= made
        for number, row in enumerate(loop.outvars[read.num_carry :]):
            waits.add(self._filled(row, (id(loop), "row", number)))
        name = id(loop)
        self.waits[name] = waits - {""}
        self.behind.update(dict.fromkeys(loop.outvars, frozenset({name})))

    def _filled(self, array: Any, copy: Hashable) -> Hashable:
        """Zeros: one function makes them, and others copy those."""
        kind = ("zeros", array.aval.shape, str(array.aval.dtype))
        if kind not in self.waits:
            return self._named(kind, set())
        return self._named(copy, {kind})

    def _named(self, name: Hashable, waits: set[Hashable]) -> Hashable:
        self.waits[name] = waits
        return name


def _most(waits: Mapping[Hashable, set[Hashable]]) -> int:
    """The longest that the list of what is ready becomes."""
    left = {name: len(others) for name, others in waits.items()}
    freed = defaultdict(list)
    for name, others in waits.items():
        for other in others:
            freed[other].append(name)
    ready, most = deque(name for name, count in left.items() if not count), 0
    while ready:
        done = ready.popleft()
        most = max(most, len(ready))
        for name in freed[done]:
            left[name] -= 1
            if not left[name]:
                ready.append(name)
    return most
