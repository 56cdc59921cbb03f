"""`vmap` of a bounded loop, and leaving out what nobody reads.

A loop under `vmap` keeps the body of one lane and gets lanes; only where all lanes run
the same steps for certain the body itself is batched.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.interpreters import batching, partial_eval

from . import _derive
from ._bounded import BoundedLoop, Parts, bounded_p
from ._masks import pick
from ._program import Program, as_structs
from ._types import Leaf

# -------------------------------------------------------------------------------- vmap


def _batch(
    inputs: Sequence[Leaf], axes: Sequence[int | None], *, loop: BoundedLoop
) -> tuple[list[Leaf], list[int]]:
    inputs = [jnp.asarray(leaf) for leaf in inputs]  # an input may be a literal
    size = next(
        leaf.shape[axis]
        for leaf, axis in zip(inputs, axes, strict=True)
        if axis is not None
    )
    if loop.lanes is None and not loop.has_stop and axes[0] is None and axes[1] is None:
        return _batch_alike(inputs, axes, loop, size)
    lanes = size * (loop.lanes or 1)
    old = loop.batched or (False,) * len(inputs)
    is_x = [False] * (len(inputs) - len(loop.sort(inputs).xs))
    is_x += [True] * (len(inputs) - len(is_x))
    needs_lanes = loop.sort([False] * len(inputs))
    needs_lanes = Parts(
        [True, True], needs_lanes.consts, [True] * loop.carry, needs_lanes.xs
    ).flat()
    values, flags = [], []
    for leaf, axis, had, x, needs in zip(
        inputs, axes, old, is_x, needs_lanes, strict=True
    ):
        flags.append(had or needs or axis is not None)
        position = 1 if x else 0
        if flags[-1]:
            leaf = _join_lanes(leaf, axis, had, position, size, loop.lanes)
        values.append(leaf)
    wide = dataclasses.replace(loop, lanes=lanes, batched=tuple(flags))
    results = wide.bind(values)
    places = [0] * (1 + loop.carry) + [1] * len(loop.row_avals)
    if loop.lanes is not None:
        results = [
            leaf.reshape(
                *leaf.shape[:place], size, loop.lanes, *leaf.shape[place + 1 :]
            )
            for leaf, place in zip(results, places, strict=True)
        ]
    return results, places


def _join_lanes(
    leaf: Leaf, axis: int | None, had: bool, position: int, size: int, lanes: int | None
) -> Leaf:
    """A leaf with one lane axis at `position`: the new lanes times the old ones."""
    if axis is None:
        leaf = jnp.broadcast_to(
            jnp.expand_dims(leaf, position),
            (*leaf.shape[:position], size, *leaf.shape[position:]),
        )
    else:
        leaf = jnp.moveaxis(leaf, axis, position)
    if lanes is None:
        return leaf
    head, tail = leaf.shape[: position + 1], leaf.shape[position + 1 :]
    if not had:
        leaf = jnp.broadcast_to(
            jnp.expand_dims(leaf, position + 1), (*head, lanes, *tail)
        )
        tail = (lanes, *tail)
    return leaf.reshape(*head[:-1], size * lanes, *tail[1:])


def _batch_alike(
    inputs: Sequence[Leaf], axes: Sequence[int | None], loop: BoundedLoop, size: int
) -> tuple[list[Leaf], list[int]]:
    """All lanes run the same steps: an ordinary batched body."""
    parts, places = loop.sort(inputs), loop.sort(axes)
    consts = [_move(leaf, a, 0) for leaf, a in zip(parts.consts, places.consts)]  # noqa: B905
    xs = [_move(leaf, a, 1) for leaf, a in zip(parts.xs, places.xs, strict=True)]
    carry = [
        _join_lanes(leaf, axis, False, 0, size, None)
        for leaf, axis in zip(parts.carry, places.carry, strict=True)
    ]
    body = _batched_body(
        loop.body,
        (
            *(None if axis is None else 0 for axis in places.consts),
            *[0] * loop.carry,
            *(None if axis is None else 0 for axis in places.xs),
        ),
        size,
    )
    wide = loop.with_body(body)
    results = wide.bind([*parts.range, *consts, *carry, *xs])
    rows = len(loop.row_avals)
    return results, [None, *[0] * loop.carry, *[1] * rows]  # type: ignore[list-item]


def _move(leaf: Leaf, axis: int | None, position: int) -> Leaf:
    return leaf if axis is None else jnp.moveaxis(leaf, axis, position)


@_derive.cached
def _batched_body(body: Program, axes: tuple[int | None, ...], size: int) -> Program:
    structs = [
        struct
        if axis is None
        else jax.ShapeDtypeStruct((size, *struct.shape), struct.dtype)
        for struct, axis in zip(as_structs(body.in_avals), axes, strict=True)
    ]
    return Program.trace(jax.vmap(body, in_axes=axes, axis_size=size), *structs)


# ----------------------------------------------------------------------------- pruning


def _prune(used_outputs: Sequence[bool], *rest: Any) -> tuple[list[bool], Any]:
    """Drop outputs nobody reads; JAX 0.12 passes one argument more than 0.10."""
    equation = rest[-1]
    loop: BoundedLoop = equation.params["loop"]
    if not any(used_outputs) and not loop.body.jaxpr.effects:
        return [False] * len(equation.invars), None
    carry = list(used_outputs[1 : 1 + loop.carry])
    rows = list(used_outputs[1 + loop.carry :])
    if loop.written is not None:
        return [True] * len(equation.invars), equation  # nobody will look at it again
    counter = loop.meter.counter if loop.meter else None
    if counter is not None:
        carry[counter] = True
    stop = [True] * loop.has_stop
    while True:
        body, used = _derive.prune(loop.body, (*carry, *rows, *stop))
        needed = loop.sort([True, True, *used]).carry
        grown = [a or b for a, b in zip(carry, needed, strict=True)]
        if grown == carry:
            break
        carry = grown
    keep = loop.sort([True, True, *used])
    keep = Parts(keep.range, keep.consts, carry, keep.xs)
    pruned = loop.with_body(
        _with_inputs(body, tuple(keep.flat()[2:]), used, loop.body),
        consts=sum(keep.consts),
        carry=sum(carry),
        batched=tuple(pick(loop.batched, keep.flat())) if loop.batched else (),
    )
    if loop.meter and counter is not None:
        meter = dataclasses.replace(loop.meter, counter=sum(carry[:counter]))
        pruned = dataclasses.replace(pruned, meter=meter)
    mask = [True, *carry, *rows]
    return keep.flat(), equation.replace(
        invars=pick(equation.invars, keep.flat()),
        outvars=pick(equation.outvars, mask),
        params={"loop": pruned},
    )


def _with_inputs(
    body: Program, wanted: Sequence[bool], used: Sequence[bool], whole: Program
) -> Program:
    """The pruned body with inputs it does not read but the loop still carries."""
    if list(wanted) == list(used):
        return body
    structs = as_structs(whole.in_avals)
    reads = pick(used, wanted)
    return Program.trace(
        lambda *values: body(*pick(values, reads)), *pick(structs, wanted)
    )


batching.primitive_batchers[bounded_p] = _batch
partial_eval.dce_rules[bounded_p] = _prune
