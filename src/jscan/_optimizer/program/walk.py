"""Walk a whole program and replace each loop by its rewritten form.

Only programs inside known primitives are opened (`jit`, `cond`, `while`, `scan`,
`remat`, `shard_map`, `custom_jvp`, `custom_vjp`). Everything else is run as it is, in
order.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import jax

from jscan._jax.equations import free_variables, program
from jscan._jax.jaxprs import (
    Atom,
    NotUnderstoodError,
    is_jaxpr,
    is_variable,
    open_jaxpr,
)
from jscan._jax.names import eval_jaxpr
from jscan._jax.scans import is_scan
from jscan._optimizer.analysis.index import Group, flattened, holds_loop, loop_in
from jscan._optimizer.analysis.placement import is_split_here, whole_in_time
from jscan._optimizer.passes.across_loops.siblings import join, without_unneeded
from jscan._optimizer.pipeline import run_passes, run_rules
from jscan._optimizer.record.context import Context
from jscan._optimizer.record.loop import Loop, without_work
from jscan._optimizer.record.names import called
from jscan._optimizer.rules import PROGRAM_RULES
from jscan._optimizer.switches import attempt
from jscan._optimizer.writing.loops import emit

if TYPE_CHECKING:
    from jscan._optimizer.program.session import Session


_OPENED = frozenset({"cond", "while", "remat2", "shard_map"})

_CALLED = frozenset(
    {"custom_jvp_call", "custom_vjp_call"}
)  # their rules have been used


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
                self.loops(here)
                # What only led to a result that the loop now gives is not run.
                groups = without_unneeded(groups, self.values, self.flat.outputs)
            elif self._opens(here[0]):
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
        if not self.pending:
            return
        made = [v for e in self.pending for v in e.outvars if v in self.flat.readers]
        inputs = free_variables(self.pending)
        jaxpr = program(inputs, made, self.pending)
        operands = [self.values[v] for v in inputs]
        values = eval_jaxpr(jaxpr, [], *operands)
        self.values.update(zip(made, values, strict=True))
        self.pending = []

    def _opens(self, equation: Any) -> bool:
        name = equation.primitive.name
        known = name in _OPENED or name in _CALLED
        return known and holds_loop(equation)

    def opened(self, equation: Any) -> None:
        """Run an equation whose inner programs hold loops."""
        operands = [self.value(atom) for atom in equation.invars]

        def run() -> None:
            with self._context().inside(str(equation.source_info.name_stack)):
                values = self._run_opened(equation, operands)
            self.values.update(zip(equation.outvars, values, strict=True))

        as_it_is = self.pending.append
        attempt(run, lambda _: as_it_is(equation), must=bool(equation.effects))

    def _run_opened(self, equation: Any, operands: list[Any]) -> list[Any]:
        session = self.session
        if equation.primitive.name == "shard_map":
            return self._run_on_mesh(equation.params, operands)
        if equation.primitive.name in _CALLED:
            called, constants = open_jaxpr(equation.params["call_jaxpr"])
            return session.run(called, constants, operands)

        def change(value: Any) -> Any:
            if isinstance(value, tuple | list) and any(map(is_jaxpr, value)):
                return type(value)(change(item) for item in value)
            return session.rewritten_like(value) if is_jaxpr(value) else value

        parameters = {name: change(value) for name, value in equation.params.items()}
        changed = equation.replace(params=parameters)
        inputs = free_variables([changed])
        jaxpr = program(inputs, changed.outvars, [changed])
        return eval_jaxpr(jaxpr, [], *[self.values[v] for v in inputs])

    def _run_on_mesh(self, parameters: Any, operands: list[Any]) -> list[Any]:
        """Run the program of a `jax.shard_map`, whose types JAX alone can give."""
        opened, constants = open_jaxpr(parameters["jaxpr"])

        def run(*values: Any) -> list[Any]:
            session = self.session.where(is_split=is_split_here())
            return session.run(opened, constants, values)

        mapped = jax.shard_map(
            run,
            mesh=parameters["mesh"],
            in_specs=parameters["in_specs"],
            out_specs=list(parameters["out_specs"]),
            axis_names=parameters["newly_manual_axes"],
            check_vma=parameters["check_vma"],
        )
        return mapped(*operands)

    def loops(self, group: Group) -> None:
        """Run loops as one, rewritten; as they are if that fails."""

        def as_they_are(error: Exception) -> dict[Any, Any]:
            for equation in group:
                self.session.failed(equation, self._loop(equation), error)
            self.pending += group
            return {}

        # An effect may already have been traced: then the whole program is given up.
        traced = any(equation.effects for equation in group)
        values = attempt(lambda: self._rewritten(group), as_they_are, must=traced)
        self.values.update(values)

    def _loop(self, equation: Any) -> Loop:
        """The record of a loop, with the values of its operands."""
        values = [self.value(atom) for atom in equation.invars]
        loop = loop_in(self.flat, equation, values)
        if self.session.context.is_split:
            rows = {v: whole_in_time(x) for v, x in loop.sequences.items()}
            loop = replace(loop, sequences=rows)
        return loop.noted(*self.flat.notes_of(equation))

    def _context(self) -> Context:
        """What the passes see around a loop of this program."""
        context = replace(
            self.session.context,
            consumers=self.flat.readers,
            producers=self.flat.producers,
            run=self.session.run,
        )
        inner = replace(context, consumers={}, producers={})

        def finish(part: Loop) -> dict[Any, Any]:
            return emit(run_passes(part, inner), inner)

        return replace(context, finish=finish)

    def _rewritten(self, group: Group) -> dict[Any, Any]:
        context = self._context()
        before = [self._loop(equation) for equation in group]
        loop = before[0] if len(group) == 1 else join(before)
        scope = jax.named_scope(loop.scope) if loop.scope else nullcontext()
        with scope:
            after = run_passes(loop, context)
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
