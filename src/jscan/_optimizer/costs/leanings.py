"""Costs that lean to one side, for decisions that are close: measuring tries both."""

from dataclasses import replace

from jscan._optimizer.costs.machine import Machine

_NONE = Machine()


def leaning(machine: Machine, which: str) -> Machine:
    """The costs of a device, as if what a rule weighs were clearly worth it, or not."""
    if which == "eager":
        return replace(
            machine.with_starts(0),
            whole_dot=_NONE.whole_dot,
            vector_call=max(machine.vector_call, 0.0),
            full_rows=_NONE.full_rows,
            joined_bytes=16 * machine.joined_bytes,
            small_dot=4 * machine.small_dot,
            small_sum=4 * machine.small_sum,
            small_columns=2 * machine.small_columns,
        )
    if which == "cautious":
        return replace(
            machine.with_starts(8),
            joined_bytes=0,
            small_dot=machine.small_dot // 4,
            small_sum=machine.small_sum // 4,
            small_columns=machine.small_columns // 4,
        )
    return machine
