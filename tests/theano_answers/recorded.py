"""Reading the recorded answers of Theano 0.9.0 (see README.md for the keys)."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from support.comparing import assert_close


@cache
def _archive() -> dict[str, np.ndarray]:
    with np.load(Path(__file__).with_name("oracle.npz"), allow_pickle=False) as data:
        return dict(data)


def names() -> list[str]:
    """Every recorded case, in the order it was recorded."""
    return list(dict.fromkeys(key.split("/")[0] for key in _archive()))


def part(case: str, kind: str) -> dict[str, np.ndarray]:
    """The arrays `case/kind/NAME` as `{NAME: array}`; empty where there are none."""
    prefix = f"{case}/{kind}/"
    return {
        key.removeprefix(prefix): value
        for key, value in _archive().items()
        if key.startswith(prefix)
    }


def outputs(case: str, kind: str = "out") -> list[np.ndarray]:
    """Recorded outputs in order: `out` of the first call, `out2` of the second."""
    found = part(case, kind)
    return [found[str(position)] for position in range(len(found))]


def as_outputs(value: Any) -> list[Any]:
    """What a scan returned, as a list whatever the number of outputs."""
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def cost(case: str, values: Sequence[Any]) -> Any:
    """The scalar whose gradients were recorded for this case."""
    kind = str(_archive()[f"{case}/cost"])
    if kind == "weighted":
        total = jnp.asarray(0.0)
        for position, value in enumerate(values):
            weights = jnp.cos(jnp.arange(value.size, dtype=float) + float(position))
            total += (value * weights.reshape(value.shape)).sum()
        return total
    if kind == "sum":
        return sum(value.sum() for value in values)
    if kind == "last":
        return values[0][-1].sum()
    if kind == "row2":
        return values[0][2].sum()
    raise ValueError(kind)


def assert_equal(actual: Any, recorded: np.ndarray, what: str) -> None:
    """Same shape, type and numbers."""
    assert_close({what: actual}, {what: recorded})
