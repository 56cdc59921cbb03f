"""What the readers of a stack want of it."""

from __future__ import annotations

from typing import Any

from jscan._jax.names import primitives
from jscan._optimizer.record.loop import Loop


def is_last_row(reader: Any, loop: Loop) -> bool:
    """Whether an equation reads the row of the last step alone."""
    if reader.primitive is not primitives.slice_p:
        return False
    last = 0 if loop.reverse else loop.length - 1
    start = reader.params["start_indices"][0]
    return start == last and reader.params["limit_indices"][0] == last + 1
