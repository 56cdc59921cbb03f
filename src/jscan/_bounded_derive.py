"""The derivative of a bounded loop, and the transpose of a linear one.

* Derivative: the loop runs once and stacks what its linear part needs to know; the
  linear part is a second loop over exactly the steps that ran. JAX finds the first
  known and the second linear, which is all that reverse mode asks for.
* Transpose: the linear loop backwards, from the last step that ran to the first. The
  cotangents of constants add up in the carry.

Both are bounded loops again, so that every order of derivative follows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.interpreters import ad

from . import _derive
from ._bounded import BoundedLoop, Parts, bounded_p
from ._masks import cut, others, pick, spread
from ._program import Program, as_structs, open_jaxpr
from ._types import Leaf

# -------------------------------------------------------------------------- derivative


def _differentiate(
    primals: Sequence[Leaf], tangents: Sequence[Any], *, loop: BoundedLoop
) -> tuple[list[Leaf], list[Any]]:
    inputs, rates = loop.sort(primals), loop.sort(tangents)
    moving = _moving_inputs(loop, Parts(*map(_are_moving, _kinds(rates))))
    if not any(moving.flat()):
        results = loop.bind(primals)
        return results, [_zero(leaf) for leaf in results]
    split = _derive.linearize(loop.body, tuple(moving.flat()[2:]))
    results, known = _run_forward(loop, inputs, split)
    rates = Parts(*map(list, map(_instantiate, _kinds(rates))))
    linear, flags = _linear_body(loop, moving, known, split.linear)
    live = [pick(a, b) for a, b in zip(_kinds(rates), _kinds(moving), strict=True)]
    pushed = linear.bind(
        [
            inputs.range[0],
            results[0],  # the linear loop ends where the first one did
            *known.consts,
            *live[1],
            *live[2],
            *known.xs,
            *live[3],
        ]
    )
    fresh = iter(pushed[1:])
    return results, [
        next(fresh) if flag else _zero(leaf)
        for flag, leaf in zip(flags, results, strict=True)
    ]


@dataclasses.dataclass(frozen=True)
class _Known:
    """What the linear loop reads: constants, stacked rows, and where each belongs."""

    consts: list[Leaf]
    xs: list[Leaf]
    order: tuple[tuple[str, int], ...]  # of the residuals: ("const" | "row", position)
    batched_consts: tuple[bool, ...]
    batched_xs: tuple[bool, ...]


def _run_forward(
    loop: BoundedLoop, inputs: Parts, split: _derive.Linearized
) -> tuple[list[Leaf], _Known]:
    """Run the loop with the rows its linear part needs stacked beside its own."""
    outputs = len(loop.body.out_avals)
    rows = len(loop.row_avals)
    flags = loop.sort(loop.batched or (False,) * len(inputs.flat()))
    extras: dict[tuple[str, int], int] = {}
    consts, xs, order = {}, {}, []
    for kind, index in split.sources:
        if kind == "input" and index < loop.consts:
            order.append(("const", _position(consts, (kind, index))))
        else:
            order.append(("row", _position(xs, (kind, index))))
    for kind, index in xs:
        own_row = loop.carry <= index < loop.carry + rows
        if kind == "input" and index >= loop.consts + loop.carry:
            continue  # a slice of a sequence, which is there already
        if not (kind == "output" and own_row):
            extras.setdefault((kind, index), len(extras))
    forward = _with_extra_rows(loop, split, tuple(extras), outputs)
    end, *results = forward.bind(inputs.flat())
    stacked, extra = results[: loop.carry + rows], results[loop.carry + rows :]

    def row(source: tuple[str, int]) -> tuple[Leaf, bool]:
        kind, index = source
        if source in extras:
            return extra[extras[source]], True
        if kind == "output":
            return stacked[index], True
        position = index - loop.consts - loop.carry
        return inputs.xs[position], flags.xs[position]

    read = [row(source) for source in xs]
    known = _Known(
        consts=[inputs.consts[index] for _, index in consts],
        xs=[leaf for leaf, _ in read],
        order=tuple(order),
        batched_consts=tuple(flags.consts[index] for _, index in consts),
        batched_xs=tuple(flag for _, flag in read),
    )
    return [end, *stacked], known


def _position(places: dict[Any, int], source: Any) -> int:
    return places.setdefault(source, len(places))


@_derive.cached
def _with_extra_rows(
    loop: BoundedLoop,
    split: _derive.Linearized,
    extras: tuple[tuple[str, int], ...],
    outputs: int,
) -> BoundedLoop:
    """`loop` with more rows: residuals, states before the step or after it."""

    def body(*inputs: Leaf) -> list[Leaf]:
        results = split.forward(*inputs)
        found = {"input": inputs, "output": results, "residual": results[outputs:]}
        rows = [found[kind][index] for kind, index in extras]
        own = results[: outputs - loop.has_stop]
        return [*own, *rows, *results[len(own) : outputs]]

    program = Program.trace(body, *as_structs(loop.body.in_avals))
    return loop.with_body(program)


def _linear_body(
    loop: BoundedLoop, moving: Parts, known: _Known, linear: Program
) -> tuple[BoundedLoop, list[bool]]:
    """The loop of the linear part, and which results of `loop` have a tangent."""
    avals = loop.body.out_avals[: loop.carry] + loop.row_avals
    smooth = [_derive.is_differentiable(aval) for aval in avals]
    kept = [*moving.carry, *smooth[loop.carry :]]
    flags = loop.sort(loop.batched or (False,) * len(moving.flat()))
    batched: tuple[bool, ...] = ()
    if loop.lanes is not None:
        batched = (
            *(True, True),
            *known.batched_consts,
            *pick(flags.consts, moving.consts),
            *pick(flags.carry, moving.carry),
            *known.batched_xs,
            *pick(flags.xs, moving.xs),
        )
    body = _reordered_linear(
        linear,
        known.order,
        (sum(moving.consts), sum(moving.carry), sum(moving.xs)),
        tuple(keep for keep, is_smooth in zip(kept, smooth, strict=True) if is_smooth),
    )
    return (
        BoundedLoop(
            body=body,
            consts=len(known.consts) + sum(moving.consts),
            carry=sum(moving.carry),
            length=loop.length,
            reverse=loop.reverse,
            lanes=loop.lanes,
            batched=batched,
            is_full=loop.is_full,
        ),
        [False, *(keep and s for keep, s in zip(kept, smooth, strict=True))],
    )


@_derive.cached
def _reordered_linear(
    linear: Program,
    order: tuple[tuple[str, int], ...],
    counts: tuple[int, int, int],
    kept: tuple[bool, ...],
) -> Program:
    """`linear` as a loop body: known consts, rates of consts and carry, rows, rates.

    Of its outputs, one per differentiable output of the loop's body, the loop has only
    the `kept` ones; the body's stop condition is not differentiable.
    """
    residuals = as_structs(linear.in_avals[: len(order)])
    rates = as_structs(linear.in_avals[len(order) :])
    structs: dict[str, dict[int, Any]] = {"const": {}, "row": {}}
    for (kind, position), struct in zip(order, residuals, strict=True):
        structs[kind][position] = struct
    known = {k: [found[i] for i in range(len(found))] for k, found in structs.items()}
    consts, carry, xs = cut(rates, counts)

    def body(
        fixed: Sequence[Leaf],
        const_rates: Sequence[Leaf],
        carry_rates: Sequence[Leaf],
        rows: Sequence[Leaf],
        x_rates: Sequence[Leaf],
    ) -> list[Leaf]:
        found = {"const": fixed, "row": rows}
        values = [found[kind][position] for kind, position in order]
        results = linear(*values, *const_rates, *carry_rates, *x_rates)
        return pick(results, kept)

    return Program.trace(body, known["const"], consts, carry, known["row"], xs)


def _moving_inputs(loop: BoundedLoop, moving: Parts) -> Parts:
    """Add the carried values that come to move because others do."""
    carry = moving.carry
    while True:
        body = open_jaxpr(loop.body.jaxpr)
        flags = [*moving.consts, *carry, *moving.xs]
        live = {v for v, flag in zip(body.invars, flags, strict=True) if flag}
        for equation in body.eqns:
            if any(not hasattr(a, "val") and a in live for a in equation.invars):
                live.update(
                    v for v in equation.outvars if _derive.is_differentiable(v.aval)
                )
        reached = [
            flag or (not hasattr(atom, "val") and atom in live)
            for flag, atom in zip(carry, body.outvars[: loop.carry], strict=True)
        ]
        if reached == carry:
            return Parts([False, False], moving.consts, carry, moving.xs)
        carry = reached


# --------------------------------------------------------------------------- transpose


def _transpose(
    cotangents: Sequence[Any], *inputs: Any, loop: BoundedLoop
) -> list[Leaf | None]:
    parts = loop.sort(inputs)
    linear = Parts(*map(_are_undefined, _kinds(parts)))
    if any(linear.range):
        raise NotImplementedError("jscan: a loop is not linear in its number of steps")
    carry_in = list(map(ad.instantiate_zeros, cotangents[1 : 1 + loop.carry]))
    row_cts = cotangents[1 + loop.carry :]
    wanted = tuple(_are_moving(row_cts))
    flags = loop.sort(loop.batched or (False,) * len(inputs))
    pulled = _pulled_body(
        loop.body,
        loop.carry,
        tuple(linear.consts),
        tuple(linear.carry),
        tuple(linear.xs),
        wanted,
    )
    known_consts = pick(parts.consts, others(linear.consts))
    known_xs = pick(parts.xs, others(linear.xs))
    lanes = () if loop.lanes is None else (loop.lanes,)
    sums = [
        jnp.zeros((*lanes, *a.shape), a.dtype)
        for a in pick(loop.body.in_avals[: loop.consts], linear.consts)
    ]
    back = BoundedLoop(
        body=pulled,
        consts=len(known_consts),
        carry=len(sums) + loop.carry,
        length=loop.length,
        reverse=not loop.reverse,
        lanes=loop.lanes,
        is_full=loop.is_full,
        batched=()
        if loop.lanes is None
        else (
            *(True, True),
            *pick(flags.consts, others(linear.consts)),
            *[True] * (len(sums) + loop.carry),
            *pick(flags.xs, others(linear.xs)),
            *[True] * sum(wanted),
        ),
    )
    values = [*parts.range, *known_consts, *sums, *carry_in, *known_xs]
    _, *results = back.bind([*values, *pick(row_cts, wanted)])
    const_cts, carry_cts, x_cts = cut(results, (len(sums), loop.carry, sum(linear.xs)))
    const_cts = _over_lanes(const_cts, pick(flags.consts, linear.consts), loop, 0)
    x_cts = _over_lanes(x_cts, pick(flags.xs, linear.xs), loop, 1)
    carry_cts = [
        ct if is_linear else None
        for ct, is_linear in zip(carry_cts, linear.carry, strict=True)
    ]
    return [
        None,
        None,
        *spread(const_cts, linear.consts),
        *carry_cts,
        *spread(x_cts, linear.xs),
    ]


@_derive.cached
def _pulled_body(
    body: Program,
    carried: int,
    consts: tuple[bool, ...],
    carry: tuple[bool, ...],
    xs: tuple[bool, ...],
    wanted: tuple[bool, ...],
) -> Program:
    """The transposed body: ``(known consts, sums, carry cts, known rows, row cts)``.

    `consts`, `xs` say which are linear; of the carry every value is.
    """
    structs = as_structs(body.in_avals)
    linear = (*consts, *[True] * len(carry), *xs)
    known = pick(structs, others(linear))
    pull = _derive.transpose(body, linear, (*[True] * carried, *wanted))
    fixed = len(pick(consts, others(consts)))

    def pulled(
        known_consts: Sequence[Leaf],
        sums: Sequence[Leaf],
        carry_cts: Sequence[Leaf],
        known_xs: Sequence[Leaf],
        row_cts: Sequence[Leaf],
    ) -> list[Leaf]:
        results = pull(*known_consts, *known_xs, *carry_cts, *row_cts)
        const_cts, new_carry, x_cts = cut(results, (len(sums), carried, sum(xs)))
        added = [total + ct for total, ct in zip(sums, const_cts, strict=True)]
        return [*added, *new_carry, *x_cts]

    outputs = as_structs(body.out_avals)
    return Program.trace(
        pulled,
        known[:fixed],
        pick(structs[: len(consts)], consts),
        outputs[:carried],
        known[fixed:],
        pick(outputs[carried:], wanted),
    )


def _over_lanes(
    cotangents: Sequence[Leaf], batched: Sequence[bool], loop: BoundedLoop, axis: int
) -> list[Leaf]:
    """An input shared by all lanes gets the sum of their cotangents."""
    if loop.lanes is None:
        return list(cotangents)
    return [
        ct if flag else ct.sum(axis)
        for ct, flag in zip(cotangents, batched, strict=True)
    ]


# ----------------------------------------------------------------------------- helpers


def _kinds(parts: Parts) -> list[list[Any]]:
    return [parts.range, parts.consts, parts.carry, parts.xs]


def _are_moving(tangents: Iterable[Any]) -> list[bool]:
    return [type(tangent) is not ad.Zero for tangent in tangents]


def _are_undefined(values: Iterable[Any]) -> list[bool]:
    return [ad.is_undefined_primal(value) for value in values]


def _instantiate(tangents: Iterable[Any]) -> Iterable[Any]:
    return map(ad.instantiate_zeros, tangents)


def _zero(leaf: Leaf) -> Any:
    return ad.Zero(jax.typeof(leaf).to_tangent_aval())


ad.primitive_jvps[bounded_p] = _differentiate
ad.primitive_transposes[bounded_p] = _transpose
