"""The cost model, derivatives: does a step store less for one, and work more?

Where JAX splits a loop nobody knows yet on which device it will run, so that this is
the same everywhere. Measured on a CPU, on loops of `jscan.scan` in `jax.grad`.
"""

from collections.abc import Sequence
from typing import Any

from jscan._jax.names import JAX_VERSION
from jscan._optimizer.costs.savings import STREAMED_ELEMENT, elements_of

_ROW = 1.0  # nanoseconds to write it and to read it back, whatever its size
_OPERATION = 0.5
_COMPUTED_ELEMENT = 0.1
# More a step was 1.0 to 6 times as fast; what loses a nanosecond was 0.7 to 1.0 times.
_LEAST = 0.2
# By JAX 0.12 loops with more rows of one number were 0.4 to 1.5 times as fast.
_MOST_NUMBERS = 64 if JAX_VERSION < (0, 11) else 8


def gains_by_work(
    stored: Sequence[Any], fewer: Sequence[Any], again: Sequence[Any]
) -> bool:
    """Whether to store fewer rows pays, of which `again` makes those that are stored.

    Given are variables of a step.
    """
    if sum(v.aval.size == 1 for v in fewer) > _MOST_NUMBERS:
        return False
    saved = _ROW * (len(stored) - len(fewer))
    saved += 2 * STREAMED_ELEMENT * (elements_of(stored) - elements_of(fewer))
    work = _OPERATION * len(again) + _COMPUTED_ELEMENT * elements_of(again)
    return saved - work >= _LEAST
