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

from jscan._base.caches import cached
from jscan._base.errors import ScanNotImplementedError
from jscan._base.lists import cut, pick
from jscan._base.types import Leaf, PyTree
from jscan._jax.linear_call import linear_call
from jscan._jax.types import axes_of, zeros
from jscan._loops.bounded import BoundedLoop, Step, close_loop, run
from jscan._loops.linearize import Linearized, linearize
from jscan._loops.meters import Meter


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
    """Run `step` for the indices from `first` to before `last`, at most `length` times.

    `step` is ``(carry, slices) -> (carry, rows, stop)``; `stop` is a boolean scalar
    after which the loop ends, or None. Arrays it closes over are constants. Sequences
    and rows are ``[length, ...]``; rows are zero where no step ran. `reverse` begins
    with the last step. The counter of the `meter`, if any, is a leaf of `carry`.

    Returns the final carry, the rows, and the index after the last step that ran.
    """
    settings = dict(length=length, reverse=reverse, meter=meter)
    loop, inputs, tree = close_loop(step, carry, xs, (first, last), **settings)
    # JAX lets no rule of ours stand around steps that write in a Ref.
    has_refs = any(isinstance(leaf, jax.Ref) for leaf in inputs)
    call = functools.partial(run, loop) if has_refs else _with_derivative(loop)
    end, *flat = call(*inputs)
    return *tree.unflatten(flat), end


@cached
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
    results, fixed, rows, places = _run_forward(loop, primals, split)
    rates = [zeros(r.aval) if type(r) is SymbolicZero else r for r in tangents]
    _, *rates = loop.sort(rates)
    # A state that moves may keep still in this step's output: all are returned.
    moves = [*moving[1], *split.moves[loop.carry :]]
    linear = _LinearLoop(
        split=split,
        consts=len(fixed),
        places=places,
        counts=tuple(map(sum, moving)),
        wanted=tuple(pick(moves, split.smooth)),
        length=loop.length,
        reverse=loop.reverse,
    )
    live = [rate for kind in zip(rates, moving, strict=True) for rate in pick(*kind)]
    residuals = [primals[0], results[0], *fixed, *rows]
    pushed = iter(linear_call(linear.push, linear.pull, residuals, live))
    moves = [False, *moves][: len(results)]  # the stop condition is no result
    return results, [
        next(pushed) if moved else _still(leaf)
        for moved, leaf in zip(moves, results, strict=True)
    ]


def _moves(rate: Any) -> bool:
    return type(rate) is not SymbolicZero and rate.dtype != jax.dtypes.float0


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


def _run_forward(
    loop: BoundedLoop, primals: Sequence[Leaf], split: Linearized
) -> tuple[list[Leaf], list[Leaf], list[Leaf], tuple[int, ...]]:
    """Run the loop with the rows its linear part needs stacked beside its own.

    Returns its results; what the linear part reads that is the same at each step, and
    what each step left, stacked; and which of these two lists each residual is.
    """
    (first, last), consts, carry, xs = loop.sort(primals)
    stacked = len(loop.row_avals)
    fixed = split.fixed(consts)
    inputs, outputs, atoms = split.atoms
    read = {atom: n for n, atom in enumerate(atoms) if n not in fixed}
    in_rows = [*inputs[loop.consts + loop.carry :], *outputs[loop.carry :][:stacked]]
    there = set(map(id, in_rows))  # literals cannot be hashed
    stored = [n for atom, n in read.items() if id(atom) not in there]

    def step(state: Sequence[Leaf], row: Sequence[Leaf]) -> Any:
        results, residuals = split.forward(*consts, *state, *row)
        new, rows, stop = cut(results, (loop.carry, stacked, int(loop.has_stop)))
        rows += [residuals[n] for n in stored]
        return new, rows, stop[0] if stop else None

    how: Any = dict(length=loop.length, reverse=loop.reverse, meter=loop.meter)
    new, rows, end = bounded_loop(step, carry, xs, first=first, last=last, **how)
    names = map(id, [*in_rows, *(atoms[n] for n in stored)])
    here = dict(zip(names, [*xs, *rows], strict=True))
    order = {n: position for position, n in enumerate([*fixed, *read.values()])}
    places = (order[n if n in fixed else read[atom]] for n, atom in enumerate(atoms))
    known = [here[id(atom)] for atom in read]
    return [end, *new, *rows[:stacked]], list(fixed.values()), known, tuple(places)


# ----------------------------------------------------------------- the linear loop


@dataclass(frozen=True, eq=False)
class _LinearLoop:
    """The linear part of a loop's derivative, forwards and transposed."""

    split: Linearized  # the body
    consts: int  # how many of the things it reads are the same at each step
    places: tuple[int, ...]  # for each residual of the body, which of those it is
    counts: tuple[int, ...]  # how many constants, carried values and sequences move
    wanted: tuple[bool, ...]  # which rates of a step are results
    length: int
    reverse: bool

    def _rates(self, known: Sequence[Leaf], live: Sequence[Any]) -> list[Leaf]:
        """The rates that one step returns: of what is carried, then of its rows."""
        values = [known[place] for place in self.places]
        rates = self.split.linear(values, [rate for part in live for rate in part])
        return pick(rates, self.wanted)

    def _loop(
        self, residuals: Sequence[Leaf], step: Any, state: Any, xs: Any, reverse: bool
    ) -> tuple[PyTree, PyTree]:
        """A loop of ``step: (known, state, slices) -> (state, rows)``."""
        first, end, *known = residuals
        consts, rows = known[: self.consts], known[self.consts :]

        def run(state: Any, row: Any) -> Any:
            return *step([*consts, *row[0]], state, row[1]), None

        settings = dict(first=first, last=end, length=self.length, reverse=reverse)
        return bounded_loop(run, state, (rows, xs), **settings)[:2]

    def push(self, residuals: Sequence[Leaf], live: Sequence[Leaf]) -> list[Leaf]:
        """The rates of the final carry and of the rows."""
        consts, carry, xs = cut(live, self.counts)

        def step(known: Sequence[Leaf], state: Any, row: Any) -> Any:
            rates = self._rates(known, (consts, state, row))
            return rates[: len(state)], rates[len(state) :]

        new, rows = self._loop(residuals, step, carry, xs, self.reverse)
        return [*new, *rows]

    def pull(self, residuals: Sequence[Leaf], cts: Sequence[Any]) -> list[Leaf]:
        """The cotangents of constants, carry and sequences."""
        _refuse_sums_over_devices(residuals[1], self.split.rate_avals)
        avals = cut(self.split.rate_avals, self.counts)
        carry, rows = cts[: self.counts[1]], cts[self.counts[1] :]

        def step(known: Sequence[Leaf], state: Any, row: Any) -> Any:
            sums, carry = state
            back = jax.linear_transpose(lambda *live: self._rates(known, live), *avals)
            consts, carry, xs = back([*carry, *row])
            sums = [total + ct for total, ct in zip(sums, consts, strict=True)]
            return (sums, carry), xs

        state = (list(map(zeros, avals[0])), list(carry))
        state, xs = self._loop(residuals, step, state, list(rows), not self.reverse)
        sums, carry = state
        return [*sums, *carry, *xs]


def _refuse_sums_over_devices(end: Leaf, avals: Sequence[Any]) -> None:
    """Inside `jax.shard_map`, devices that stop at different steps.

    What is the same on all of them has one cotangent, a sum over the devices at every
    step. Those that are over would not take part, and the others wait for ever.
    """
    alone = sorted({axis for aval in avals for axis in axes_of(end) - axes_of(aval)})
    if alone:
        axes = tuple(alone)
        raise ScanNotImplementedError(
            "a gradient inside jax.shard_map",
            needed=f"values of their own on each device along {axes}, in a loop "
            "that each device ends by itself",
            came="a value that is the same on all of them",
            fix=f"jax.lax.pcast(value, {axes}, to='varying') before the loop",
            owner="scan",
        )
