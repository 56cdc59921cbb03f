"""reductions: a long row is reduced many numbers at a time.

XLA's CPU compiler adds the numbers of a row up one after the other, and where there are
more than 32, in two operations that nothing is fused with: a step with a softmax or a
layer norm then calls for each of them. Here a row is cut into slices as long as a few
vector registers, which are added to each other, and only the last one is reduced.
A sum is rounded otherwise by it, mostly less.
"""

from collections.abc import Callable
from functools import reduce
from typing import Any, cast

import jax

from jscan._base.kinds import counted
from jscan._jax.equations import spliced
from jscan._jax.jaxprs import avals_of, trace
from jscan._optimizer.costs.slices import long_axis
from jscan._optimizer.record.context import Context
from jscan._optimizer.record.loop import Loop

_JOINED: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "reduce_sum": (jax.lax.add, jax.lax.reduce_sum),
    "reduce_max": (jax.lax.max, jax.lax.reduce_max),
    "reduce_min": (jax.lax.min, jax.lax.reduce_min),
}


def run(loop: Loop, context: Context) -> Loop:
    """Write the reductions of long rows as those of slices of them."""
    slices = context.machine.slices_of(loop.equations)
    if not slices:
        return loop
    found = [e for e in loop.equations if id(e) in slices]
    new = {id(e): _in_slices(e, slices[id(e)]) for e in found}
    text = f"{counted(len(new), 'long row')} reduced many numbers at a time"
    return loop.exchanged(new).fired(text)


def _in_slices(equation: Any, size: int) -> list[Any]:
    """A reduction of rows, of which it takes slices of this size."""
    join, reduced = _JOINED[equation.primitive.name]
    axes, axis = equation.params["axes"], cast(int, long_axis(equation))

    def reduction(row: jax.Array) -> jax.Array:
        cut = lambda start, end: jax.lax.slice_in_dim(row, start, end, axis=axis)
        numbers = row.shape[axis]
        end = numbers - numbers % size
        total = reduced(
            reduce(join, [cut(i, i + size) for i in range(0, end, size)]), axes
        )
        return join(total, reduced(cut(end, numbers), axes)) if end < numbers else total

    traced = trace(reduction, avals_of(equation.invars))
    return spliced(traced, equation.invars, equation)
