"""`stack`, and `unstack` of JAX 0.12, in the words that JAX lowers them to.

JAX before has no `unstack`: ``x, y = pair`` reads two slices there. Who looks for
slices and concatenations finds them in either.
"""

from typing import Any

import jax

from jscan._jax.equations import splice


def in_slices(equation: Any) -> list[Any]:
    """The equation, or if it stacks or takes apart, those it stands for."""
    name = equation.primitive.name
    if name not in ("stack", "unstack"):
        return [equation]
    (axis,) = equation.params.values()

    def apart(rows: jax.Array) -> list[jax.Array]:
        cut = (jax.lax.index_in_dim(rows, i, axis) for i in range(rows.shape[axis]))
        return [jax.lax.squeeze(row, [axis]) for row in cut]

    def together(*rows: jax.Array) -> jax.Array:
        return jax.lax.concatenate([jax.lax.expand_dims(r, [axis]) for r in rows], axis)

    function = together if name == "stack" else apart
    return splice(function, equation.invars, equation)
