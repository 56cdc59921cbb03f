"""`scan`: the five stages, called in order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, SupportsIndex

import jax
import numpy as np

from jscan._base.errors import ScanNotImplementedError, signed
from jscan._base.lists import cut
from jscan._base.turns import NOTHING, Claim, Turn
from jscan._base.types import Leaf, PyTree
from jscan._base.verbs import verb
from jscan._execution.bar_plan import plan_bar
from jscan._execution.plan import LoopPlan, plan_loop
from jscan._execution.profile import records, run_timed
from jscan._execution.python_loop import run_in_python
from jscan._execution.results import (
    cut_rows,
    hold_rows,
    is_known,
    known_count,
    pack_outputs,
    repeat_last,
)
from jscan._execution.run import run_loop
from jscan._frontend.arguments import normalise
from jscan._frontend.hints import ORDER, SLIPS
from jscan._frontend.options import check_options
from jscan._frontend.result import ScanResult
from jscan._frontend.spec import Checkpoint, Mode, ScanSpec
from jscan._frontend.step import trace_step
from jscan._jax.traces import is_staging
from jscan._jax.types import is_traced
from jscan._loops.bars import running
from jscan._state import frames
from jscan._state.streams import hand_on
from jscan._state.updates import Updates


@verb(ORDER, SLIPS)
def scan(
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
) -> ScanResult:
    """Run a step function over sequences and its own past outputs.

    The step is called as ``fn(sequence taps..., past outputs..., non_sequences...)``:
    all taps of each sequence in written order, then all taps of each recurrent output
    in the order of `outputs_info`, then `non_sequences`. It returns its outputs,
    updates of shared variables (a dict), both, and last an `until`.

    Args:
        fn: The step: ordinary JAX code on slices without the time axis.
        sequences: An array ``[L, ...]`` (or a table that NumPy takes for one, such as
            those of pandas), a pytree of arrays with one leading length,
            ``dict(input=..., taps=[...])``, or a list of these. Step ``i`` sees row
            ``i - min(taps, 0) + tap``; a sequence allows
            ``L + min(taps, 0) - max(taps, 0)`` steps, the shortest one decides.
        outputs_info: One entry per output. None: a map output. An array, number or
            pytree: a state with tap -1, the initial without time axis.
            ``dict(initial=..., taps=[...])``: any negative taps, the initial
            ``[span, ...]`` with at least ``-min(taps)`` rows, oldest first. Left out:
            every output is a map output. Python numbers take the dtype that the step
            returns; a narrower initial is promoted.
        non_sequences: Constant arguments: arrays, numbers, pytrees, or a list of them.
            A shared variable among them is that variable: in a step it is worth what
            the step before left, and the step may update it. (As a sequence or an
            initial it is its value when the loop begins.)
        n_steps: Number of steps; default: what the sequences allow. 0 gives 0 rows. A
            traced number needs sequences or `max_steps` as a bound and is clamped to
            it.
        truncate_gradient: Differentiate only the last that many executed steps,
            map outputs included (-1: all).
        go_backwards: Run the steps from the sequences' end; output row 0 is the first
            iteration (unlike ``lax.scan(reverse=True)``).
        mode: None or ``"FAST_RUN"``: the optimizer may rewrite the loop, see
            `optimize`. ``"FAST_COMPILE"``: plain translation.
            ``"DEBUG"``: a Python loop on real values, checked for NaN and infinity.
        name: Reaches the profiler, and every error of this loop.
        profile: Collect calls, steps, times and costs of this loop in `jscan.profile`.
        allow_gc: Accepted for Theano's sake; has no effect.
        strict: Refuse a step that uses arrays or shared variables which do not come
            through its arguments. Variables in `non_sequences` may be updated.
        return_list: True: outputs are always a list.
        max_steps: Bound of a loop whose `n_steps` is traced.
        checkpoint: What the backward pass finds saved; the rest it computes again.
            All rows are returned whatever it is. For T steps:

            =============  ===================  ========================
            checkpoint     saved                steps run again
            =============  ===================  ========================
            None           every step's values  none
            N              T/N states, N steps  at most T
            "sqrt"         2 sqrt(T)            at most T
            "recursive"    8 log8(T)            at most T (log8(T) - 1)
            =============  ===================  ========================

            ``dict(every="sqrt", memory_kind="pinned_host")`` keeps the states that are
            saved in another memory of the device, such as that of the host.
        unroll: Steps per iteration of the compiled loop; None lets jscan choose. No
            effect on a loop that may stop early or shows a bar.
        progress: True, a label, or options of `tqdm`: show a bar. Needs the extra
            ``jscan[progress]``. The option `miniters` is the number of steps between
            two reports; by default 5 to 100 of them are made, a fifth of a second
            apart or more. A loop that fails under plain `jax.jit` leaves its bar on
            the screen until it runs again.

    Returns:
        A `ScanResult`, which unpacks as ``(outputs, updates)``. Outputs are stacked
        rows ``[T, ...]``: None, one tree, or a list. A loop that may end early
        (`until`, a traced `n_steps`) returns exactly the executed rows wherever their
        number is known: eagerly, also under `grad`, `jvp` and `vjp` outside of `jit`.
        Under `jit` and `vmap` it returns as many rows as there can be, in which the
        last executed row is repeated (zeros, if no step ran), with `n_steps` and
        `mask`; ``result.filled(0)`` has zeros in place of the repeated rows.

    Raises:
        ScanTypeError: An argument or a value returned by the step is of the wrong
            kind, or its dtype does not fit its state.
        ScanValueError: A wrong value, shape, length or tap.
        ScanNotImplementedError: An option this version does not support.
        NonFiniteError: ``mode="DEBUG"`` met a NaN or an infinity.

    Works under `jit`, `grad`, `jvp`, `vjp`, `hessian`, `vmap`, `jax.checkpoint`, in
    another scan and with sharded arrays; an eager call with a fresh lambda does not
    recompile. Source: Theano 0.9, ``theano.scan``.

    Example:
        >>> import jax, jax.numpy as jnp, jscan
        >>> def fibonacci(a, b):
        ...     return a + b
        >>> outputs, updates = jscan.scan(
        ...     fibonacci,
        ...     outputs_info=dict(initial=jnp.array([0, 1]), taps=[-2, -1]),
        ...     n_steps=6)
        >>> outputs.tolist()
        [1, 2, 3, 5, 8, 13]
        >>> def loss(w):  # an exponential average, and its derivative in w
        ...     rows, _ = jscan.scan(lambda x, h, w: w * h + x,
        ...                          sequences=jnp.ones(3), outputs_info=0.,
        ...                          non_sequences=w)
        ...     return rows[-1]
        >>> float(jax.grad(loss)(0.5))
        2.0
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
        return run_scan(spec)


def run_scan(spec: ScanSpec) -> ScanResult:
    """Run a validated call; the views of scan enter here."""
    if spec.options.mode == "DEBUG" or frames.runs_in_python():
        return _run_in_python(spec)
    step = trace_step(spec)
    if step.has_stop and spec.options.row_every is not None:
        raise ScanNotImplementedError(
            "until",
            needed="a loop that runs to its end, in scan_checkpoints",
            came="a step that returns until",
            fix="use scan(..., checkpoint=N), which stops",
        )
    # The loop takes its numbers in one piece, and keeps what it reads.
    claim = Claim(frozenset((*step.reads, *step.draws)), frozenset(step.draws))
    with Turn(claim if frames.sampling_frame() is None else NOTHING):
        plan, inputs = plan_loop(spec, step)
        leaves = _run_shown(plan, inputs)
        executed = known_count(leaves.pop()) if plan.is_bounded else spec.n_steps
        positions = hand_on(step.draws, executed, spec.bound)
    rows, held = plan.rows, plan.rows * plan.returns_last
    stacked, shared, last = cut(leaves, [rows, len(leaves) - rows - held, held])
    exact = isinstance(executed, int)
    if not exact and last:
        stacked = hold_rows(stacked, last, executed)
    trees = plan.results.children()
    outputs = jax.tree.unflatten(trees[0], stacked)
    values = jax.tree.unflatten(trees[1], shared)
    updates = Updates(zip(step.updated, values, strict=True)) + positions
    if exact and plan.is_bounded and not spec.options.last_only:
        outputs = cut_rows(outputs, executed)
    kept = executed if exact else spec.n_steps
    return _pack(spec, outputs, updates, executed, kept)


def _run_shown(plan: LoopPlan, inputs: list[Leaf]) -> list[Leaf]:
    """Run the loop; an eager one within its progress bar, and timed."""
    found = records(plan)
    if is_staging() or any(map(is_traced, inputs)):
        for record in found:
            record.traced += 1
        return run_loop(plan, inputs)
    with running(plan.bar):
        if found:
            return run_timed(plan, inputs, found)
        leaves = run_loop(plan, inputs)
        known = plan.bar and not any(map(is_traced, leaves))
        return jax.block_until_ready(leaves) if known else leaves


def _pack(
    spec: ScanSpec, outputs: list[PyTree], updates: Updates, executed: Any, rows: int
) -> ScanResult:
    packed = pack_outputs(outputs, return_list=spec.options.return_list)
    stacked = not spec.options.last_only
    return ScanResult(packed, updates, executed, rows, stacked=stacked)


def _run_in_python(spec: ScanSpec) -> ScanResult:
    with running(plan_bar(spec.n_steps, spec.options)):
        outputs, updates, executed = run_in_python(spec)
    every = spec.options.row_every
    if every is not None:
        ends = [*range(every - 1, executed - 1, every), executed - 1][: executed or 0]
        outputs = jax.tree.map(lambda leaf: leaf[np.array(ends, int)], outputs)
    elif spec.options.last_only:
        outputs = jax.tree.map(lambda leaf: leaf[-1], outputs)
    elif not all(map(is_known, jax.tree.leaves(outputs))):  # as the compiled loop does
        missing = spec.n_steps - executed
        outputs = jax.tree.map(lambda leaf: repeat_last(leaf, missing), outputs)
        return _pack(spec, outputs, updates, executed, spec.n_steps)
    return _pack(spec, outputs, updates, executed, executed)
