"""A `Program`: a traced computation without hidden inputs, compared by its structure.

Two programs traced from two different lambdas are equal when they compute the same
thing in the same way. This is what lets an eager call with a fresh lambda find the
executable of the last one. Everything derived from a program (its derivative, its
batched form, its executable) is looked up by it.
"""

from __future__ import annotations

from typing import Any

import jax

from jscan._base.types import Leaf
from jscan._jax.jaxprs import open_jaxpr, run_jaxpr
from jscan._jax.names import ClosedJaxpr, ShapedArray
from jscan._jax.structure import KeyWriter


class Program:
    """A closed jaxpr without constants, hashable and comparable by structure.

    Programs of equal run keys compute the same values. Equal programs also have equal
    derivative rules, and the same names for their loops.
    """

    def __init__(self, jaxpr: Any) -> None:
        if jaxpr.consts:
            raise AssertionError("a Program has no hidden inputs")
        writer = KeyWriter()
        self.jaxpr = jaxpr
        self.in_avals, self.out_avals = list(jaxpr.in_avals), list(jaxpr.out_avals)
        self.run_key = writer.jaxpr_key(jaxpr)
        names = tuple(writer.names)
        self._key = self.run_key, names, tuple(writer.rules)
        self._hash = hash((self.run_key, names))

    @classmethod
    def close(cls, jaxpr: Any) -> tuple[Program, tuple[Leaf, ...]]:
        """The program with its constants as leading inputs, and their values."""
        if not jaxpr.consts:
            return cls(jaxpr), ()
        captured = tuple(map(_as_input, jaxpr.consts))
        body, _ = open_jaxpr(jaxpr)
        names = ("",) * len(body.constvars) + tuple(body.debug_info.arg_names or ())
        explicit = body.replace(
            constvars=(),
            invars=[*body.constvars, *body.invars],
            debug_info=body.debug_info._replace(arg_names=names),
        )
        return cls(ClosedJaxpr(explicit, ())), captured

    def __call__(self, *inputs: Leaf) -> list[Leaf]:
        """Run the computation on flat inputs; under a trace, in-line."""
        return run_jaxpr(self.jaxpr, *inputs)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Program) or self._hash != other._hash:
            return False
        return self._key == other._key

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        return f"Program({len(open_jaxpr(self.jaxpr)[0].eqns)} equations)"


def _as_input(constant: Any) -> Leaf:
    """A constant as an array; Refs, and values of hijax types, are none."""
    known = isinstance(constant, jax.Array)
    is_number = not known and isinstance(jax.typeof(constant), ShapedArray)
    return jax.numpy.asarray(constant) if is_number else constant
