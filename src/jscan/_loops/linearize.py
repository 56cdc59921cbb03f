"""The body of a loop, split in what is known and what is linear in its tangents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jscan._base.lists import others, pick
from jscan._base.types import Leaf
from jscan._jax.equations import evaluate
from jscan._jax.jaxprs import open_jaxpr, run_jaxpr
from jscan._jax.names import eval_jaxpr
from jscan._programs.program import Program

Source = tuple[Literal["input", "output", "residual"], int]


@dataclass(frozen=True)
class Linearized:
    """A program, linearised at some of its inputs.

    Attributes:
        known: ``inputs -> outputs + residuals``, a closed jaxpr.
        tangent: ``tangents of the moving inputs -> tangents of the smooth outputs``, an
            open jaxpr whose constants are the residuals.
        outputs: The number of outputs of the program.
        smooth: Which outputs have a tangent of their own type.
        moves: Which outputs depend on what moves.
        sources: For each residual, where it is found: an input or an output is used in
            place instead of being stored again.
        rate_avals: Types of the tangents of the moving inputs.
    """

    known: Any
    tangent: Any
    outputs: int
    smooth: tuple[bool, ...]
    moves: tuple[bool, ...]
    sources: tuple[Source, ...]
    rate_avals: tuple[Any, ...]

    def forward(self, *inputs: Leaf) -> tuple[list[Leaf], list[Leaf]]:
        """The outputs, and the residuals."""
        results = run_jaxpr(self.known, *inputs)
        return results[: self.outputs], results[self.outputs :]

    def linear(self, residuals: Sequence[Leaf], rates: Sequence[Leaf]) -> list[Leaf]:
        """The tangents of the smooth outputs."""
        return eval_jaxpr(self.tangent, residuals, *rates)

    def fixed(self, consts: Sequence[Leaf]) -> dict[int, Leaf]:
        """Values of the residuals that depend on the first inputs, `consts`, alone."""
        body, _ = open_jaxpr(self.known)
        known = dict(zip(body.constvars, self.known.consts, strict=True))
        known.update(zip(body.invars, consts, strict=False))
        late = set(body.invars[len(consts) :])
        for equation in body.eqns:
            if equation.effects or any(a in late for a in _variables(equation.invars)):
                late.update(equation.outvars)
        atoms = dict(enumerate(body.outvars[self.outputs :]))
        early = {n: a for n, a in atoms.items() if hasattr(a, "val") or a not in late}
        pure = [equation for equation in body.eqns if not equation.effects]
        values = evaluate(pure, known, list(early.values()))
        return dict(zip(early, values, strict=True))


def linearize(program: Program, moving: tuple[bool, ...]) -> Linearized:
    """Linearise `program` at its `moving` inputs."""
    smooth = [jnp.issubdtype(aval.dtype, jnp.inexact) for aval in program.out_avals]
    rates = [aval.to_tangent_aval() for aval in pick(program.in_avals, moving)]
    tangent: list[Any] = []

    def forward(*values: Leaf) -> list[Leaf]:
        def live(*moved: Leaf) -> tuple[list[Leaf], list[Leaf]]:
            fresh = iter(moved)
            pairs = zip(values, moving, strict=True)
            outputs = program(*[next(fresh) if m else value for value, m in pairs])
            return pick(outputs, smooth), pick(outputs, others(smooth))

        soft, push, hard = jax.linearize(live, *pick(values, moving), has_aux=True)
        closed = jax.make_jaxpr(push)(*rates)
        tangent[:] = [open_jaxpr(closed)[0]]
        soft, hard = iter(soft), iter(hard)
        outputs = [next(soft) if is_smooth else next(hard) for is_smooth in smooth]
        return [*outputs, *closed.consts]

    known = jax.make_jaxpr(forward)(*program.in_avals)
    depends = iter(_depends(tangent[0]))
    return Linearized(
        known=known,
        tangent=tangent[0],
        outputs=len(smooth),
        smooth=tuple(smooth),
        moves=tuple(is_smooth and next(depends) for is_smooth in smooth),
        sources=_sources(open_jaxpr(known)[0], len(smooth)),
        rate_avals=tuple(rates),
    )


def _depends(jaxpr: Any) -> list[bool]:
    """Which outputs of a linear program are not zero whatever its inputs are."""
    live = set(jaxpr.invars)
    for equation in jaxpr.eqns:
        if any(atom in live for atom in _variables(equation.invars)):
            live.update(equation.outvars)
    return [not hasattr(atom, "val") and atom in live for atom in jaxpr.outvars]


def _variables(atoms: Sequence[Any]) -> list[Any]:
    return [atom for atom in atoms if not hasattr(atom, "val")]


def _sources(jaxpr: Any, outputs: int) -> tuple[Source, ...]:
    """Where the residuals of a program, its last outputs, are found."""
    places: dict[Any, Source] = {}
    for index, variable in enumerate(jaxpr.invars):
        places[variable] = ("input", index)
    for index, atom in enumerate(jaxpr.outvars[:outputs]):
        if not hasattr(atom, "val"):
            places.setdefault(atom, ("output", index))
    found: list[Source] = []
    for index, atom in enumerate(jaxpr.outvars[outputs:]):
        own: Source = ("residual", index)
        found.append(own if hasattr(atom, "val") else places.setdefault(atom, own))
    return tuple(found)
