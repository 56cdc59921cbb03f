"""unroll: a tiny step is repeated four times in the loop's body.

Decided last, and at lowering only: differentiation keeps the factor, and a backward
step is so much larger that an unrolled one can fall out of the form XLA's CPU
compiler turns into a single function.
"""

from dataclasses import replace

from jscan.optimize._jaxpr import is_variable, number_of_bytes
from jscan.optimize._loop import Loop
from jscan.optimize._options import Context
from jscan.optimize._work import is_elementwise

NAME = "unroll"

_SHAPES_ONLY = frozenset({"broadcast_in_dim", "reshape", "squeeze"})
_SHORTEST = 64
_TINY_STEP = 120
_STREAMLESS_STEP = 16 * 2**10


def run(loop: Loop, context: Context) -> Loop:
    """Choose the factor from the size of the step."""
    factor = context.machine.unroll
    if factor == 1 or loop.unroll != 1 or not loop.equations:
        return loop
    if loop.length < _SHORTEST:
        return loop.refused(NAME, f"{loop.length} steps are too few")
    simple = all(
        is_elementwise(e) or e.primitive.name in _SHAPES_ONLY for e in loop.equations
    )
    if not simple:
        return loop.refused(NAME, "a step does more than elementwise arithmetic")
    stacked = loop.stacked()
    touched = sum(
        number_of_bytes(atom)
        for e in loop.equations
        for atom in (*e.invars, *e.outvars)
    )
    touched += sum(map(number_of_bytes, stacked))
    read = {a for e in loop.equations for a in e.invars if is_variable(a)}
    counters = loop.counters or {}
    streams = stacked or [v for v in loop.sequences if v in read and v not in counters]
    if touched > (_TINY_STEP if streams else _STREAMLESS_STEP):
        return loop.refused(NAME, f"a step touches {touched} bytes, which is not tiny")
    return replace(loop, unroll=factor).fired(
        NAME, f"a step touches {touched} bytes: {factor} steps per iteration"
    )
