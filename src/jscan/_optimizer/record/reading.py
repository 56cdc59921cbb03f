"""Reads a scan equation into the record of its loop."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from jscan._jax.jaxprs import Atom, is_variable
from jscan._jax.scans import read_scan
from jscan._jax.stacks import in_slices
from jscan._optimizer.record.inlining import (
    inline_calls,
    is_call_with_rule,
    is_first_run,
    is_our_recomputation,
    is_plain_call,
    is_recomputation,
)
from jscan._optimizer.record.loop import Carry, Final, Loop, Result, Stack


def read_loop(
    equation: Any, operands: list[Any], wanted: Collection[Any], zeros: Collection[Any]
) -> Loop:
    """Read a scan equation into the record.

    Args:
        equation: The scan equation.
        operands: Values of its operands.
        wanted: What the program reads; other results are left out.
        zeros: Variables of the program that are known to be all zeros.
    """
    scan = read_scan(equation)
    inputs, first = scan.body.invars, scan.num_constants
    last = first + scan.num_carry
    constants = dict(zip(scan.body.constvars, scan.body_constants, strict=True))
    constants.update(zip(inputs[:first], operands[:first], strict=True))
    given = zip(inputs[:first], equation.invars[:first], strict=True)

    step = _read_step(scan.body)
    updates, rows = step.outputs[: scan.num_carry], step.outputs[scan.num_carry :]
    states = zip(inputs[first:last], updates, operands[first:last], strict=True)
    carries = tuple(Carry(*state) for state in states)
    recipes: list[Result] = [Final(carry.variable) for carry in carries]
    results = zip(equation.outvars, recipes + list(map(Stack, rows)), strict=True)
    return Loop(
        scope=str(equation.source_info.name_stack),
        length=scan.length,
        reverse=scan.reverse,
        unroll=scan.unroll,
        constants=constants,
        sequences=dict(zip(inputs[last:], operands[last:], strict=True)),
        carries=carries,
        equations=step.equations,
        results={v: recipe for v, recipe in results if v in wanted},
        zeros=frozenset(v for v, a in given if is_variable(a) and a in zeros),
        recomputes=step.recomputes,
    )


@dataclass(frozen=True)
class _Step:
    """The program of a step, its calls opened."""

    equations: tuple[Any, ...]
    outputs: tuple[Atom, ...]
    recomputes: bool


# A rewrite reads each loop several times, and opening calls is what takes long of it.
_steps: WeakKeyDictionary[Any, _Step] = WeakKeyDictionary()


def _read_step(body: Any) -> _Step:
    if body in _steps:
        return _steps[body]

    def opens(e: Any) -> bool:
        calls = is_plain_call(e) or is_call_with_rule(e) or is_first_run(e)
        return calls or is_our_recomputation(e)

    equations, names = inline_calls(body.eqns, opens)
    recomputes, more = any(map(is_recomputation, equations)), {}
    if recomputes:
        every = lambda e: opens(e) or is_recomputation(e)
        equations, more = inline_calls(equations, every)

    equations = [e for old in equations for e in in_slices(old)]

    def current(atom: Atom) -> Atom:
        atom = names.get(atom, atom) if is_variable(atom) else atom
        return more.get(atom, atom) if is_variable(atom) else atom

    outputs = tuple(map(current, body.outvars))
    _steps[body] = _Step(tuple(equations), outputs, recomputes)
    return _steps[body]
