"""save_memory, across loops: rows that a later loop can compute again are not stored.

The derivative of a loop reads what its forward loop kept: for a gate ``s`` both ``s``
and ``s * (1 - s)``. The second is two multiplications away from the first, which costs
less than writing a row in one loop and reading it in another. Rows that are made
between loops (`absorbed_rows.py`) are treated alike.

This happens before the walk through the program, as `siblings.py` does: the later loop
is written again to read fewer rows, and the earlier one then has fewer to hand out.
"""

from dataclasses import replace
from typing import Any

from jscan._base.kinds import counted
from jscan._jax.equations import splice, unique_variables
from jscan._jax.jaxprs import Literal, Var, is_variable
from jscan._jax.scans import is_scan
from jscan._jax.written import expanded
from jscan._optimizer.analysis.at_once import has_effects
from jscan._optimizer.analysis.index import Flat, loop_in
from jscan._optimizer.passes.across_loops.absorbed_rows import absorb
from jscan._optimizer.passes.across_loops.recompute_search import Again, Search
from jscan._optimizer.record.context import Context
from jscan._optimizer.record.loop import Loop, Note
from jscan._optimizer.writing.loops import emit


def run(flat: Flat, context: Context) -> Flat:
    """Let loops compute again what an earlier loop stored for them alone."""
    before = flat
    for equation in filter(is_scan, before.equations):
        if not _reads_alone(equation, flat):
            continue
        loop = loop_in(flat, equation)
        if loop.length < 2 or has_effects(loop) or loop.recomputes:
            continue
        again = Again()
        for earlier in _earlier_loops(equation, flat):
            least = context.machine.smallest_again
            Search(loop, equation, earlier, flat, least).run(again)
        stored = len(again.gone)
        absorb(loop, equation, flat, again)
        if not again.gone:
            continue
        new = _written_again(equation, loop, again, context)
        (written,) = filter(is_scan, new)
        flat = flat.exchanged(equation, new)
        texts = (
            _of_rows(again.gone[:stored], "computed again, not stored"),
            _of_rows(again.gone[stored:], "made in the step that reads them"),
        )
        flat = flat.noted(written, Note(True, "; ".join(filter(None, texts))))
    return flat if flat is before else flat.with_equations(flat.equations)


def _reads_alone(equation: Any, flat: Flat) -> bool:
    """Whether a loop reads something that is computed for it alone."""
    here = (equation,)
    alone = (v for v in unique_variables(equation.invars) if v in flat.producers)
    return any(flat.readers.get(v) == here for v in alone)


def _of_rows(gone: list[Any], what: str) -> str:
    rows = ", ".join(sorted({v.aval.str_short() for v in gone}))
    return f"{counted(len(gone), 'row')} a step, {rows}: {what}" if rows else ""


def _earlier_loops(equation: Any, flat: Flat) -> list[Any]:
    """The loops of as many steps that make something a loop reads."""
    made = (flat.producers.get(v) for v in unique_variables(equation.invars))
    loops = {id(e): e for e in made if e and is_scan(e)}.values()
    return [e for e in loops if e.params["length"] == equation.params["length"]]


def _written_again(
    equation: Any, loop: Loop, again: Again, context: Context
) -> list[Any]:
    """The equations of a loop that computes some of its rows itself."""
    kept = {v: o for v, o in loop.sequences.items() if v not in again.gone}
    loop = replace(
        loop,
        sequences={**kept, **again.read},
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
            carries=tuple(replace(c, initial=of(c.initial)) for c in loop.carries),
            memo={},  # or it would keep what it finds about these values
        )
        results = emit(given, context)
        return [results[v] for v in outputs]

    return expanded(splice(run, operands, equation, outputs))


def _is_operand(value: Any) -> bool:
    """Whether a value of a record is an operand, not a constant of the step."""
    return isinstance(value, Var | Literal)
