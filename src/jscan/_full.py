"""Loops that run all their steps and show it: a `lax.scan` cut into stretches.

The bar must not cost what the optimizer gains, so a loop is written as a scan, the
optimizer rewrites that as it would without a bar, and only then the scan is cut: an
outer loop over stretches, with a report before each, and in it a scan of as many steps,
which the compiler knows. Rows are written in place; no stretch is copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax.core import eval_jaxpr

from ._derive import cached
from ._program import Program, as_structs, open_jaxpr
from ._progress import NOTHING_TOLD, Meter, after
from ._rows import read_row, write_row, zeros
from ._types import Leaf
from .optimize import free_variables, is_scan, plain_program, read_scan

if TYPE_CHECKING:
    from ._bounded import BoundedLoop


def run_full(loop: BoundedLoop, inputs: Sequence[Leaf]) -> list[Leaf]:
    """The results of a full loop, in the order of `BoundedLoop.bind`."""
    parts = loop.sort(inputs)
    values = [*parts.consts, *parts.carry, *parts.xs]
    if loop.meter is None:
        results = (loop.written or as_scan(loop))(*values)
    else:
        results = _run_metered(loop, loop.meter, values)
    return [jnp.asarray(loop.length, jnp.int32), *results]


@cached
def as_scan(loop: BoundedLoop) -> Program:
    """The loop as a program of one `lax.scan`."""
    body = loop.body
    carried = loop.consts + loop.carry

    def scan(*inputs: Leaf) -> list[Leaf]:
        def step(carry: list[Leaf], slices: list[Leaf]) -> tuple[list[Leaf], Any]:
            results = body(*inputs[: loop.consts], *carry, *slices)
            return results[: loop.carry], results[loop.carry :]

        carry, rows = jax.lax.scan(
            step,
            list(inputs[loop.consts : carried]),
            list(inputs[carried:]),
            length=loop.length,
            reverse=loop.reverse,
        )
        return [*carry, *rows]

    structs = as_structs(body.in_avals)
    stacks = [s.update(shape=(loop.length, *s.shape)) for s in structs[carried:]]
    return Program.trace(scan, *structs[:carried], *stacks)


def _run_metered(loop: BoundedLoop, meter: Meter, inputs: Sequence[Leaf]) -> list[Leaf]:
    """The program of the loop, its largest scan in stretches."""
    program = loop.written or as_scan(loop)
    if _largest_scan(program, loop.length) is None:
        program = as_scan(loop)  # the optimizer has left no loop to be watched
    watched = _largest_scan(program, loop.length)
    jaxpr = open_jaxpr(program.jaxpr)
    place = jaxpr.eqns.index(watched)
    values = dict(zip(jaxpr.invars, inputs, strict=True))

    def value(atom: Any) -> Any:
        return atom.val if hasattr(atom, "val") else values[atom]

    def run(equations: Sequence[Any]) -> None:
        reads = free_variables(equations)
        made = [variable for e in equations for variable in e.outvars]
        part = plain_program(reads, made, equations)
        results = eval_jaxpr(part, (), *map(value, reads))
        values.update(zip(made, results, strict=True))

    run(jaxpr.eqns[:place])
    rows = _stretches(watched, meter, list(map(value, watched.invars)))
    values.update(zip(watched.outvars, rows, strict=True))
    run(jaxpr.eqns[place + 1 :])
    return list(map(value, jaxpr.outvars))


def _largest_scan(program: Program, length: int) -> Any:
    """The scan of so many steps that does most in each, if there is one."""
    found = [
        equation
        for equation in open_jaxpr(program.jaxpr).eqns
        if is_scan(equation) and read_scan(equation).length == length
    ]
    return max(found, key=lambda scan: len(read_scan(scan).body.eqns), default=None)


def _stretches(equation: Any, meter: Meter, operands: Sequence[Leaf]) -> list[Leaf]:
    """A scan that reports to its bar."""
    scan = read_scan(equation)
    carried = scan.num_constants + scan.num_carry
    consts, xs = operands[: scan.num_constants], operands[carried:]
    rows = [zeros(variable.aval) for variable in equation.outvars[scan.num_carry :]]

    def advance(state: Any, _: None) -> tuple[Any, None]:
        done, carry, rows = state
        index = scan.length - 1 - done if scan.reverse else done
        results = eval_jaxpr(
            scan.body,
            scan.body_constants,
            *consts,
            *carry,
            *[read_row(leaf, index) for leaf in xs],
        )
        fresh = results[scan.num_carry :]
        rows = [write_row(b, leaf, index) for b, leaf in zip(rows, fresh, strict=True)]
        return (done + 1, results[: scan.num_carry], rows), None

    def stretch(told: Leaf, state: Any, steps: int) -> tuple[Leaf, Any]:
        told = meter.report(state[0], state[1], told)
        unroll = min(scan.unroll, steps)
        return told, jax.lax.scan(advance, state, None, length=steps, unroll=unroll)[0]

    state = (jnp.int32(0), list(operands[scan.num_constants : carried]), rows)
    told = NOTHING_TOLD
    whole, rest = divmod(scan.length, meter.every)
    if whole:
        told, state = jax.lax.fori_loop(
            0, whole, lambda _, now: stretch(now[0], now[1], meter.every), (told, state)
        )
    if rest:
        known = after(state[0], state[1:])  # or it would be reported at once
        told, state = stretch(told, (known, *state[1:]), rest)
    done, carry, rows = state
    if meter.closes:
        meter.report(after(done, (carry, rows)), carry, told, last=True)
    return [*carry, *rows]
