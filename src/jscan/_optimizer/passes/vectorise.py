"""vectorise: a loop that carries nothing is one batched computation.

It runs in chunks of steps when the values between its operations would not fit the
memory budget all at once.
"""

from dataclasses import replace

from jscan._jax.equations import free_variables
from jscan._jax.jaxprs import stack_bytes
from jscan._optimizer.analysis.at_once import tied
from jscan._optimizer.analysis.size import intermediates
from jscan._optimizer.costs.machine import EXCHANGED
from jscan._optimizer.record.context import Context
from jscan._optimizer.record.loop import Loop


def run(loop: Loop, context: Context) -> Loop:
    """Move the whole step behind the loop, if nothing ties the steps together."""
    if loop.carries or not loop.equations:
        return loop
    if why := tied(loop):
        return loop.refused(why)
    read = {*free_variables(loop.equations)} & loop.sequences.keys()
    keeps = context.machine.keeps_map_in_loop
    why = keeps(loop.equations, [*read, *loop.wanted_rows()], loop.length)
    if why is not None and not (context.splits_time or loop.vanishes):
        return loop.refused(f"the steps stay a loop: {why}")
    step_bytes = stack_bytes(intermediates(loop, loop.equations), 1)
    chunk = None
    if step_bytes * loop.length > context.budget:
        if context.is_split:
            return loop.refused(f"{EXCHANGED}: the steps would run in chunks")
        chunk = min(context.budget, context.machine.chunk_bytes) // step_bytes
        if chunk < 2:
            return loop.refused(
                f"two steps of {step_bytes} bytes do not fit the memory of a batch"
            )
    loop = replace(loop.with_after(loop.equations), equations=(), chunk=chunk)
    how = "at once" if chunk is None else f"in chunks of {chunk} steps"
    return loop.fired(f"no state is carried: {loop.length} steps run {how}")
