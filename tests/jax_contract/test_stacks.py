"""What JAX's `stack` and `unstack` stand for, and what they are called with."""

import jax
import jax.numpy as jnp

from jscan._jax.equations import program
from jscan._jax.names import eval_jaxpr
from jscan._jax.stacks import in_slices
from support.comparing import assert_close


def test_both_are_slices_and_concatenations():
    """As JAX lowers them."""

    def apart_and_together(x, y):
        a, b = x
        return jnp.stack([a, b, y], axis=1), jnp.stack([b, y])

    x, y = jnp.arange(6.0).reshape(2, 3), jnp.ones(3)
    jaxpr = jax.make_jaxpr(apart_and_together)(x, y).jaxpr
    equations = [e for old in jaxpr.eqns for e in in_slices(old)]
    names = {e.primitive.name for e in equations}
    assert not names & {"stack", "unstack"}
    assert {"slice", "concatenate"} <= names
    same = program(jaxpr.invars, jaxpr.outvars, equations)
    assert_close(eval_jaxpr(same, [], x, y), list(apart_and_together(x, y)))
