"""Walk a whole program and replace each loop by its rewritten form.

Only programs inside known primitives are opened (`jit`, `cond`, `while`, `scan`,
`remat`, `shard_map`, `custom_jvp`, `custom_vjp`). Everything else is run as it is, in
order.
"""

from collections.abc import Sequence, Set
from contextlib import nullcontext
from copy import copy
from dataclasses import replace
from typing import Any

import jax

from jscan._jax.equations import (
    free_variables,
    program,
    with_body,
    with_type_of,
    without_dead_code,
)
from jscan._jax.jaxprs import (
    Atom,
    NotUnderstoodError,
    avals_of,
    holds_wide,
    is_jaxpr,
    is_variable,
    open_jaxpr,
    trace,
)
from jscan._jax.names import eval_jaxpr
from jscan._jax.scans import holds_loop, is_scan
from jscan._jax.written import expanded
from jscan._optimizer.analysis.index import Group, flattened, loop_in
from jscan._optimizer.analysis.placement import is_split_here, whole_in_time
from jscan._optimizer.passes.across_loops.siblings import join, without_unneeded
from jscan._optimizer.pipeline import run_loop_rules, run_rules
from jscan._optimizer.program.behind import settled
from jscan._optimizer.program.planned import Planned
from jscan._optimizer.program.session import Session
from jscan._optimizer.record.context import Context
from jscan._optimizer.record.loop import Loop, without_work
from jscan._optimizer.record.names import called
from jscan._optimizer.record.verdict import AS_WRITTEN, ESTIMATED
from jscan._optimizer.rules import PROGRAM_RULES
from jscan._optimizer.switches import attempt
from jscan._optimizer.writing.loops import emit

# Of a function with a derivative rule, the rule has been used.
_CALLED = frozenset({"custom_jvp_call", "custom_vjp_call"})
_OPENED = _CALLED | {"cond", "while", "remat2", "shard_map"}


def rewritten(session: Session, jaxpr: Any) -> Any:
    """A program of the same signature with its loops rewritten, open as `jaxpr` is."""
    opened, constants = open_jaxpr(jaxpr)

    def function(*operands: Any) -> list[Any]:
        values = Walk(session, opened, constants, operands).run()
        return list(map(with_type_of, values, opened.outvars))

    # A program may compute with 64 bits where the setting of now says 32.
    with jax.enable_x64(True) if holds_wide(opened) else nullcontext():
        new = trace(function, avals_of(opened.invars))
    body, _ = open_jaxpr(new)
    new = with_body(new, expanded(body.eqns), body.outvars)
    new = settled(session, without_dead_code(new))
    if type(new) is type(jaxpr):
        return new
    new, constants = open_jaxpr(new)
    if constants:
        raise NotUnderstoodError("an inner program captured constants")
    return new


class Walk:
    """The walk through one open program."""

    def __init__(
        self,
        session: Session,
        jaxpr: Any,
        constants: Sequence[Any],
        operands: Sequence[Any],
    ) -> None:
        self.session = session
        self.values: dict[Any, Any] = dict(zip(jaxpr.constvars, constants, strict=True))
        self.values.update(zip(jaxpr.invars, operands, strict=True))
        self.flat = run_rules(PROGRAM_RULES, flattened(jaxpr), session.context)
        self.pending: list[Any] = []

    def run(self) -> list[Any]:
        """The results of the program."""
        alone = [(equation,) for equation in self.flat.equations]
        groups = without_unneeded(self.flat.groups or alone, (), self.flat.outputs)
        while groups:
            here, *groups = groups
            if is_scan(here[0]):
                self.flush()
                made = {v for equation in here for v in equation.outvars}
                if not self.loops(here) <= made:
                    # What only led to a result that the loop now gives is not run.
                    groups = without_unneeded(groups, self.values, self.flat.outputs)
            elif here[0].primitive.name in _OPENED and holds_loop(here[0]):
                self.flush()
                self.opened(here[0])
            else:
                self.pending += here
        self.flush()
        return [self.value(atom) for atom in self.flat.outputs]

    def value(self, atom: Atom) -> Any:
        """What an operand is worth here."""
        return self.values[atom] if is_variable(atom) else atom.val

    def flush(self) -> None:
        """Run the equations collected since the last loop."""
        made = [v for e in self.pending for v in e.outvars if v in self.flat.readers]
        values = self._evaluated(self.pending, made)
        self.values.update(zip(made, values, strict=True))
        self.pending = []

    def _evaluated(self, equations: Sequence[Any], outputs: Sequence[Any]) -> list[Any]:
        inputs = free_variables(equations)
        jaxpr = program(inputs, outputs, equations)
        return eval_jaxpr(jaxpr, [], *[self.values[v] for v in inputs])

    def opened(self, equation: Any) -> None:
        """Run an equation whose inner programs hold loops."""

        def run() -> None:
            with self._context().inside(str(equation.source_info.name_stack)):
                values = self._run_opened(equation)
            self.values.update(zip(equation.outvars, values, strict=True))

        as_it_is = self.pending.append
        attempt(run, lambda _: as_it_is(equation), must=bool(equation.effects))

    def _run_opened(self, equation: Any) -> list[Any]:
        operands = [self.value(atom) for atom in equation.invars]
        if equation.primitive.name == "shard_map":
            return self._run_on_mesh(equation.params, operands)
        if equation.primitive.name in _CALLED:
            inner = open_jaxpr(equation.params["call_jaxpr"])
            return Walk(self.session, *inner, operands).run()

        session = self.session
        if equation.primitive.name == "while":
            session = session.where(is_dispatched=True)  # once, not at each step

        def change(value: Any) -> Any:
            if isinstance(value, tuple | list) and any(map(is_jaxpr, value)):
                return type(value)(change(item) for item in value)
            return rewritten(session, value) if is_jaxpr(value) else value

        parameters = {name: change(value) for name, value in equation.params.items()}
        changed = equation.replace(params=parameters)
        return self._evaluated([changed], changed.outvars)

    def _run_on_mesh(self, parameters: Any, operands: list[Any]) -> list[Any]:
        """Run the program of a `jax.shard_map`, whose types JAX alone can give."""
        inner = open_jaxpr(parameters["jaxpr"])

        def run(*values: Any) -> list[Any]:
            session = self.session.where(is_split=is_split_here())
            return Walk(session, *inner, values).run()

        mapped = jax.shard_map(
            run,
            mesh=parameters["mesh"],
            in_specs=parameters["in_specs"],
            out_specs=list(parameters["out_specs"]),
            axis_names=parameters["newly_manual_axes"],
            check_vma=parameters["check_vma"],
        )
        return mapped(*operands)

    def loops(self, group: Group) -> Set[Any]:
        """Run loops as one, rewritten; as they are if that fails.

        Returns the variables that are known then.
        """

        def as_they_are(error: Exception) -> dict[Any, Any]:
            for equation in group:
                self.session.failed(equation, self._loop(equation), error)
            self.pending += group
            return {}

        # An effect may already have been traced: then the whole program is given up.
        traced = any(equation.effects for equation in group)
        measures = self.session.context.options.measures
        run = self._measured if measures else self._rewritten
        values = attempt(lambda: run(group), as_they_are, must=traced)
        self.values.update(values)
        return values.keys()

    def _measured(self, group: Group) -> dict[Any, Any]:
        """The values of loops, in the form that was measured to be fastest."""
        planned = Planned(self.session, self.flat, group, rewritten)
        verdict = planned.verdict()
        if verdict.form == ESTIMATED:
            walk = copy(self)  # loops inside were measured with it, if it was
            walk.session = self.session.settled() if verdict.times else self.session
            values = walk._rewritten(group)
        elif verdict.form == AS_WRITTEN:
            values = {}
            self.pending += group
            for equation in group:
                loop = self._loop(equation)
                self.session.record(equation, loop, loop)
        else:
            return planned.run(verdict, [self.value(v) for v in planned.part.inputs])
        for equation in group:
            self.session.judge(equation, verdict)
        return values

    def _loop(self, equation: Any) -> Loop:
        """The record of a loop, with the values of its operands."""
        values = [self.value(atom) for atom in equation.invars]
        loop, context = loop_in(self.flat, equation, values), self.session.context
        if context.is_split and not context.splits_time:
            rows = {v: whole_in_time(x) for v, x in loop.sequences.items()}
            loop = replace(loop, sequences=rows)
        return loop.noted(*self.flat.notes_of(equation))

    def _context(self) -> Context:
        """What rules see around a loop of this program."""
        context = replace(
            self.session.context,
            consumers=self.flat.readers,
            producers=self.flat.producers,
            run=lambda *program: Walk(self.session, *program).run(),
            is_dispatched=self.session.context.is_dispatched or self.session.is_inside,
        )
        inner = replace(context, consumers={}, producers={})

        def finish(part: Loop) -> dict[Any, Any]:
            return emit(run_loop_rules(part, inner), inner)

        return replace(context, finish=finish)

    def _rewritten(self, group: Group) -> dict[Any, Any]:
        context = self._context()
        before = [self._loop(equation) for equation in group]
        loop = before[0] if len(group) == 1 else join(before)
        scope = jax.named_scope(loop.scope) if loop.scope else nullcontext()
        with scope, self.session.inside(group[0]):
            after = run_loop_rules(loop, context)
            values = emit(after, context)
        for variable, value in values.items():
            aval = variable.aval
            if value.shape != aval.shape or value.dtype != aval.dtype:
                got = f"{value.dtype}{value.shape}"
                raise NotUnderstoodError(f"a result became {got}, not {aval}")
        self._record(group, before, after)
        return values

    def _record(self, group: Group, before: Sequence[Loop], after: Loop) -> None:
        """The first loop of a group does the work of all."""
        first, *others = group
        if others:
            names = " and ".join(map(called, others))
            text = f"merged with {names}, whose work its steps do too"
            after = after.fired(text).signed("merge.siblings")
        self.session.record(first, before[0], after)
        for equation, loop in zip(others, before[1:], strict=True):
            gone = without_work(loop).fired(f"merged with {called(first)}")
            gone = gone.signed("merge.siblings")
            self.session.record(equation, loop, gone)
