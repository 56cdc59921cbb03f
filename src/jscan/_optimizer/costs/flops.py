"""Operations of a program: those that it runs, and those that XLA counts in it.

Before XLA's CPU client runs a program it asks how many floating point operations that
has. A program of fewer than a thousand runs in the thread that calls it; any other one
is handed to another thread. The body of a loop counts once, so that most loops are run
at once, however many steps they have.
"""

from collections.abc import Iterable
from typing import Any

from jscan._jax.jaxprs import open_jaxpr, sub_programs
from jscan._jax.operations import RANDOM, TRANSCENDENTAL, dot_sizes, is_elementwise

_DRAW = 100  # of one number, about


def flops(equations: Iterable[Any]) -> int:
    """Floating point operations of running each equation once."""
    return sum(_flops(equation, once=False) for equation in equations)


def counted_flops(equations: Iterable[Any]) -> int:
    """About what XLA counts: the body of a loop once, and of functions nothing."""
    return sum(_flops(equation, once=True) for equation in equations)


def _flops(equation: Any, once: bool) -> int:
    name = equation.primitive.name
    if name == "dot_general":
        return 2 * dot_sizes(equation).multiplications
    if once and name in RANDOM:
        return _DRAW * sum(v.aval.size for v in equation.outvars)
    inner = list(sub_programs(equation))
    if inner and not name.startswith(("scatter", "reduce")):
        steps = 1 if once else int(equation.params.get("length", 1))
        count = counted_flops if once else flops
        return steps * max(count(open_jaxpr(program)[0].eqns) for program in inner)
    if name.startswith("reduce_"):
        return equation.invars[0].aval.size
    counts = is_elementwise(equation) and not (once and name in TRANSCENDENTAL)
    return equation.outvars[0].aval.size if counts else 0
