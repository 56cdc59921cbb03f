"""Whole generated calls: jscan against the NumPy reference, with both derivatives."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

import jscan
from support import checking as helpers
from support import reference
from support.strategies import Call, calls

STEP = 1e-5


@pytest.mark.filterwarnings("ignore:.*rows are fewer than")
@given(call=calls())
def test_generated_call_agrees_in_value_and_derivatives(call: Call):
    """One compilation an example: values, then both derivatives along one direction.

    With J the derivative of the outputs, v a direction and c weights of the outputs,
    forward mode gives J v and reverse mode c J; both must agree with the difference
    quotient of the reference.
    """
    flat, wide = helpers.Flat(call.arrays()), helpers.Flat(call.widened().arrays())
    direction = np.cos(2.1 * np.arange(flat.start.size) + 0.5)

    def program(point: jax.Array) -> Any:
        return call.run(jscan.scan, jnp, flat.rebuild(jnp, point))

    def cost(point: jax.Array) -> jax.Array:
        return helpers.weighted_sum(jnp, program(point))

    @jax.jit
    def everything(point: jax.Array) -> Any:
        slope = jax.jvp(cost, (point,), (jnp.asarray(direction),))[1]
        return program(point), slope, jax.grad(cost)(point)

    def numpy_cost(shift: float) -> float:
        arrays = wide.rebuild(np, wide.start + shift * direction)
        return helpers.weighted_sum(np, call.widened().run(reference.scan, np, arrays))

    outputs, slope, gradient = everything(jnp.asarray(flat.start))
    expected = call.run(reference.scan, np, call.arrays())
    tolerance = helpers.tolerance_of([call.arrays(), expected])
    helpers.assert_trees_close(outputs, expected, tolerance.value)

    quotient = (numpy_cost(STEP) - numpy_cost(-STEP)) / (2 * STEP)
    margin = 20 * tolerance.derivative * (1 + abs(quotient))
    np.testing.assert_allclose(slope, quotient, 0, margin, err_msg="forward mode")
    np.testing.assert_allclose(
        direction @ gradient, quotient, 0, margin, err_msg="reverse mode"
    )
