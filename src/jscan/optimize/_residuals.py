"""save_memory, across loops: rows that a later loop can compute again are not stored.

The derivative of a loop reads what its forward loop kept: for a gate ``s`` both ``s``
and ``s * (1 - s)``. The second is two multiplications away from the first, which costs
less than writing a row in one loop and reading it in another.

This happens before the walk through the program, as `_siblings.py` does: the later loop
is written again to read fewer rows, and the earlier one then has fewer to hand out.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from jscan.optimize._emit import emit
from jscan.optimize._flat import Flat, index
from jscan.optimize._jaxpr import (
    Atom,
    Literal,
    Var,
    is_scan,
    is_variable,
    number_of_bytes,
    renamed,
    splice,
    unique_variables,
    variable_like,
)
from jscan.optimize._loop import Carry, Loop, Note, Stack, has_effects
from jscan.optimize._options import Context
from jscan.optimize._pipeline import debugging, failure
from jscan.optimize._work import CHEAP_ARITHMETIC

NAME = "save_memory"

# A division takes longer than reading a row does.
_CHEAP = CHEAP_ARITHMETIC - {"div", "rem", "nextafter"} | {"broadcast_in_dim"}
_LONGEST = 12
"""Operations in which a row is computed again."""

_WIDE = 32
"""Elements from which a row that is not stored gains, though another one is read."""

Reader = Callable[[Any], Loop]


@dataclass(frozen=True)
class Recomputed:
    """A program whose loops read fewer rows.

    Attributes:
        flat: The program.
        notes: For loops that were written again (by `id`), or could not be: what to
            report.
    """

    flat: Flat
    notes: Mapping[int, Note]


@dataclass(frozen=True)
class _Again:
    """Rows that a loop computes itself.

    Attributes:
        gone: The loop's variables that are no longer read from outside.
        read: Variables it reads instead, with the operand outside.
        fixed: The same for what does not change from step to step.
        equations: What computes the rows, at the beginning of a step.
    """

    gone: tuple[Any, ...]
    read: Mapping[Any, Any]
    fixed: Mapping[Any, Any]
    equations: tuple[Any, ...]


def recompute(flat: Flat, read: Reader, context: Context) -> Recomputed:
    """Let loops compute again what an earlier loop stored for them alone.

    Args:
        flat: The program.
        read: Gives the record of a loop, with operands in place of values.
        context: Options, platform and stage.
    """
    notes: dict[int, Note] = {}
    loops = [e for e in flat.equations if is_scan(e)]
    if NAME not in context.options.passes or context.stage == "trace":
        loops = []
    for equation in loops:
        try:
            again = _plan(equation, flat, read)
            if again is None:
                continue
            new = _written_again(equation, read(equation), again, context)
        except Exception as error:
            if debugging():
                raise
            notes[id(equation)] = Note(NAME, fired=False, text=failure(error))
            continue
        (loop,) = (e for e in new if is_scan(e))
        rows = ", ".join(sorted({v.aval.str_short() for v in again.gone}))
        text = f"{len(again.gone)} row(s) a step, {rows}: computed again, not stored"
        notes[id(loop)] = Note(NAME, fired=True, text=text)
        here = flat.equations.index(equation)
        others = flat.equations
        flat = index([*others[:here], *new, *others[here + 1 :]], flat.outputs)
    return Recomputed(flat, notes)


def _plan(equation: Any, flat: Flat, read: Reader) -> _Again | None:
    """What one loop can compute again, from the earlier loops it reads rows of."""
    made = (flat.producers.get(v) for v in unique_variables(equation.invars))
    earlier = {id(e): e for e in made if e and is_scan(e) and _alike(e, equation)}
    if not earlier:
        return None
    loop = read(equation)
    if has_effects(loop) or loop.recomputes:
        return None
    plans = [_Search(loop, equation, e, flat, read).run() for e in earlier.values()]
    plans = [plan for plan in plans if plan.gone]
    if not plans:
        return None
    return _Again(
        gone=tuple(v for plan in plans for v in plan.gone),
        read={k: v for plan in plans for k, v in plan.read.items()},
        fixed={k: v for plan in plans for k, v in plan.fixed.items()},
        equations=tuple(e for plan in plans for e in plan.equations),
    )


def _alike(one: Any, other: Any) -> bool:
    return one.params["length"] == other.params["length"]


class _Search:
    """What `loop` can compute again of the rows of one earlier loop."""

    def __init__(
        self, loop: Loop, equation: Any, earlier: Any, flat: Flat, read: Reader
    ) -> None:
        self.loop = loop
        self.earlier = read(earlier)
        self.producers = {v: e for e in self.earlier.equations for v in e.outvars}
        # Rows stored for this loop alone, in the order in which they are made.
        stacks = {
            name: result.atom
            for name, result in self.earlier.results.items()
            if isinstance(result, Stack) and is_variable(result.atom)
            # Not what another loop has just ceased to read.
            if name in flat.readers
        }
        alone = {
            v
            for v in stacks
            if flat.readers.get(v) == (equation,) and equation.invars.count(v) == 1
        }
        order = {v: i for i, v in enumerate(self.producers)}
        self.candidates = sorted(
            (v for v, o in loop.sequences.items() if o in alone),
            key=lambda v: order.get(stacks[loop.sequences[v]], -1),
        )
        self.stacks = stacks
        # What can be had: by variable of the earlier loop, the operand outside.
        self.rows = {a: v for v, a in stacks.items()}
        self.rows |= {
            v: operand
            for v, operand in self.earlier.sequences.items()
            if is_variable(operand)
        }
        self.constants = {
            v: operand
            for v, operand in self.earlier.constants.items()
            if _is_operand(operand) and is_variable(operand)
        }

    def run(self) -> _Again:
        """Take out what pays, the rows made first first."""
        here = {outer: v for v, outer in self.loop.sequences.items()}
        names: dict[Any, Any] = {}
        gone: list[Any] = []
        read: dict[Any, Any] = {}
        fixed: dict[Any, Any] = {}
        equations: list[Any] = []
        for variable in self.candidates:
            outer = self.loop.sequences[variable]
            atom = self.stacks[outer]
            work = self._work(atom, names)
            if work is None:
                continue
            leaves = [
                v
                for v in unique_variables(a for e in work for a in e.invars)
                if v not in {o for e in work for o in e.outvars} and v not in names
            ]
            new = [v for v in leaves if v in self.rows and self.rows[v] not in here]
            if not _gains(variable, new):
                continue
            for leaf in leaves:
                if leaf in self.rows and self.rows[leaf] in here:
                    names[leaf] = here[self.rows[leaf]]
                    continue
                names[leaf] = variable_like(leaf)
                if leaf in self.rows:
                    here[self.rows[leaf]] = names[leaf]
                    read[names[leaf]] = self.rows[leaf]
                else:
                    fixed[names[leaf]] = self.constants[leaf]
            equations += renamed(work, names, {atom: variable})
            gone.append(variable)
            del here[outer]
        return _Again(tuple(gone), read, fixed, tuple(equations))

    def _work(self, atom: Atom, names: Mapping[Any, Any]) -> list[Any] | None:
        """The operations that give a row again; `None` if that is not cheap."""
        if atom not in self.producers or atom in names:
            return None
        found: list[Any] = []
        pending, seen = [atom], {atom}
        while pending:
            producer = self.producers[pending.pop()]
            if producer.primitive.name not in _CHEAP or len(producer.outvars) != 1:
                return None
            found.append(producer)
            for operand in unique_variables(producer.invars):
                if operand in seen or self._at_hand(operand, atom, names):
                    continue
                if operand not in self.producers or len(found) >= _LONGEST:
                    return None
                seen.add(operand)
                pending.append(operand)
        kept = set(map(id, found))
        return [e for e in self.earlier.equations if id(e) in kept]

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


def _written_again(
    equation: Any, loop: Loop, again: _Again, context: Context
) -> list[Any]:
    """The equations of a loop that computes some of its rows itself."""
    loop = replace(
        loop,
        sequences={
            **{v: o for v, o in loop.sequences.items() if v not in again.gone},
            **again.read,
        },
        constants={**loop.constants, **again.fixed},
        equations=(*again.equations, *loop.equations),
    )
    initials = [carry.initial for carry in loop.carries]
    values = [*loop.sequences.values(), *loop.constants.values(), *initials]
    operands = unique_variables(a for a in values if _is_operand(a))
    outputs = list(loop.results)

    def run(*arrays: Any) -> list[Any]:
        value = dict(zip(operands, arrays, strict=True))

        def of(operand: Any) -> Any:
            if not _is_operand(operand):
                return operand  # a constant of the step's program
            return value[operand] if is_variable(operand) else operand.val

        given = replace(
            loop,
            sequences={v: of(o) for v, o in loop.sequences.items()},
            constants={v: of(o) for v, o in loop.constants.items()},
            carries=tuple(
                Carry(c.variable, c.update, of(c.initial)) for c in loop.carries
            ),
        )
        results = emit(given, context)
        return [results[v] for v in outputs]

    return splice(run, operands, equation, outputs)


def _is_operand(value: Any) -> bool:
    """Whether a value of a record is an operand, not a constant of the step."""
    return isinstance(value, Var | Literal)
