"""Faults of compilers: batches that a version of XLA computes wrongly, or not at all.

A loop runs one step at a time, in programs that these faults do not touch. An optimizer
that walks a program into one of them is wrong, whoever's the fault is.
"""

from typing import Any

from jscan._jax.names import JAX_VERSION
from jscan._jax.operations import dot_sizes

_ROWS = 32_768
_FEW = 4
_RANK = 7


def is_miscompiled(equation: Any, length: int) -> bool:
    """Whether the compiler at hand fails at an equation over all steps at once.

    Before JAX 0.11, XLA's CPU compiler gets the reduction of ``vmap(lambda row: M @
    row)`` wrong for more than 32,768 rows of few numbers (jax issue 39103). Before
    0.12, it crashes at broadcast arrays of rank 7 that are reduced (issue 39257).
    """
    if JAX_VERSION < (0, 11) and equation.primitive.name == "dot_general":
        sizes = dot_sizes(equation)
        rows = length * sizes.batch * max(sizes.rows, sizes.columns)
        few = max(sizes.contracted, min(sizes.rows, sizes.columns)) <= _FEW
        if few and rows >= _ROWS:
            return True
    types = [atom.aval for atom in (*equation.invars, *equation.outvars)]
    return JAX_VERSION < (0, 12) and any(
        getattr(aval, "ndim", 0) + 1 >= _RANK and aval.size > 1 for aval in types
    )
