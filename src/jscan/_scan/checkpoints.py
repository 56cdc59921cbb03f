"""Theano's `scan_checkpoints`: rows at chunk ends, gradients by recomputation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, SupportsIndex

from jscan._base.errors import ScanNotImplementedError, signed
from jscan._base.verbs import verb
from jscan._frontend.arguments import normalise
from jscan._frontend.hints import ORDER, VIEW_SLIPS
from jscan._frontend.options import check_options
from jscan._frontend.result import ScanResult
from jscan._frontend.spec import ScanSpec
from jscan._scan.scan import run_scan


@verb(ORDER, VIEW_SLIPS)
def scan_checkpoints(
    fn: Callable[..., Any],
    sequences: Any = None,
    outputs_info: Any = None,
    non_sequences: Any = None,
    name: str | None = "checkpointscan_fn",
    n_steps: SupportsIndex | None = None,
    save_every_N: SupportsIndex = 10,
    padding: bool = True,
) -> ScanResult:
    """Scan, keeping only every N-th row and the last one.

    The backward pass recomputes the steps in between. To have all rows returned and
    the same memory in the backward pass, use ``scan(..., checkpoint=N)``.

    Args:
        fn: As in `scan`, without `until`.
        sequences: As in `scan`, of any length.
        outputs_info: As in `scan`, without taps; map outputs may stand anywhere.
        non_sequences: As in `scan`; none are needed.
        name: As in `scan`.
        n_steps: As in `scan`, known while tracing.
        save_every_N: Steps per chunk, N.
        padding: Accepted for Theano's sake; a last chunk of fewer steps needs none.

    Returns:
        A `ScanResult` whose outputs are rows ``[ceil(T / N), ...]``: those of steps N,
        2N, ... and of the last step. `n_steps` is the number of steps, T.

    Raises:
        ScanError: As `scan` does.
        ScanNotImplementedError: Taps, as in Theano (a RuntimeError); `until`.

    Works where `scan` works. Source: Theano 0.9, ``scan_checkpoints``, which could not
    take sequences.

    Example:
        >>> import jax.numpy as jnp, jscan
        >>> powers, _ = jscan.scan_checkpoints(
        ...     lambda h, a: h * a, outputs_info=jnp.ones(()), non_sequences=2.0,
        ...     n_steps=5, save_every_N=2)
        >>> powers.tolist()  # after steps 2, 4 and 5
        [4.0, 16.0, 32.0]
    """
    with signed(name):
        options = check_options(name=name, last_only=True, row_every=save_every_N)
        spec = normalise(fn, sequences, outputs_info, non_sequences, n_steps, options)
        _refuse(spec, outputs_info)
        return run_scan(spec)


def _refuse(spec: ScanSpec, outputs_info: Any) -> None:
    """Taps, and a number of steps that only the running program knows."""
    entries = outputs_info if isinstance(outputs_info, list | tuple) else [outputs_info]
    tapped = [e for e in entries if isinstance(e, dict) and "taps" in e]
    if not tapped and spec.limit is None:
        return
    raise ScanNotImplementedError(
        "scan_checkpoints",
        needed="states without taps and a known n_steps",
        came=f"taps={tapped[0]['taps']}" if tapped else "a traced n_steps",
        fix="use scan(..., checkpoint=N), which supports both",
    )
