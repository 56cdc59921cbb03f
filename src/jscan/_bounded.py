"""A scan whose number of steps is only known when it runs, as one JAX primitive.

`bounded_p` runs the steps ``first <= index < last`` of a loop with room for `length`
rows, or fewer when its body says stop. Rows of steps that did not run are zero. It
lowers to a `while_loop` that writes into preallocated rows, so its cost follows the
steps that run.

Under `vmap` a loop keeps the body of *one* lane and the number of lanes. Every lane
has a range of its own, and a lane that is over keeps its state; because derivatives
are taken of the one-lane body, what a finished lane computes beyond its end cannot
reach a gradient, not even as a NaN.

A loop that runs all its steps is here for its progress bar (`_full.py`); without one
it is bound as the `lax.scan` it is. The rules are in `_bounded_derive.py` and
`_bounded_batch.py`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import mlir

from ._derive import CACHE_SIZE
from ._full import as_scan, run_full
from ._program import Program, as_structs
from ._progress import NOTHING_TOLD, Meter, after
from ._rows import read_row, write_row, zeros
from ._types import Leaf, PyTree
from .optimize import OwnLoop, register_loop

bounded_p = Primitive("jscan_bounded")
bounded_p.multiple_results = True

Step = Callable[[PyTree, PyTree], tuple[PyTree, PyTree, Leaf | None]]


@dataclass(frozen=True)
class Parts:
    """The inputs of a bounded loop, or anything that has one entry for each."""

    range: list[Any]
    consts: list[Any]
    carry: list[Any]
    xs: list[Any]

    def flat(self) -> list[Any]:
        """All entries in the order of the primitive's inputs."""
        return [*self.range, *self.consts, *self.carry, *self.xs]


@dataclass(frozen=True)
class BoundedLoop:
    """Everything about a bounded loop but its arrays.

    Attributes:
        body: ``(consts, carry, slices) -> (carry, rows[, stop])`` of one lane.
        consts: Number of constant inputs.
        carry: Number of carried values.
        length: Rows of every sequence and of every stacked output.
        reverse: Run from ``last - 1`` down to ``first``.
        has_stop: The last output of the body ends the loop when it is true.
        lanes: Number of independent lanes, or None.
        batched: For every input, whether it has a lane axis: the leading one, in
            sequences the second. Ranges and carries of a loop with lanes all have it.
        meter: The progress bar the loop reports to. No result depends on it.
        is_full: Every step runs, whatever the values are: the loop is a `lax.scan`.
        written: A full loop as the optimizer wrote it, ``(consts, carry, xs) ->
            (carry, rows)``, which runs in place of `body`.
    """

    body: Program
    consts: int
    carry: int
    length: int
    reverse: bool = False
    has_stop: bool = False
    lanes: int | None = None
    batched: tuple[bool, ...] = ()
    meter: Meter | None = None
    is_full: bool = False
    written: Program | None = None

    def sort(self, inputs: Sequence[Any]) -> Parts:
        """Split one entry per input by kind."""
        carry = 2 + self.consts
        xs = carry + self.carry
        return Parts(
            list(inputs[:2]),
            list(inputs[2:carry]),
            list(inputs[carry:xs]),
            list(inputs[xs:]),
        )

    @property
    def row_avals(self) -> list[Any]:
        """Types of one lane's stacked outputs in one step."""
        avals = self.body.out_avals[self.carry :]
        return avals[:-1] if self.has_stop else avals

    @property
    def out_structs(self) -> list[jax.ShapeDtypeStruct]:
        """Types of the results: the end, the final carry, the rows."""
        lanes = () if self.lanes is None else (self.lanes,)
        carry = self.body.out_avals[: self.carry]
        return [
            jax.ShapeDtypeStruct(lanes, jnp.int32),
            *[jax.ShapeDtypeStruct((*lanes, *a.shape), a.dtype) for a in carry],
            *[
                jax.ShapeDtypeStruct((self.length, *lanes, *a.shape), a.dtype)
                for a in self.row_avals
            ],
        ]

    def bind(self, inputs: Sequence[Leaf]) -> list[Leaf]:
        """Run on flat inputs: ``first, last``, consts, carry, sequences.

        Returns:
            The index after the last step that ran, the final carry, the rows.
        """
        if self.is_full and self.meter is None:
            return run_full(self, inputs)  # a scan, which the optimizer understands
        return bounded_p.bind(*inputs, loop=self)

    def with_body(self, body: Program, **changes: Any) -> BoundedLoop:
        """The loop with another body."""
        return dataclasses.replace(self, body=body, written=None, **changes)


def bounded_loop(
    step: Step,
    carry: PyTree,
    xs: PyTree,
    *,
    length: int,
    steps: Leaf | int,
    meter: Meter | None = None,
) -> tuple[PyTree, PyTree, Leaf]:
    """Run `step` at most `steps` times.

    Args:
        step: ``(carry, slices) -> (carry, rows, stop)``; `stop` is a boolean scalar
            after which the loop ends, or None. Arrays it closes over are constants.
        carry: State before the first step.
        xs: Sequences ``[length, ...]``.
        length: Most steps there can be.
        steps: Steps to run, an integer scalar of at most `length`; a Python number if
            every step runs.
        meter: A progress bar to report to; its counter, if any, is a leaf of `carry`.

    Returns:
        The final carry, rows ``[length, ...]`` (zero where no step ran), and the
        number of steps that ran.
    """
    first, tree = jax.tree.flatten(carry)
    slices, slices_tree = jax.tree.flatten(xs)
    trees: list[Any] = []

    def flat(state: Sequence[Leaf], row: Sequence[Leaf]) -> list[Leaf]:
        new, rows, stop = step(tree.unflatten(state), slices_tree.unflatten(row))
        trees[:] = [jax.tree.structure(rows), stop is not None]
        new = [
            jax.lax.convert_element_type(leaf, like.dtype)  # strong, as the state is
            for leaf, like in zip(jax.tree.leaves(new), first, strict=True)
        ]
        return [*new, *jax.tree.leaves(rows), *([] if stop is None else [stop])]

    first = [_strong(leaf) for leaf in first]
    types = [jax.typeof(leaf) for leaf in first], [_row_type(leaf) for leaf in slices]
    body, consts = Program.close(jax.make_jaxpr(flat)(*as_structs(types)))
    rows_tree, has_stop = trees
    is_full = isinstance(steps, int) and steps == length and not has_stop
    counts = len(consts), len(first), length
    loop = BoundedLoop(body, *counts, has_stop=has_stop, meter=meter, is_full=is_full)
    bounds = [jnp.int32(0), jnp.asarray(steps, jnp.int32)]
    end, *results = loop.bind([*bounds, *consts, *first, *slices])
    final, rows = results[: len(first)], results[len(first) :]
    return tree.unflatten(final), rows_tree.unflatten(rows), end


def _strong(leaf: Leaf) -> Leaf:
    leaf = jnp.asarray(leaf)
    return jax.lax.convert_element_type(leaf, leaf.dtype)


def _row_type(leaf: Leaf) -> Any:
    return jax.typeof(leaf).update(shape=leaf.shape[1:])


# ---------------------------------------------------------------- evaluation, lowering


def run(*inputs: Leaf, loop: BoundedLoop) -> list[Leaf]:
    """The loop as a `while_loop`; as the scan it is if all its steps run."""
    if loop.is_full:
        return run_full(loop, inputs)
    parts = loop.sort(inputs)
    first, last = parts.range
    low, high = (first, last) if loop.lanes is None else (first.min(), last.max())
    structs = loop.out_structs
    rows = [zeros(struct) for struct in structs[1 + loop.carry :]]
    going = jnp.ones(structs[0].shape, bool)
    evaluate = _lane_body(loop, parts)

    def proceed(state: Any) -> Leaf:
        index, going, *_ = state
        return (index >= low) & (index < high) & going.any()

    def advance(state: Any) -> Any:
        index, going, end, carry, rows = state
        results = evaluate(carry, [read_row(leaf, index) for leaf in parts.xs])
        new, fresh = results[: loop.carry], results[loop.carry :]
        stop = fresh.pop() if loop.has_stop else jnp.zeros_like(going)
        if loop.lanes is not None:
            active = going & (index >= first) & (index < last)
            new = [_choose(active, n, old) for n, old in zip(new, carry, strict=True)]
            fresh = [_choose(active, leaf, zeros(leaf)) for leaf in fresh]
            stop, end = active & stop, jnp.where(active, index + 1, end)
        rows = [write_row(b, leaf, index) for b, leaf in zip(rows, fresh, strict=True)]
        return index + (-1 if loop.reverse else 1), going & ~stop, end, new, rows

    start = high - 1 if loop.reverse else low
    state = (start, going, first, parts.carry, rows)
    state = _repeat(proceed, advance, state, loop.meter)
    index, _, end, carry, rows = state
    if not loop.has_stop:
        end = jnp.maximum(first, last)
    elif loop.lanes is None:
        end = index
    return [end, *carry, *rows]


def _repeat(
    proceed: Callable[[Any], Leaf],
    advance: Callable[[Any], Any],
    state: Any,
    meter: Meter | None,
) -> Any:
    """A `while_loop`; with a meter, one of stretches after which it reports.

    The inner loops write into the same rows, so nothing is copied.
    """
    if meter is None:
        return jax.lax.while_loop(proceed, advance, state)
    first = state[0]

    def stretch(told_and_state: Any) -> Any:
        told, state = told_and_state
        index, _, _, carry, _ = state
        told = meter.report(index - first, carry, told)
        return told, jax.lax.while_loop(
            lambda now: proceed(now) & (now[0] < index + meter.every), advance, state
        )

    told, state = jax.lax.while_loop(
        lambda now: proceed(now[1]), stretch, (NOTHING_TOLD, state)
    )
    index, _, _, carry, rows = state
    if meter.closes:
        meter.report(after(index - first, (carry, rows)), carry, told, last=True)
    return state


def _lane_body(loop: BoundedLoop, parts: Parts) -> Callable[..., list[Leaf]]:
    """``(carry, slices) -> outputs`` of all lanes."""
    if loop.lanes is None:
        return lambda carry, slices: loop.body(*parts.consts, *carry, *slices)
    flags = loop.sort(loop.batched)
    axes = [0 if flag else None for flag in (*flags.consts, *flags.carry, *flags.xs)]
    every = jax.vmap(loop.body, in_axes=tuple(axes), axis_size=loop.lanes)
    return lambda carry, slices: every(*parts.consts, *carry, *slices)


def _choose(lanes: Leaf, new: Leaf, old: Leaf) -> Leaf:
    """Per lane, the new value or the old one."""
    return jax.vmap(lambda lane, *cases: jax.lax.select(lane, *cases))(lanes, new, old)


@functools.lru_cache(maxsize=CACHE_SIZE)
def _compiled(loop: BoundedLoop) -> Callable[..., list[Leaf]]:
    return jax.jit(functools.partial(run, loop=loop))


def _evaluate(*inputs: Leaf, loop: BoundedLoop) -> list[Leaf]:
    return _compiled(loop)(*inputs)


def _abstract(*_: Any, loop: BoundedLoop) -> tuple[list[Any], Any]:
    avals = [ShapedArray(s.shape, s.dtype) for s in loop.out_structs]
    return avals, loop.body.jaxpr.effects


# The derivative, batching and pruning rules are registered there.
bounded_p.def_impl(_evaluate)
bounded_p.def_effectful_abstract_eval(_abstract)
mlir.register_lowering(bounded_p, mlir.lower_fun(run, multiple_results=True))


def _scan_of(params: Any) -> Any:
    """For the optimizer: the loop as a scan, if it is one and not yet rewritten."""
    loop: BoundedLoop = params["loop"]
    return as_scan(loop).jaxpr if loop.is_full and loop.written is None else None


def _with_scan(params: Any, program: Any) -> dict[str, Any]:
    return {"loop": dataclasses.replace(params["loop"], written=Program(program))}


def _is_watched(params: Any) -> bool:
    return params["loop"].meter is not None


register_loop(bounded_p, OwnLoop(_scan_of, _with_scan, _is_watched))
