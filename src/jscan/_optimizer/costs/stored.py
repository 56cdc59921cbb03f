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
# Less a step was 0.9 to 1.1 times as fast; more, 1.2 to 2.8 times.
_LEAST = 3.0
# By JAX 0.12 rows of one number take next to nothing.
_SMALLEST_ROW = 1 if JAX_VERSION < (0, 11) else 2


def gains_by_work(
    stored: Sequence[Any], fewer: Sequence[Any], again: Sequence[Any]
) -> bool:
    """Whether to store fewer rows pays, of which `again` makes those that are stored.

    Given are variables of a step.
    """
    stored, fewer = (
        [v for v in some if v.aval.size >= _SMALLEST_ROW] for some in (stored, fewer)
    )
    saved = _ROW * (len(stored) - len(fewer))
    saved += 2 * STREAMED_ELEMENT * (elements_of(stored) - elements_of(fewer))
    work = _OPERATION * len(again) + _COMPUTED_ELEMENT * elements_of(again)
    return saved - work >= _LEAST
