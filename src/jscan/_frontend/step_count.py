"""How many steps a loop may run: from `n_steps`, `max_steps` and the sequences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jscan._base.errors import ScanTypeError, ScanValueError, loop_label, warn
from jscan._base.integers import at_least
from jscan._base.kinds import counted
from jscan._base.types import Leaf, type_text
from jscan._frontend.spec import SequenceSpec
from jscan._jax.types import is_traced
from jscan._loops.chunks import LONGEST
from jscan._state import frames
from jscan._state.variables import SharedVariable


def count_steps(
    n_steps: Any, max_steps: Any, sequences: Sequence[SequenceSpec], name: str | None
) -> tuple[int, Leaf | None, int]:
    """The most steps there can be, the traced number of steps, if any, and the bound.

    A traced number outside ``[0, bound]`` is clamped to it: nothing can be raised once
    the program runs. An array that is known, as all are under `jax.disable_jit`, may be
    traced the next time: the bound of its loop is the same. The name is that of the
    loop, for a warning.
    """
    if isinstance(n_steps, SharedVariable):
        n_steps = n_steps.value
    most = _most(max_steps)
    limits = [sequence.steps for sequence in sequences]
    bound = min(limits if most is None else [*limits, most], default=None)
    if max_steps is None:  # an int of the caller's stays exact: as many rows
        frames.need_python(n_steps)
    if n_steps is None or is_traced(n_steps):
        _warn_of_short(sequences, name)
        known = n_steps is None
        most, limit = (_untold(bound), None) if known else _traced(n_steps, bound)
        return most, limit, most
    count = _as_count(n_steps, "n_steps")
    if most is not None and count > most:
        raise ScanValueError(
            "n_steps",
            needed=f"at most max_steps={max_steps}",
            came=str(count),
            fix="raise max_steps, or leave it out: n_steps is known here",
        )
    _check_lengths(count, sequences)
    may_vary = max_steps is not None or isinstance(n_steps, jax.Array)
    return count, None, bound if may_vary and bound is not None else count


def _most(max_steps: Any) -> int | None:
    if max_steps is None:
        return None
    frames.need_python(max_steps)
    if is_traced(max_steps):
        raise ScanTypeError(
            "max_steps",
            needed="an integer known while tracing, the bound of the loop",
            came=f"a traced {type_text(max_steps)}",
            fix="pass the traced number as n_steps and a constant as max_steps",
        )
    return _as_count(max_steps, "max_steps")


def _warn_of_short(sequences: Sequence[SequenceSpec], name: str | None) -> None:
    """A sequence that does not fill the window of its taps allows no step."""
    for short in sequences:
        if 1 < short.window > short.rows:
            warn(
                f"{loop_label(name)}: {short.place}: {counted(short.rows, 'row')}, "
                f"fewer than the {short.window} that taps={list(short.taps)} span, so "
                "there is no step. Fix: pass a longer sequence, or n_steps=0."
            )


def _untold(bound: int | None) -> int:
    """The number of steps that sequences alone decide."""
    if bound is None:
        raise ScanValueError(
            "n_steps",
            needed="a number of steps, from sequences or from n_steps",
            came="neither",
            fix="pass n_steps=..., the bound of the loop if the step returns until",
        )
    return bound


def _traced(n_steps: Leaf, bound: int | None) -> tuple[int, Leaf | None]:
    came = f"a traced {type_text(n_steps)}"
    if n_steps.ndim or not jnp.issubdtype(n_steps.dtype, jnp.integer):
        raise ScanTypeError(
            "n_steps",
            needed="an integer scalar",
            came=came,
            fix="convert it with .astype(int)",
        )
    if bound is None:
        raise ScanValueError(
            "n_steps",
            needed="a bound for a number of steps that is only known at run time",
            came=f"{came} without sequences and max_steps",
            fix="pass max_steps=..., or mark n_steps static (static_argnums)",
        )
    if n_steps.dtype.itemsize < 4:  # it may not hold the bound
        n_steps = n_steps.astype(jnp.int32)
    most = min(bound, LONGEST) if isinstance(bound, int) else bound  # a symbol
    limit = jnp.clip(n_steps, 0, most).astype(jnp.int32)
    return bound, limit if bound else None  # no room: known to be 0 steps


def _check_lengths(count: int, sequences: Sequence[SequenceSpec]) -> None:
    for sequence in sequences:
        if sequence.steps < count:
            raise ScanValueError(
                sequence.place,
                needed=f"at least {counted(count, 'step')}, as n_steps={count} asks",
                came=f"{counted(sequence.steps, 'step')} "
                f"({counted(sequence.rows, 'row')}, taps={list(sequence.taps)})",
                fix=f"pass a longer sequence, or n_steps <= {sequence.steps}",
            )


def _as_count(value: Any, place: str) -> int:
    """A known number of steps, at least 0."""
    return at_least(
        0,
        value,
        place,
        needed="an integer scalar of at least 0",
        fix="for a reversed loop use go_backwards=True",
    )
