"""How many functions of a program are ready at once, as XLA's CPU executor runs it.

The compiled program is a list of functions, one for each group of operations that are
fused, each with those it waits for. Those that wait for nothing are done in order.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jscan._jax.jaxprs import is_variable
from jscan._jax.operations import TRANSCENDENTAL
from jscan._jax.scans import is_scan, read_scan
from jscan._optimizer.analysis.index import Flat
from jscan._optimizer.costs.fusions import is_fused

_CAST = "convert_element_type"
BITCASTS = frozenset({"reshape", "squeeze"})
"""What changes a shape alone, and is no function."""


def most_ready(flat: Flat) -> int:
    """The most functions of a program that wait for nothing while another one runs."""
    return _most(_Functions(flat).waits)


@dataclass
class _Functions:
    """The functions of a program, and for which of them each one waits.

    Attributes:
        waits: The names of those, by the name of the function.
        stored: By variable, the functions for which one waits that reads it stored.
        fused: The same of one that works it out again, if that is cheap.
    """

    flat: Flat
    waits: dict[Hashable, set[Hashable]] = field(default_factory=dict)
    stored: dict[Any, frozenset[Hashable]] = field(default_factory=dict)
    fused: dict[Any, frozenset[Hashable]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        constant: set[Any] = set()
        for equation in self.flat.equations:
            operands = list(filter(is_variable, equation.invars))
            if is_scan(equation):
                self._loop(equation)
                continue
            if is_filled(equation, constant):
                constant.update(equation.outvars)
            elif self._is_one(equation):
                self._function(equation, operands)
            else:
                found = self._made_by(operands, self.fused)
                self._note(equation.outvars, found, found)

    def _made_by(self, variables: Iterable[Any], made: Any) -> frozenset[Hashable]:
        return frozenset().union(*(made.get(v, ()) for v in variables))

    def _note(self, variables: Any, stored: Any, fused: Any) -> None:
        self.stored.update(dict.fromkeys(variables, stored))
        self.fused.update(dict.fromkeys(variables, fused))

    def _function(self, equation: Any, operands: Sequence[Any]) -> None:
        name, is_cheap = id(equation), is_fused(equation)
        waits = self._made_by(operands, self.fused if is_cheap else self.stored)
        self.waits[name] = {*waits}
        again = is_cheap and equation.primitive.name not in TRANSCENDENTAL
        itself = frozenset({name})
        self._note(equation.outvars, itself, waits if again else itself)

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

    def _loop(self, loop: Any) -> None:
        """A loop copies what it starts from, and fills what it writes to with zeros."""
        read, name = read_scan(loop), id(loop)
        start, end = read.num_constants, read.num_constants + read.num_carry
        self.waits.setdefault("counter", set())
        waits = {self._named(("counter", name), {"counter"})}
        for number, atom in enumerate(loop.invars):
            made = self._made_by([atom], self.stored) if is_variable(atom) else ()
            waits |= {*made}
            if start <= number < end and not made:
                copy = name, number
                is_array = is_variable(atom) and atom in self.flat.producers
                new = self._filled(atom, copy) if is_array else self._named(copy, set())
                waits.add(new)
        for number, row in enumerate(loop.outvars[read.num_carry :]):
            waits.add(self._filled(row, (name, "row", number)))
        self.waits[name] = waits
        self._note(loop.outvars, frozenset({name}), frozenset({name}))

    def _filled(self, array: Any, copy: Hashable) -> Hashable:
        """Zeros: one function makes them, and others copy those."""
        kind = ("zeros", array.aval.shape, str(array.aval.dtype))
        if kind not in self.waits:
            return self._named(kind, set())
        return self._named(copy, {kind})

    def _named(self, name: Hashable, waits: set[Hashable]) -> Hashable:
        self.waits[name] = waits
        return name


def is_filled(equation: Any, constant: Collection[Any]) -> bool:
    """Whether an equation fills an array with one number, or makes such one of others.

    The compiler works those out, or copies them from where it has filled one.
    """
    operands = [a for a in equation.invars if is_variable(a)]
    spreads = equation.primitive.name in (*BITCASTS, "broadcast_in_dim", _CAST)
    return spreads and all(v in constant for v in operands)


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
