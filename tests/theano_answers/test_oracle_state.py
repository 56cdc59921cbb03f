"""jscan gives the answers that Theano 0.9.0 gave: shared variables and random draws."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jscan
from theano_answers import recorded
from theano_answers.cases_state import STATE_CASES

pytestmark = pytest.mark.any_jax

# Random bits are Theano's own: see the last test.
REPEATABLE = [name for name in STATE_CASES if name != "tut_binomial"]


def new_variables(name: str) -> dict[str, Any]:
    before = recorded.part(name, "shared")
    return {key: jscan.shared(value, name=key) for key, value in before.items()}


def arguments(name: str) -> dict[str, Any]:
    """Integers are numbers of steps: they stay concrete."""
    inputs = recorded.part(name, "in")
    return {
        key: int(value) if value.dtype.kind == "i" else jnp.asarray(value)
        for key, value in inputs.items()
    }


@pytest.mark.parametrize("name", REPEATABLE)
def test_compiled_function_called_twice(name):
    variables = new_variables(name)
    program = jscan.function(
        lambda **inputs: STATE_CASES[name](jscan, jnp, **inputs, **variables)
    )
    for call in ("", "2"):
        actual = recorded.as_outputs(program(**arguments(name)))
        expected = recorded.outputs(name, f"out{call}")
        for value, answer in zip(actual, expected, strict=True):
            recorded.assert_equal(value, answer, f"outputs of call {call or 1}")
        for key, answer in recorded.part(name, f"final{call}").items():
            recorded.assert_equal(variables[key].get_value(), answer, f"{key} {call}")


@pytest.mark.parametrize("name", REPEATABLE)
def test_plain_scan_followed_by_apply(name):
    """Without `function`: a scan changes nothing until its updates are applied."""
    variables = new_variables(name)
    for call in ("", "2"):
        before = {key: variables[key].get_value() for key in variables}
        actual, updates = STATE_CASES[name](jscan, jnp, **arguments(name), **variables)
        expected = recorded.outputs(name, f"out{call}")
        for value, answer in zip(recorded.as_outputs(actual), expected, strict=True):
            recorded.assert_equal(value, answer, f"outputs of call {call or 1}")
        for key, value in before.items():
            np.testing.assert_array_equal(variables[key].get_value(), value)
        updates.apply()
        for key, answer in recorded.part(name, f"final{call}").items():
            recorded.assert_equal(variables[key].get_value(), answer, f"{key} {call}")


def test_gradients_through_a_shared_state():
    name = "updates_gradient"
    variables = new_variables(name)
    gradient = recorded.part(name, "grad")

    def cost(x):
        outputs, _ = STATE_CASES[name](jscan, jnp, x=x, **variables)
        return recorded.cost(name, [outputs])

    x = jnp.asarray(recorded.part(name, "in")["x"])
    recorded.assert_equal(jax.grad(cost)(x), gradient["x"], "gradient of x")
    compiled = jscan.function(lambda x: jax.grad(cost)(x))
    recorded.assert_equal(compiled(x), gradient["x"], "gradient of x")
    (of_variable,) = jscan.grad(lambda: cost(x), wrt=[variables["c"]])
    recorded.assert_equal(of_variable, gradient["c"], "gradient of c")


def test_binomial_noise_has_the_recorded_shape_and_values(standard_promotion):
    """A draw at each step: every number is kept as it is, or replaced by zero."""
    inputs = {name: np.asarray(x) for name, x in arguments("tut_binomial").items()}
    answer = recorded.outputs("tut_binomial")[0]
    rows = np.asarray(STATE_CASES["tut_binomial"](jscan, jnp, **inputs)[0])
    assert rows.shape == answer.shape
    kept = np.tanh(inputs["X"] @ inputs["W"] + inputs["b"])
    for values in (rows, answer):
        assert np.all(np.isclose(values, 0) | np.isclose(values, kept))
    assert 0 < np.isclose(rows, 0).sum() < rows.size  # not all steps draw alike
