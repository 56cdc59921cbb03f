"""What the tests of loops that end early share: results of one shape, on any backend.

An eager call returns the executed rows, a traced one as many as the loop may have, the
NumPy reference a list's worth. `settled` brings them to one form.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Tree = Any


def settled(result: Any, bound: int) -> Tree:
    """The executed rows, then zeros up to `bound` rows, and the number of steps."""
    outputs, mask = result[0], getattr(result, "mask", None)
    executed = len(jax.tree.leaves(outputs)[0]) if mask is None else mask.sum()
    xp = np if mask is None else jnp

    def pad(leaf: Any) -> Any:
        rest = xp.zeros((bound - len(leaf), *leaf.shape[1:]), leaf.dtype)
        if mask is not None:
            shape = (len(leaf), *[1] * (leaf.ndim - 1))
            leaf = xp.where(mask.reshape(shape), leaf, xp.zeros_like(leaf))
        return xp.concatenate([leaf, rest])

    return jax.tree.map(pad, outputs), xp.asarray(executed, "int32")


def executed_sum(result: Any) -> jax.Array:
    """The sum of the executed rows of one output."""
    zeros = jnp.zeros_like(result.outputs)
    return jnp.where(result.mask, result.outputs, zeros).sum()


def temporary_bytes(compiled: Any) -> int:
    """Temporary memory of a compiled program."""
    analysis = compiled.memory_analysis()
    assert analysis is not None
    return analysis.temp_size_in_bytes


def count_steps(jaxpr: Any) -> list[int]:
    """Lengths of all loops in a jaxpr that stack or read a row at each step."""
    found = []
    for equation in jaxpr.eqns:
        if equation.primitive.name == "while":  # rows are read, or written in place
            stacks = [a.aval.shape for a in equation.invars if len(a.aval.shape) > 1]
            found += sorted({shape[0] for shape in stacks})
        if equation.primitive.name == "scan":
            found.append(equation.params["length"])
        for value in equation.params.values():
            for part in value if isinstance(value, tuple | list) else [value]:
                inner = getattr(getattr(part, "jaxpr", part), "jaxpr", part)
                inner = getattr(part, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    found += count_steps(inner)
    return found
