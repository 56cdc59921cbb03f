"""Theano's views of scan: `map`, `reduce`, `foldl`, `foldr`.

As in Theano the step sees the elements first and the accumulators second, the other
way round than `functools.reduce`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from jscan._base.errors import ScanValueError, signed
from jscan._base.verbs import verb
from jscan._execution.results import pack_outputs
from jscan._frontend.arguments import normalise
from jscan._frontend.hints import ORDER, VIEW_SLIPS
from jscan._frontend.options import check_options
from jscan._frontend.result import ScanResult
from jscan._frontend.spec import Checkpoint, Mode, OutputSpec, ScanSpec
from jscan._frontend.step import trace_step
from jscan._scan.scan import run_scan, scan


@verb(ORDER, VIEW_SLIPS)
def map(
    fn: Callable[..., Any],
    sequences: Any,
    non_sequences: Any = None,
    truncate_gradient: int = -1,
    go_backwards: bool = False,
    mode: Mode | None = None,
    name: str | None = None,
) -> ScanResult:
    """Apply a function to every element of its sequences.

    Args:
        fn: ``fn(elements..., non_sequences...)``.
        sequences: As in `scan`, several in a list (`map` of Python takes them one by
            one); taps are allowed.
        non_sequences: As in `scan`.
        truncate_gradient: As in `scan`.
        go_backwards: As in `scan`.
        mode: As in `scan`.
        name: As in `scan`.

    Returns:
        A `ScanResult`; outputs are stacked, ``[T, ...]``.

    Raises:
        ScanError: As `scan` does.

    Works where `scan` works. Source: Theano 0.9, ``theano.map``.

    Example:
        >>> import jax.numpy as jnp, jscan
        >>> squares, _ = jscan.map(lambda x: x * x, jnp.arange(4))
        >>> squares.tolist()
        [0, 1, 4, 9]
    """
    return scan(
        fn,
        sequences,
        None,
        non_sequences,
        truncate_gradient=truncate_gradient,
        go_backwards=go_backwards,
        mode=mode,
        name=name,
    )


@verb(ORDER, VIEW_SLIPS)
def reduce(
    fn: Callable[..., Any],
    sequences: Any,
    outputs_info: Any,
    non_sequences: Any = None,
    go_backwards: bool = False,
    mode: Mode | None = None,
    name: str | None = None,
    *,
    checkpoint: Checkpoint | dict[str, Any] = None,
) -> ScanResult:
    """Fold the sequences and return only the last row of every output.

    Rows before the last are never stored; with `checkpoint` the gradient stores no more
    than that says.

    Args:
        fn: ``fn(elements..., accumulators..., non_sequences...)`` returns the new
            accumulators.
        sequences: As in `scan`.
        outputs_info: The initial accumulators, as in `scan`; None entries give the
            last value of a map output.
        non_sequences: As in `scan`.
        go_backwards: Fold from the end.
        mode: As in `scan`.
        name: As in `scan`.
        checkpoint: As in `scan`.

    Returns:
        A `ScanResult` whose outputs have no time axis: one tree, or a list. Over an
        empty sequence an accumulator is its initial value (Theano raises here).

    Raises:
        ScanError: As `scan` does; also for a map output over an empty sequence, which
            has no last value.

    Works where `scan` works. Source: Theano 0.9, ``theano.reduce``.

    Example:
        >>> import jax.numpy as jnp, jscan
        >>> number, _ = jscan.reduce(
        ...     lambda digit, number: digit + 10 * number, jnp.array([1, 2, 3]), 0)
        >>> int(number)
        123
    """
    with signed(name):
        options = check_options(
            name=name,
            mode=mode,
            go_backwards=go_backwards,
            checkpoint=checkpoint,
            last_only=True,
        )
        spec = normalise(fn, sequences, outputs_info, non_sequences, None, options)
        return run_scan(spec) if spec.n_steps else _reduce_nothing(spec)


def _reduce_nothing(spec: ScanSpec) -> ScanResult:
    """A fold of no steps: the initial values, in the types the loop would carry."""
    step = trace_step(spec)
    outputs = [_newest_initial(output) for output in step.outputs]
    options = dataclasses.replace(spec.options, last_only=False)
    updates = run_scan(dataclasses.replace(spec, options=options)).updates
    packed = pack_outputs(outputs, return_list=False)
    return ScanResult(packed, updates, 0, rows=0)


def _newest_initial(output: OutputSpec) -> Any:
    if output.is_state:
        return jax.tree.map(lambda leaf: leaf[-1], output.initial_rows())
    raise ScanValueError(
        output.place,
        needed="at least one step for the last value of a map output",
        came="sequences that allow 0 steps",
        fix="give the output an initial value, or a longer sequence",
    )


@verb(ORDER, VIEW_SLIPS)
def foldl(
    fn: Callable[..., Any],
    sequences: Any,
    outputs_info: Any,
    non_sequences: Any = None,
    mode: Mode | None = None,
    name: str | None = None,
    *,
    checkpoint: Checkpoint | dict[str, Any] = None,
) -> ScanResult:
    """`reduce` from the first element to the last.

    Args:
        fn: ``fn(elements..., accumulators..., non_sequences...)``.
        sequences: As in `scan`.
        outputs_info: As in `reduce`.
        non_sequences: As in `scan`.
        mode: As in `scan`.
        name: As in `scan`.
        checkpoint: As in `scan`.

    Returns:
        As `reduce`.

    Raises:
        ScanError: As `reduce` does.

    Works where `scan` works. Source: Theano 0.9, ``theano.foldl``.

    Example:
        >>> import jax.numpy as jnp, jscan
        >>> float(jscan.foldl(lambda x, acc: x - acc, jnp.array([1., 2., 3.]), 0.)[0])
        2.0
    """
    given = fn, sequences, outputs_info, non_sequences, False, mode, name
    return reduce(*given, checkpoint=checkpoint)


@verb(ORDER, VIEW_SLIPS)
def foldr(
    fn: Callable[..., Any],
    sequences: Any,
    outputs_info: Any,
    non_sequences: Any = None,
    mode: Mode | None = None,
    name: str | None = None,
    *,
    checkpoint: Checkpoint | dict[str, Any] = None,
) -> ScanResult:
    """`reduce` from the last element to the first.

    Args:
        fn: ``fn(elements..., accumulators..., non_sequences...)``.
        sequences: As in `scan`; unequal lengths are aligned at their ends.
        outputs_info: As in `reduce`.
        non_sequences: As in `scan`.
        mode: As in `scan`.
        name: As in `scan`.
        checkpoint: As in `scan`.

    Returns:
        As `reduce`.

    Raises:
        ScanError: As `reduce` does.

    Works where `scan` works. Source: Theano 0.9, ``theano.foldr``.

    Example:
        >>> import jax.numpy as jnp, jscan
        >>> float(jscan.foldr(lambda x, acc: x - acc, jnp.array([1., 2., 4.]), 0.)[0])
        3.0
    """
    given = fn, sequences, outputs_info, non_sequences, True, mode, name
    return reduce(*given, checkpoint=checkpoint)
