"""All states of a loop at once, where two of its steps compose to one.

On one device that is `jax.lax.associative_scan`. Where rows may be split in time, each
device scans the steps it has, all of them get the ends of all parts, and each goes on
from where the part before it ended: what is exchanged does not grow with the steps.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jscan._optimizer.analysis.placement import devices_here, whole_in_time


@dataclass(frozen=True)
class Steps:
    """What steps of one kind do to a state.

    Attributes:
        compose: One step that does what two do, the first and the second.
        apply: The state behind a step.
    """

    compose: Callable[[Any, Any], Any]
    apply: Callable[[Any, Any], Any]


LINEAR = Steps(
    lambda one, two: (one[0] * two[0], two[0] * one[1] + two[1]),
    lambda step, state: step[0] * state + step[1],
)
"""Steps of a factor and an offset."""


def extreme(largest: Callable[[Any, Any], Any]) -> Steps:
    """Steps that keep the largest, or the smallest, of all that came."""
    meet = lambda one, two: (largest(one[0], two[0]),)
    return Steps(meet, lambda step, state: largest(step[0], state))


class States(NamedTuple):
    """Rows `[T, ...]` of the state before and after each step, and the last one."""

    before: Any
    after: Any
    final: Any


def states(
    kind: Steps, rows: Sequence[Any], initial: Any, *, reverse: bool, is_split: bool
) -> States:
    """The states of a loop whose steps `rows` describe, each `[T, ...]`."""
    length = rows[0].shape[0]
    # Time is split over some of the devices, by a number that divides both.
    parts = math.gcd(length, devices_here()) if is_split else 1
    scan = functools.partial(jax.lax.associative_scan, kind.compose, reverse=reverse)
    last = 0 if reverse else -1

    inside = [row.reshape(parts, length // parts, *row.shape[1:]) for row in rows]
    inside = scan(tuple(inside), axis=1)
    ends = tuple(rows[:, last] for rows in inside)
    if parts > 1:
        ends = tuple(map(whole_in_time, ends))
    ends = kind.apply(scan(ends), initial[None])
    starts = _before(ends, initial[None], 0, reverse)
    if parts > 1:
        ends, starts = whole_in_time(ends), whole_in_time(starts)
    starts = starts[:, None]
    after = kind.apply(inside, starts)
    before = _before(after, starts, 1, reverse)
    flat = lambda rows: rows.reshape(length, *rows.shape[2:])
    return States(flat(before), flat(after), ends[last])


def _before(after: Any, first: Any, axis: int, reverse: bool) -> Any:
    """States before each step, of those behind each and the very first."""
    size = after.shape[axis]
    kept = slice(1, None) if reverse else slice(0, size - 1)
    rest = after[(slice(None),) * axis + (kept,)]
    return jnp.concatenate([rest, first] if reverse else [first, rest], axis)
