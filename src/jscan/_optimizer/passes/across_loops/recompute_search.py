"""Which rows of an earlier loop a later one can compute again, and from what."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jscan._jax.equations import free_variables, renamed, unique_variables
from jscan._jax.jaxprs import Atom, Var, is_variable, number_of_bytes, variable_like
from jscan._jax.operations import CHEAPER_THAN_A_ROW
from jscan._optimizer.analysis.index import Flat, loop_in
from jscan._optimizer.record.loop import Loop, Stack

LONGEST = 12
"""Operations in which a row is computed again."""

_WIDE = 32
"""Elements from which a row that is not stored gains, though another one is read."""


@dataclass
class Again:
    """Rows that a loop computes itself.

    Attributes:
        gone: The loop's variables that are no longer read from outside.
        read: Variables it reads instead, with the operand outside.
        fixed: The same for what does not change from step to step.
        equations: What computes the rows, at the beginning of a step.
    """

    gone: list[Any] = field(default_factory=list)
    read: dict[Any, Any] = field(default_factory=dict)
    fixed: dict[Any, Any] = field(default_factory=dict)
    equations: list[Any] = field(default_factory=list)


class Search:
    """What `loop` can compute again of the rows of one earlier loop.

    Rows of fewer elements than `least` are stored.
    """

    def __init__(
        self, loop: Loop, equation: Any, earlier: Any, flat: Flat, least: int
    ) -> None:
        self.loop = loop
        self.earlier = loop_in(flat, earlier)
        self.producers = {v: e for e in self.earlier.equations for v in e.outvars}
        self.place = {id(e): n for n, e in enumerate(self.earlier.equations)}
        # Rows stored for this loop alone, in the order in which they are made.
        self.stacks = {
            name: result.atom
            for name, result in self.earlier.results.items()
            if isinstance(result, Stack) and is_variable(result.atom)
        }
        alone = {
            v
            for v in self.stacks
            if flat.readers.get(v) == (equation,) and equation.invars.count(v) == 1
        }
        order = {v: i for i, v in enumerate(self.producers)}
        self.candidates = sorted(
            (
                v
                for v, o in loop.sequences.items()
                if o in alone and v.aval.size >= least
            ),
            key=lambda v: order.get(self.stacks[loop.sequences[v]], -1),
        )
        # What can be had: by variable of the earlier loop, the operand outside.
        self.rows = {a: v for v, a in self.stacks.items()}
        self.rows |= {v: o for v, o in self.earlier.sequences.items() if is_variable(o)}
        constants = self.earlier.constants.items()
        self.constants = {v: o for v, o in constants if isinstance(o, Var)}

    def run(self, again: Again) -> None:
        """Add to `again` what pays, the rows made first first."""
        here = {outer: v for v, outer in self.loop.sequences.items()}
        names: dict[Any, Any] = {}
        for variable in self.candidates:
            outer = self.loop.sequences[variable]
            atom = self.stacks[outer]
            work = self._work(atom, names)
            if work is None:
                continue
            leaves = [v for v in free_variables(work) if v not in names]
            new = [v for v in leaves if v in self.rows and self.rows[v] not in here]
            if not _gains(variable, new):
                continue
            for leaf in leaves:
                row = self.rows.get(leaf)
                names[leaf] = here[row] if row in here else variable_like(leaf)
                if row is None:
                    again.fixed[names[leaf]] = self.constants[leaf]
                elif row not in here:
                    here[row] = names[leaf]
                    again.read[names[leaf]] = row
            again.equations += renamed(work, names, {atom: variable})
            again.gone.append(variable)
            del here[outer]

    def _work(self, atom: Atom, names: Mapping[Any, Any]) -> list[Any] | None:
        """The operations that give a row again; `None` if that is not cheap."""
        if atom not in self.producers or atom in names:
            return None
        found: dict[int, Any] = {}
        pending, seen = [atom], {atom}
        while pending:
            producer = self.producers[pending.pop()]
            cheap = producer.primitive.name in CHEAPER_THAN_A_ROW
            if not cheap or len(producer.outvars) != 1:
                return None
            found[id(producer)] = producer
            for operand in unique_variables(producer.invars):
                if operand in seen or self._at_hand(operand, atom, names):
                    continue
                if operand not in self.producers or len(found) >= LONGEST:
                    return None
                seen.add(operand)
                pending.append(operand)
        return sorted(found.values(), key=lambda e: self.place[id(e)])

    def _at_hand(self, operand: Any, atom: Atom, names: Mapping[Any, Any]) -> bool:
        if operand in names:
            return True
        if operand in self.constants:
            return number_of_bytes(operand) <= number_of_bytes(atom)
        return operand in self.rows


def _gains(row: Any, read: Sequence[Any]) -> bool:
    """Whether computing a row again gains when these rows have to be read for it."""
    saved = number_of_bytes(row) - sum(map(number_of_bytes, read))
    # For a few numbers, reading others instead gains less than the work takes.
    return saved > 0 or (saved == 0 and row.aval.size >= _WIDE)
