"""The derivative of a bounded loop, and the transpose of its linear part.

* Derivative: the loop runs once and stacks what its linear part needs to know; the
  linear part is a second loop over exactly the steps that ran.
* Transpose: the linear loop backwards, from the last step that ran to the first. The
  cotangents of constants add up in the carry.

All of these are bounded loops again, so that every order of derivative follows.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
from jax.custom_derivatives import SymbolicZero

from jscan._base.errors import ScanNotImplementedError
from jscan._base.lists import cut, pick
from jscan._base.types import Leaf, PyTree
from jscan._jax.linear_call import linear_call
from jscan._jax.types import axes_of, zeros
from jscan._loops.bounded import BoundedLoop, Closed, Step, close_loop, run
from jscan._loops.linearize import Linearized, linearize
from jscan._loops.meters import Meter
from jscan._programs.program import CACHE_SIZE


def bounded_loop(
    step: Step,
    carry: PyTree,
    xs: PyTree,
    *,
    length: int,
    last: Leaf | int,
    first: Leaf | int = 0,
    reverse: bool = False,
    meter: Meter | None = None,
) -> tuple[PyTree, PyTree, Leaf]:
    """Run `step` for the indices from `first` to before `last`.

    Args:
        step: ``(carry, slices) -> (carry, rows, stop)``; `stop` is a boolean scalar
            after which the loop ends, or None. Arrays it closes over are constants.
        carry: State before the first step.
        xs: Sequences ``[length, ...]``.
        length: Most steps there can be.
        last: The index after the last step, an integer scalar of at most `length`.
        first: The index of the first step.
        reverse: Begin with the last step.
        meter: A progress bar to report to; its counter, if any, is a leaf of `carry`.

    Returns:
        The final carry, rows ``[length, ...]`` (zero where no step ran), and the
        index after the last step that ran.
    """
    closed = close_loop(
        *(step, carry, xs),
        length=length,
        first=first,
        last=last,
        reverse=reverse,
        meter=meter,
    )
    return _call(closed)


def _call(closed: Closed) -> tuple[PyTree, PyTree, Leaf]:
    # JAX lets no rule of ours stand around steps that write in a Ref.
    has_refs = any(isinstance(leaf, jax.Ref) for leaf in closed.inputs)
    call = functools.partial(run, closed.loop)
    call = call if has_refs else _with_derivative(closed.loop)
    return closed.results(call(*closed.inputs))


@functools.lru_cache(maxsize=CACHE_SIZE)
def _with_derivative(loop: BoundedLoop) -> Callable[..., list[Leaf]]:
    """The loop as a function with a derivative rule; equal loops are one function."""

    @jax.custom_jvp
    def bounded(*inputs: Leaf) -> list[Leaf]:
        return run(loop, *inputs)

    bounded.defjvp(functools.partial(_differentiate, loop), symbolic_zeros=True)
    return bounded


# -------------------------------------------------------------------------- derivative


def _differentiate(
    loop: BoundedLoop, primals: Sequence[Leaf], tangents: Sequence[Any]
) -> tuple[list[Leaf], list[Any]]:
    _, *kinds = loop.sort([_moves(rate) for rate in tangents])
    if not any(map(any, kinds)):
        results = _with_derivative(loop)(*primals)
        return results, list(map(_still, results))
    moving, split = _settled(loop, *kinds)
    results, known = _run_forward(loop, primals, split)
    _, *rates = loop.sort([_filled(rate) for rate in tangents])
    linear = _LinearLoop(
        split=split,
        places=known.places,
        counts=tuple(map(sum, moving)),
        carried=tuple(moving[1]),
        length=loop.length,
        reverse=loop.reverse,
    )
    live = [rate for kind in zip(rates, moving, strict=True) for rate in pick(*kind)]
    residuals = [primals[0], results[0], *known.consts, *known.rows]
    pushed = iter(linear_call(linear.push, linear.pull, residuals, live))
    moves = [False, *moving[1], *split.moves[loop.carry :]]
    moves = moves[: len(results)]  # the stop condition is no result
    return results, [
        next(pushed) if moved else _still(leaf)
        for moved, leaf in zip(moves, results, strict=True)
    ]


def _moves(rate: Any) -> bool:
    return type(rate) is not SymbolicZero and rate.dtype != jax.dtypes.float0


def _filled(rate: Any) -> Any:
    return zeros(rate.aval) if type(rate) is SymbolicZero else rate


def _still(leaf: Leaf) -> SymbolicZero:
    return SymbolicZero(jax.typeof(leaf).to_tangent_aval())


def _settled(
    loop: BoundedLoop, consts: list[bool], carry: list[bool], xs: list[bool]
) -> tuple[list[list[bool]], Linearized]:
    """The body, linearised; carried values come to move because others do."""
    while True:
        split = linearize(loop.body, (*consts, *carry, *xs))
        moves = split.moves[: loop.carry]
        reached = [a or b for a, b in zip(carry, moves, strict=True)]
        if reached == carry:
            return [consts, carry, xs], split
        carry = reached


@dataclass(frozen=True)
class _Known:
    """What the linear loop reads.

    Attributes:
        consts: What is the same at each step.
        rows: What each step left, stacked.
        places: For each residual of the body, in order, which of them it is.
    """

    consts: list[Leaf]
    rows: list[Leaf]
    places: tuple[tuple[str, int], ...]


def _run_forward(
    loop: BoundedLoop, primals: Sequence[Leaf], split: Linearized
) -> tuple[list[Leaf], _Known]:
    """Run the loop with the rows its linear part needs stacked beside its own."""
    (first, last), consts, carry, xs = loop.sort(primals)
    stacked = len(loop.row_avals)
    fixed = split.fixed(consts)
    read = {at: n for n, at in enumerate(split.sources) if n not in fixed}
    stored = [n for at, n in read.items() if _needs_rows(loop, at)]

    def step(state: Sequence[Leaf], row: Sequence[Leaf]) -> Any:
        outputs, residuals = split.forward(*consts, *state, *row)
        new, rows, stop = cut(outputs, (loop.carry, stacked, int(loop.has_stop)))
        rows += [residuals[n] for n in stored]
        return new, rows, stop[0] if stop else None

    new, rows, end = bounded_loop(
        *(step, carry, xs),
        length=loop.length,
        first=first,
        last=last,
        reverse=loop.reverse,
        meter=loop.meter,
    )
    own, extra = rows[:stacked], dict(zip(stored, rows[stacked:], strict=True))
    here = {
        **{("output", loop.carry + n): row for n, row in enumerate(own)},
        **{("input", loop.consts + loop.carry + n): x for n, x in enumerate(xs)},
        **{at: extra[n] for at, n in read.items() if n in extra},
    }
    positions = {at: position for position, at in enumerate(read)}
    numbers = {number: position for position, number in enumerate(fixed)}
    places = tuple(
        ("const", numbers[n]) if n in fixed else ("row", positions[at])
        for n, at in enumerate(split.sources)
    )
    known = _Known(list(fixed.values()), [here[at] for at in read], places)
    return [end, *new, *own], known


def _needs_rows(loop: BoundedLoop, source: Any) -> bool:
    """Whether a residual is found nowhere but in rows of its own."""
    kind, position = source
    if kind == "input":
        return position < loop.consts + loop.carry  # else a sequence, which is there
    is_row = loop.carry <= position < loop.carry + len(loop.row_avals)
    return not (kind == "output" and is_row)


# ----------------------------------------------------------------- the linear loop


@dataclass(frozen=True, eq=False)
class _LinearLoop:
    """The linear part of a loop's derivative, forwards and transposed.

    Attributes:
        split: The linearised body.
        places: Where each of its residuals is found.
        counts: How many constants, carried values and sequences move.
        carried: Which carried values move.
        length: Rows of every sequence.
        reverse: Whether the loop runs backwards.
    """

    split: Linearized
    places: tuple[tuple[str, int], ...]
    counts: tuple[int, ...]
    carried: tuple[bool, ...]
    length: int
    reverse: bool

    def _read(self, residuals: Sequence[Leaf]) -> tuple[Leaf, Leaf, list, list]:
        """First index, end, known constants, known rows."""
        first, end, *known = residuals
        consts = sum(kind == "const" for kind, _ in self.places)
        return first, end, known[:consts], known[consts:]

    def _rates(
        self, consts: list[Leaf], rows: Sequence[Leaf], *live: Any
    ) -> list[Leaf]:
        """The rates that one step returns: of what is carried, then of its rows."""
        found = {"const": consts, "row": rows}
        values = [found[kind][position] for kind, position in self.places]
        rates = self.split.linear(values, [rate for part in live for rate in part])
        kept = [*self.carried, *self.split.moves[len(self.carried) :]]
        # A state that moves may keep still in this step's output: all are returned.
        smooth = [flag for flag, s in zip(kept, self.split.smooth, strict=True) if s]
        return pick(rates, smooth)

    def push(self, residuals: Sequence[Leaf], live: Sequence[Leaf]) -> list[Leaf]:
        """The rates of the final carry and of the rows."""
        first, end, consts, rows = self._read(residuals)
        const_rates, carry_rates, x_rates = cut(live, self.counts)

        def step(state: Any, row: Any) -> Any:
            known, moving = row
            rates = self._rates(consts, known, const_rates, state, moving)
            return rates[: len(state)], rates[len(state) :], None

        new, pushed, _ = bounded_loop(
            *(step, carry_rates, (rows, x_rates)),
            length=self.length,
            first=first,
            last=end,
            reverse=self.reverse,
        )
        return [*new, *pushed]

    def pull(self, residuals: Sequence[Leaf], cts: Sequence[Any]) -> list[Leaf]:
        """The cotangents of constants, carry and sequences; those of None are zero."""
        first, end, consts, rows = self._read(residuals)
        _refuse_sums_over_devices(end, self.split.rate_avals)
        avals = cut(self.split.rate_avals, self.counts)
        carry_cts, row_cts = cts[: self.counts[1]], cts[self.counts[1] :]
        carry_cts = [
            zeros(aval) if ct is None else ct
            for ct, aval in zip(carry_cts, avals[1], strict=True)
        ]
        wanted = [True] * len(carry_cts) + [ct is not None for ct in row_cts]

        def step(state: Any, row: Any) -> Any:
            (sums, carry), (known, incoming) = state, row
            back = jax.linear_transpose(
                lambda *live: pick(self._rates(consts, known, *live), wanted), *avals
            )
            const_cts, carry, x_cts = back([*carry, *incoming])
            sums = [total + ct for total, ct in zip(sums, const_cts, strict=True)]
            return (sums, carry), x_cts, None

        state = (list(map(zeros, avals[0])), carry_cts)
        (sums, carry), x_cts, _ = bounded_loop(
            *(step, state, (rows, [ct for ct in row_cts if ct is not None])),
            length=self.length,
            first=first,
            last=end,
            reverse=not self.reverse,
        )
        return [*sums, *carry, *x_cts]


def _refuse_sums_over_devices(end: Leaf, avals: Sequence[Any]) -> None:
    """Inside `jax.shard_map`, devices that stop at different steps.

    What is the same on all of them has one cotangent, a sum over the devices at every
    step. Those that are over would not take part, and the others wait for ever.
    """
    alone = sorted({axis for aval in avals for axis in axes_of(end) - axes_of(aval)})
    if alone:
        axes = tuple(alone)
        raise ScanNotImplementedError.at(
            None,
            "a gradient inside jax.shard_map",
            needed=f"values of their own on each device along {axes}, in a loop "
            "that each device ends by itself",
            came="a value that is the same on all of them",
            fix=f"jax.lax.pcast(value, {axes}, to='varying') before the loop",
        )
