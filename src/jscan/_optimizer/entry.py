"""The entry points, for traced programs: `rewrite` them, or `report` on it."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import jax

from jscan._base.kinds import counted
from jscan._jax.jaxprs import avals_of, every_equation, open_jaxpr, run_jaxpr
from jscan._jax.marks import is_plain, lowering_rule, marked
from jscan._jax.places import place_of
from jscan._jax.scans import has_loops, is_scan
from jscan._optimizer.analysis.placement import (
    explicit_axes,
    is_split_when_compiled,
    known_mesh,
)
from jscan._optimizer.analysis.size import measure
from jscan._optimizer.costs.flops import counted_flops
from jscan._optimizer.costs.machines import is_measured
from jscan._optimizer.costs.tables import table_name
from jscan._optimizer.options import Options
from jscan._optimizer.planning.timing import Budget
from jscan._optimizer.program.behind import finished
from jscan._optimizer.program.session import Record, Session
from jscan._optimizer.program.walk import rewritten
from jscan._optimizer.record.context import Context
from jscan._optimizer.record.names import loop_name
from jscan._optimizer.reports.measuring import Runs
from jscan._optimizer.reports.report import LoopReport, Report
from jscan._optimizer.switches import attempt, enabled, failure


def rewrite(
    closed_jaxpr: Any,
    *,
    platform: str,
    options: Options | None = None,
    is_split: bool = False,
) -> Any:
    """Rewrite the loops of a traced program.

    Never raises for a program it does not understand: that part, or the whole, comes
    back as it was (`JSCAN_DEBUG=1` raises instead).

    Args:
        closed_jaxpr: The program, as `jax.make_jaxpr` returns it.
        platform: Where it will run: `"cpu"`, `"cuda"`, ...
        options: Passes and memory budget; `None` for the defaults.
        is_split: Whether the compiler splits its arrays over devices.

    Returns:
        A program with the same inputs and outputs, weak types included.
    """
    context = Context(options or Options(), platform, is_split=is_split)
    return _rewrite(closed_jaxpr, _session(closed_jaxpr, context))[0]


def _session(closed_jaxpr: Any, context: Context) -> Session:
    """What a rewrite starts with; a program of unknown size counts as a large one."""
    opened, _ = open_jaxpr(closed_jaxpr)
    count: Any = attempt(lambda: counted_flops(opened.eqns), lambda _: None)
    is_small = isinstance(count, int) and count < context.machine.dispatched_flops
    about = {"counted": count} if is_small else {"is_dispatched": True}
    context = dataclasses.replace(context, **about)
    return Session(context, budget=Budget(context.options.plan_ms / 1000))


def _rewrite(closed_jaxpr: Any, session: Session) -> tuple[Any, str | None]:
    """The rewritten program, and why it is the old one if it is."""
    opened, _ = open_jaxpr(closed_jaxpr)
    if not enabled():
        return closed_jaxpr, "the optimizer is switched off by JSCAN_OPTIMIZE=0"
    if lowering_rule() is None:
        return closed_jaxpr, "this version of JAX lowers programs in another way"
    options, platform = session.context.options, session.context.platform
    if options.unasked and not options.measures and not is_measured(platform):
        return closed_jaxpr, f"on {platform} its gains are unknown"
    if not has_loops(opened):
        return closed_jaxpr, None
    if session.context.is_split and known_mesh(opened) is None:
        return closed_jaxpr, (
            "the compiler splits its arrays over devices, on a mesh that only "
            "in_shardings or out_shardings name; jax.set_mesh tells it in time"
        )
    axes = explicit_axes(opened)
    if axes:
        return closed_jaxpr, (
            f"its arrays lie on mesh axes of the type Explicit ({', '.join(axes)}), "
            "where each new operation would have to say how its result is split; "
            "with axes of the type Auto, or in jax.shard_map, loops are rewritten"
        )
    return attempt(
        lambda: (finished(session, rewritten(session, closed_jaxpr)), None),
        lambda error: (closed_jaxpr, failure(error)),
    )


def report(
    closed_jaxpr: Any,
    *,
    platform: str,
    options: Options,
    operands: Sequence[Any] | None = None,
) -> Report:
    """What `rewrite` does to the loops of a traced program, and what not, and why.

    The program is compiled twice, to ask XLA for its temporary memory, and not run.
    Its `operands` are given where their placement matters; else types will do.
    """
    opened, _ = open_jaxpr(closed_jaxpr)
    given = avals_of(opened.invars) if operands is None else operands
    before = _compiled(closed_jaxpr, given)
    split = is_split_when_compiled(before)
    session = _session(closed_jaxpr, Context(options, platform, is_split=split))
    new, failed = _rewrite(closed_jaxpr, session)
    loops = tuple(map(_loop_report, itertools.count(1), session.tree()))
    programs = before, _compiled(new, given)
    analyses: list[Any] = [program.memory_analysis() for program in programs]
    memory = None
    if None not in analyses:
        memory = analyses[0].temp_size_in_bytes, analyses[1].temp_size_in_bytes
    seconds, others = dict(session.context.seconds), _others(opened, bool(loops))
    runs = Runs(programs, operands, bool(opened.effects))
    costs = table_name(options.machine)
    return Report(loops, memory, failed, seconds, others, costs=costs, _runs=runs)


def _loop_report(position: int, loop: Record) -> LoopReport:
    around = loop.around[-1].before.scope if loop.around else ""
    return LoopReport(
        name=loop_name(loop.before.scope, position, around),
        steps=loop.before.length,
        notes=loop.after.notes,
        before=measure(loop.before),
        after=measure(loop.after, loop.before.length),
        place=place_of(loop.equation.source_info),
        depth=len(loop.around),
        timing=loop.verdict,
    )


def _others(jaxpr: Any, has_listed: bool) -> str | None:
    """Loops that a report does not list, and why."""
    found = [e for outer in jaxpr.eqns for e in every_equation(outer)]
    stopping = sum(e.primitive.name == "while" for e in found)
    texts = []
    if stopping:
        texts.append(f"{counted(stopping, 'loop')} of unknown length as written")
    if any(map(is_plain, found)):
        texts.append("loops with mode='FAST_COMPILE' as written")
    if not has_listed and any(map(is_scan, found)):
        texts.append("no step computes anything for the results, so none is run")
    return "; ".join(texts) or None


def _compiled(closed_jaxpr: Any, operands: Sequence[Any]) -> Any:
    def as_it_is(*values: Any) -> list[Any]:
        return run_jaxpr(closed_jaxpr, *values)

    return jax.jit(marked(as_it_is)).lower(*operands).compile()
