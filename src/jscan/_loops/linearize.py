"""The body of a loop, split in what is known and what is linear in its tangents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jscan._base.lists import cut, others, pick
from jscan._base.types import Leaf
from jscan._jax.equations import evaluate, unique_variables
from jscan._jax.jaxprs import is_variable, open_jaxpr, run_jaxpr
from jscan._jax.names import eval_jaxpr
from jscan._programs.program import Program


@dataclass(frozen=True)
class Linearized:
    """A program, linearised at some of its inputs."""

    known: Any  # ``inputs -> outputs + residuals``, a closed jaxpr
    # ``residuals + tangents of the moving inputs -> tangents of the smooth outputs``,
    # an open jaxpr.
    tangent: Any
    smooth: tuple[bool, ...]  # which outputs have a tangent of their own type
    moves: tuple[bool, ...]  # which outputs depend on what moves
    rate_avals: tuple[Any, ...]  # types of the tangents of the moving inputs

    @property
    def atoms(self) -> tuple[list[Any], list[Any], list[Any]]:
        """What its inputs, outputs and residuals are called in its jaxpr.

        A residual that is an input or an output need not be stored again.
        """
        body, _ = open_jaxpr(self.known)
        outputs, residuals = cut(body.outvars, self._counts)
        return body.invars, outputs, residuals

    @property
    def _counts(self) -> tuple[int, int]:
        return len(self.smooth), len(self.known.out_avals) - len(self.smooth)

    def forward(self, *inputs: Leaf) -> tuple[list[Leaf], list[Leaf]]:
        """The outputs, and the residuals."""
        outputs, residuals = cut(run_jaxpr(self.known, *inputs), self._counts)
        return outputs, residuals

    def linear(self, residuals: Sequence[Leaf], rates: Sequence[Leaf]) -> list[Leaf]:
        """The tangents of the smooth outputs."""
        return eval_jaxpr(self.tangent, [], *residuals, *rates)

    def fixed(self, consts: Sequence[Leaf]) -> dict[int, Leaf]:
        """Values of the residuals that depend on the first inputs, `consts`, alone."""
        body, _ = open_jaxpr(self.known)
        known = dict(zip(body.constvars, self.known.consts, strict=True))
        known.update(zip(body.invars, consts, strict=False))
        effects = [e for e in body.eqns if e.effects]
        made = [v for e in effects for v in e.outvars]
        late = _reached(body.eqns, [*body.invars[len(consts) :], *made])
        atoms = enumerate(self.atoms[2])
        early = {n: a for n, a in atoms if not is_variable(a) or a not in late}
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
        body, _ = open_jaxpr(closed)
        # Its constants are tracers of this trace, which nothing may keep.
        inputs = [*body.constvars, *body.invars]
        tangent[:] = [body.replace(constvars=(), invars=inputs)]
        soft, hard = iter(soft), iter(hard)
        outputs = [next(soft) if is_smooth else next(hard) for is_smooth in smooth]
        return [*outputs, *closed.consts]

    known = jax.make_jaxpr(forward)(*program.in_avals)
    residuals = len(known.out_avals) - len(smooth)
    # What is not live is zero whatever moves.
    live = _reached(tangent[0].eqns, tangent[0].invars[residuals:])
    depends = (is_variable(a) and a in live for a in tangent[0].outvars)
    return Linearized(
        known=known,
        tangent=tangent[0],
        smooth=tuple(smooth),
        moves=tuple(is_smooth and next(depends) for is_smooth in smooth),
        rate_avals=tuple(rates),
    )


def _reached(equations: Sequence[Any], start: Sequence[Any]) -> set[Any]:
    """The variables, and what is computed from them."""
    reached = set(start)
    for equation in equations:
        if not reached.isdisjoint(unique_variables(equation.invars)):
            reached.update(equation.outvars)
    return reached
