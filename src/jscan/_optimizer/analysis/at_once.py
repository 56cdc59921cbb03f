"""Whether the steps of a loop may run at once: who decides it asks, and who does it."""

from jscan._optimizer.analysis.dependence import batchable
from jscan._optimizer.record.loop import Loop


def tied(loop: Loop) -> str | None:
    """Why its steps have to run one by one, whatever they carry; `None` if not."""
    if has_effects(loop):
        return "a step has an effect, whose order must not change"
    blocker = next((e for e in loop.equations if not batchable(e, loop.length)), None)
    if blocker is None:
        return None
    name = blocker.primitive.name
    return f"{name} in the step: batched, it might compute what no step computes"


def has_effects(loop: Loop) -> bool:
    """Whether a step prints, calls back, or reads or writes a reference."""
    return any(equation.effects for equation in loop.equations)
