"""Walk a whole program and replace each loop by its rewritten form.

Only programs inside known primitives are opened (`jit`, `cond`, `while`, `scan`,
`remat`, `custom_jvp`; `custom_vjp` only once no derivative can follow). Everything
else is run as it is, in order.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import jax
from jax.core import eval_jaxpr

from jscan.optimize._emit import emit
from jscan.optimize._jaxpr import (
    Atom,
    NotUnderstoodError,
    abstract,
    fills_with_zero,
    free_variables,
    holds,
    inline_calls,
    is_jaxpr,
    is_plain_call,
    is_scan,
    is_variable,
    needed,
    open_jaxpr,
    program,
    with_type_of,
    without_dead_code,
)
from jscan.optimize._loop import Loop, read_loop
from jscan.optimize._movers import slices_first
from jscan.optimize._options import Context
from jscan.optimize._pipeline import debugging, failure, run_passes

_LOOP = frozenset({"scan"})
_OPENED = frozenset({"cond", "while", "checkpoint", "remat2", "custom_jvp_call"})
_CALLED_AT_LOWERING = frozenset({"custom_jvp_call", "custom_vjp_call"})


@dataclass
class Session:
    """One rewrite of one program: what every part of the walk shares."""

    context: Context
    records: dict[int, tuple[Any, Loop, Loop]] = field(default_factory=dict)

    def record(self, equation: Any, before: Loop, after: Loop) -> None:
        """Remember a loop for the report; one traced twice counts once."""
        self.records[id(equation)] = (equation, before, after)

    def run(
        self, jaxpr: Any, constants: Sequence[Any], operands: Sequence[Any]
    ) -> list:
        """Run an open program with its loops rewritten."""
        return _Walk(self, jaxpr, constants, operands).run()

    def rewritten(self, jaxpr: Any) -> Any:
        """A program of the same signature with its loops rewritten."""
        opened, constants = open_jaxpr(jaxpr)

        def function(*operands: Any) -> list[Any]:
            values = self.run(opened, constants, operands)
            return [
                with_type_of(value, atom)
                for value, atom in zip(values, opened.outvars, strict=True)
            ]

        return without_dead_code(
            jax.make_jaxpr(function)(*map(abstract, opened.invars))
        )

    def rewritten_like(self, jaxpr: Any) -> Any:
        """As `rewritten`, and open if `jaxpr` is open."""
        new, constants = open_jaxpr(closed := self.rewritten(jaxpr))
        if type(closed) is type(jaxpr):
            return closed
        if constants:
            raise NotUnderstoodError("an inner program captured constants")
        return new


class _Walk:
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
        equations, self.outputs = flattened(jaxpr)
        self.equations = slices_first(equations, self.outputs)
        self.readers: dict[Any, list[Any] | None] = {}
        for equation in self.equations:
            for atom in filter(is_variable, equation.invars):
                readers = self.readers.setdefault(atom, [])
                if readers is not None and equation not in readers:
                    readers.append(equation)
        for atom in filter(is_variable, self.outputs):
            self.readers[atom] = None
        self.zeros = {e.outvars[0] for e in self.equations if fills_with_zero(e)}
        self.pending: list[Any] = []

    def run(self) -> list[Any]:
        for equation in self.equations:
            if all(v in self.values for v in equation.outvars) and not equation.effects:
                continue  # a reader of a loop's result, already replaced
            if is_scan(equation):
                self.flush()
                self.loop(equation)
            elif self._opens(equation):
                self.flush()
                self.opened(equation)
            else:
                self.pending.append(equation)
        self.flush()
        return [self.value(atom) for atom in self.outputs]

    def value(self, atom: Atom) -> Any:
        return self.values[atom] if is_variable(atom) else atom.val

    def flush(self) -> None:
        """Run the equations collected since the last loop."""
        if not self.pending:
            return
        made = [v for e in self.pending for v in e.outvars if v in self.readers]
        inputs = free_variables(self.pending)
        jaxpr = program(inputs, made, self.pending)
        operands = [self.values[v] for v in inputs]
        values = eval_jaxpr(jaxpr, [], *operands)
        self.values.update(zip(made, values, strict=True))
        self.pending = []

    def _opens(self, equation: Any) -> bool:
        name = equation.primitive.name
        final = not self.session.context.differentiable
        known = name in _OPENED or (final and name in _CALLED_AT_LOWERING)
        return known and holds(equation, _LOOP)

    def opened(self, equation: Any) -> None:
        """Run an equation whose inner programs hold loops."""
        operands = [self.value(atom) for atom in equation.invars]
        try:
            values = self._run_opened(equation, operands)
        except Exception:
            if debugging() or equation.effects:
                raise
            self.pending.append(equation)
            return
        self.values.update(zip(equation.outvars, values, strict=True))

    def _run_opened(self, equation: Any, operands: list[Any]) -> list[Any]:
        session = self.session
        if (
            not session.context.differentiable
            and equation.primitive.name in _CALLED_AT_LOWERING
        ):
            called, constants = open_jaxpr(equation.params["call_jaxpr"])
            return session.run(called, constants, operands)

        def change(value: Any) -> Any:
            if isinstance(value, tuple | list) and any(map(is_jaxpr, value)):
                return type(value)(change(item) for item in value)
            return session.rewritten_like(value) if is_jaxpr(value) else value

        parameters = {
            name: change(value)
            for name, value in equation.params.items()
            if name != "jvp_jaxpr_fun"
        }
        changed = equation.replace(params={**equation.params, **parameters})
        inputs = free_variables([changed])
        jaxpr = program(inputs, changed.outvars, [changed])
        return eval_jaxpr(jaxpr, [], *[self.values[v] for v in inputs])

    def loop(self, equation: Any) -> None:
        """Run a loop, rewritten; as it is if that fails."""
        try:
            values = self._rewritten_loop(equation)
        except Exception as error:
            # An effect may already have been traced: give up on the whole program.
            if debugging() or equation.effects:
                raise
            record = self._read(equation).refused("pipeline", failure(error))
            self.session.record(equation, record, record)
            self.pending.append(equation)
            return
        self.values.update(values)

    def _read(self, equation: Any) -> Loop:
        wanted = {v for v in equation.outvars if v in self.readers}
        operands = [self.value(atom) for atom in equation.invars]
        zeros = [is_variable(a) and a in self.zeros for a in equation.invars]
        return read_loop(equation, operands, wanted, zeros)

    def _rewritten_loop(self, equation: Any) -> dict[Any, Any]:
        readers = {v: self.readers.get(v) for v in equation.outvars}
        context = replace(
            self.session.context,
            consumers={v: None if e is None else tuple(e) for v, e in readers.items()},
            run=self.session.run,
            finish=lambda part: emit(run_passes(part, inner), inner),
        )
        inner = replace(context, consumers={}, finish=None)
        before = self._read(equation)
        scope = jax.named_scope(before.scope) if before.scope else nullcontext()
        with scope:
            after = run_passes(before, context)
            values = emit(after, context)
        for variable, value in values.items():
            aval = variable.aval
            if value.shape != aval.shape or value.dtype != aval.dtype:
                got = f"{value.dtype}{value.shape}"
                raise NotUnderstoodError(f"a result became {got}, not {aval}")
        self.session.record(equation, before, after)
        return values


def flattened(jaxpr: Any) -> tuple[list[Any], list[Atom]]:
    """The equations a program needs, calls that hold loops opened, and its results."""
    equations, names = inline_calls(jaxpr.eqns, _is_call_with_loop)
    outputs = [names.get(a, a) if is_variable(a) else a for a in jaxpr.outvars]
    return needed(equations, outputs), outputs


def holds_loop(equation: Any) -> bool:
    """Whether an equation is a loop or holds one."""
    return holds(equation, _LOOP)


def _is_call_with_loop(equation: Any) -> bool:
    return is_plain_call(equation) and holds_loop(equation)


def is_explicitly_sharded(jaxpr: Any) -> bool:
    """Whether arguments carry a placement that new operations would have to keep."""
    for variable in jaxpr.invars:
        mesh = getattr(getattr(variable.aval, "sharding", None), "mesh", None)
        if mesh is not None and not getattr(mesh, "empty", True):
            return True
    return False


def has_loops(jaxpr: Any) -> bool:
    """Whether a program holds a loop anywhere."""
    return any(map(holds_loop, jaxpr.eqns))
