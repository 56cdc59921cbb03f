"""How many steps a loop may run: from `n_steps`, `max_steps` and the sequences."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jscan._base.errors import (
    ScanTypeError,
    ScanValueError,
    explain_error,
    loop_label,
    warn,
)
from jscan._base.types import Leaf, type_text
from jscan._frontend.spec import SequenceSpec
from jscan._jax.types import is_traced
from jscan._state import frames
from jscan._state.variables import SharedVariable


def count_steps(
    n_steps: Any, max_steps: Any, sequences: Sequence[SequenceSpec], name: str | None
) -> tuple[int, Leaf | None]:
    """The most steps there can be, and the traced number of steps, if it is one.

    A traced number outside ``[0, bound]`` is clamped to it: nothing can be raised once
    the program runs.
    """
    if isinstance(n_steps, SharedVariable):
        n_steps = n_steps.value
    bound = _bound(max_steps, sequences, name)
    if max_steps is None:  # an int of the caller's stays exact: as many rows
        frames.need_python(n_steps)
    if is_traced(n_steps):
        _warn_of_short(sequences, name)
        return _traced(n_steps, bound, name)
    if n_steps is None:
        _warn_of_short(sequences, name)
        if bound is None:
            raise ScanValueError(
                explain_error(
                    name,
                    "n_steps",
                    needed="a number of steps, from sequences or from n_steps",
                    came="neither",
                    fix="pass n_steps=..., the bound of the loop if the step returns "
                    "until",
                )
            )
        return bound, None
    count = _as_count(n_steps, "n_steps", name)
    if max_steps is not None and count > _as_count(max_steps, "max_steps", name):
        raise ScanValueError(
            explain_error(
                name,
                "n_steps",
                needed=f"at most max_steps={max_steps}",
                came=str(count),
                fix="raise max_steps, or leave it out: n_steps is known here",
            )
        )
    _check_lengths(count, sequences, name)
    return count, None


def _warn_of_short(sequences: Sequence[SequenceSpec], name: str | None) -> None:
    """A sequence that does not fill the window of its taps allows no step."""
    for sequence in sequences:
        if 1 < sequence.window > sequence.rows:
            warn(
                f"{loop_label(name)}: {sequence.place}: {sequence.rows} rows are fewer "
                f"than the {sequence.window} that taps={list(sequence.taps)} span, so "
                "that there is no step. Fix: pass a longer sequence, or n_steps=0."
            )


def _bound(
    max_steps: Any, sequences: Sequence[SequenceSpec], name: str | None
) -> int | None:
    """What sequences and `max_steps` allow; None when nothing bounds the loop."""
    limits = [sequence.steps for sequence in sequences]
    if max_steps is not None:
        frames.need_python(max_steps)
        if is_traced(max_steps):
            raise ScanTypeError(
                explain_error(
                    name,
                    "max_steps",
                    needed="an integer known while tracing, the bound of the loop",
                    came=f"a traced {type_text(max_steps)}",
                    fix="pass the traced number as n_steps and a constant as max_steps",
                )
            )
        limits.append(_as_count(max_steps, "max_steps", name))
    return min(limits, default=None)


def _traced(n_steps: Leaf, bound: int | None, name: str | None) -> tuple[int, Leaf]:
    if n_steps.ndim or not jnp.issubdtype(n_steps.dtype, jnp.integer):
        raise ScanTypeError(
            explain_error(
                name,
                "n_steps",
                needed="an integer scalar",
                came=f"a traced {type_text(n_steps)}",
                fix="convert it with .astype(int)",
            )
        )
    if bound is None:
        raise ScanValueError(
            explain_error(
                name,
                "n_steps",
                needed="a bound for a number of steps that is only known at run time",
                came=f"a traced {type_text(n_steps)} without sequences and max_steps",
                fix="pass max_steps=..., or mark n_steps static (static_argnums)",
            )
        )
    limit = jax.lax.convert_element_type(jnp.clip(n_steps, 0, bound), jnp.int32)
    return bound, limit if bound else None  # no room: known to be 0 steps


def _check_lengths(
    count: int, sequences: Sequence[SequenceSpec], name: str | None
) -> None:
    for sequence in sequences:
        if sequence.steps < count:
            raise ScanValueError(
                explain_error(
                    name,
                    sequence.place,
                    needed=f"at least {count} steps, as n_steps={count} asks",
                    came=f"{sequence.steps} steps ({sequence.rows} rows, taps="
                    f"{list(sequence.taps)})",
                    fix=f"pass a longer sequence, or n_steps <= {sequence.steps}",
                )
            )


def _as_count(value: Any, place: str, name: str | None) -> int:
    """A known number of steps, at least 0."""
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        count = operator.index(value)
    except TypeError as error:
        raise ScanTypeError(
            explain_error(
                name,
                place,
                needed="an integer scalar",
                came=f"{value!r:.60} of type {type(value).__name__}",
                fix="convert it with int(...)",
            )
        ) from error
    if count < 0:
        raise ScanValueError(
            explain_error(
                name,
                place,
                needed="an integer of at least 0",
                came=str(count),
                fix="for a reversed loop use go_backwards=True",
            )
        )
    return count
