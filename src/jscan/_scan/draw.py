"""`draw`: a picture of a loop, which is not run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, SupportsIndex

from jscan._base.errors import signed
from jscan._base.verbs import verb
from jscan._frontend.arguments import normalise
from jscan._frontend.drawing import Drawing
from jscan._frontend.flow import flow_of
from jscan._frontend.hints import ORDER, SLIPS
from jscan._frontend.options import check_options
from jscan._frontend.spec import Checkpoint, Mode
from jscan._frontend.step import trace_step


@verb(ORDER, SLIPS)
def draw(
    fn: Callable[..., Any],
    sequences: Any = None,
    outputs_info: Any = None,
    non_sequences: Any = None,
    n_steps: SupportsIndex | None = None,
    truncate_gradient: int = -1,
    go_backwards: bool = False,
    mode: Mode | None = None,
    name: str | None = None,
    profile: bool | str = False,
    allow_gc: bool | None = None,
    strict: bool = False,
    return_list: bool = False,
    *,
    max_steps: SupportsIndex | None = None,
    checkpoint: Checkpoint | dict[str, Any] = None,
    unroll: int | bool | None = None,
    progress: bool | str | dict[str, Any] | None = False,
) -> Drawing:
    """Draw what a loop reads and writes: the same arguments as `scan`, and no run.

    The picture has the sequences and states with their taps, constants, what the step
    captures or reads of shared variables and random streams, its outputs and updates,
    each with its type, and `until`. Names are those of the caller's variables, else
    of the step's arguments.

    Args:
        fn: As in `scan`; it is traced, nothing is run and nothing stored.
        sequences: As in `scan`.
        outputs_info: As in `scan`.
        non_sequences: As in `scan`.
        n_steps: As in `scan`.
        truncate_gradient: As in `scan`, like all below: they are checked, and of
            those the picture shows `name` and `go_backwards`.
        go_backwards: As in `scan`.
        mode: As in `scan`.
        name: As in `scan`.
        profile: As in `scan`.
        allow_gc: As in `scan`.
        strict: As in `scan`.
        return_list: As in `scan`.
        max_steps: As in `scan`.
        checkpoint: As in `scan`.
        unroll: As in `scan`.
        progress: As in `scan`.

    Returns:
        A `Drawing`: text in a terminal, SVG in a notebook, `svg` to be saved.

    Raises:
        ScanError: As `scan` does.

    Works in every transform: it needs the types of its arguments alone.

    Example:
        >>> import jax.numpy as jnp, jscan
        >>> x, y = jnp.ones(9), jnp.zeros(2)
        >>> jscan.draw(lambda x, before, last, w: w * last - before + x, x,
        ...            dict(initial=y, taps=[-2, -1]), 1.9, name="wave")
        scan 'wave': 9 steps
        step(x[t], y[t-2], y[t-1], w)
        <BLANKLINE>
          sequence  x  float32[9]  x[t]            ─┐
          state     y  float32[]   y[t-2], y[t-1]  ─┤◀─╮
          constant  w  float32[]   w               ─┤  │
                                                    ▼  │
          step                                         │
                                                    │  │
          output    y  float32[9]  y[t]           ◀─┘──╯
    """
    with signed(name):
        options = check_options(
            name=name,
            mode=mode,
            truncate_gradient=truncate_gradient,
            go_backwards=go_backwards,
            strict=strict,
            return_list=return_list,
            profile=profile,
            unroll=unroll,
            checkpoint=checkpoint,
            progress=progress,
        )
        spec = normalise(
            fn, sequences, outputs_info, non_sequences, n_steps, options, max_steps
        )
        return Drawing(flow_of(spec, trace_step(spec)))
