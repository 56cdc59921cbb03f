"""jscan gives the answers that Theano 0.9.0 gave: until, truncation, checkpoints."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import jscan
from theano_answers import recorded
from theano_answers.cases_stops import CHECKPOINT_CASES, TRUNCATE_CASES, UNTIL_CASES

pytestmark = pytest.mark.any_jax

CASES: dict[str, Callable[..., Any]] = UNTIL_CASES | TRUNCATE_CASES | CHECKPOINT_CASES


def arguments(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The recorded arguments, and fresh shared variables."""
    inputs = {key: jnp.asarray(v) for key, v in recorded.part(name, "in").items()}
    before = recorded.part(name, "shared")
    return inputs, {key: jscan.shared(value) for key, value in before.items()}


def compiler(variables: dict[str, Any]) -> Callable[..., Any]:
    """`jax.jit`, which may not read shared variables, or what may."""
    return jscan.function if variables else jax.jit


@pytest.mark.parametrize("name", CASES)
def test_outputs(name):
    """Called eagerly, a loop that stops has exactly the executed rows."""
    inputs, variables = arguments(name)
    for call in ("", "2") if variables else ("",):
        result = CASES[name](jscan, jnp, **inputs, **variables)
        actual = recorded.as_outputs(result[0])
        expected = recorded.outputs(name, f"out{call}")
        for value, answer in zip(actual, expected, strict=True):
            recorded.assert_equal(value, answer, f"output {call}")
        result[1].apply()
        for key, answer in recorded.part(name, f"final{call}").items():
            recorded.assert_equal(variables[key].get_value(), answer, f"{key} {call}")


@pytest.mark.parametrize("name", UNTIL_CASES)
def test_outputs_of_a_traced_loop_that_stops(name):
    """Under `jit` the rows after the stop repeat the last one; the mask tells."""
    inputs, variables = arguments(name)
    expected = recorded.outputs(name)
    executed = len(expected[0])

    def run(inputs):
        result = CASES[name](jscan, jnp, **inputs, **variables)
        return [*recorded.as_outputs(result.outputs), result.n_steps, result.mask]

    *rows, n_steps, mask = compiler(variables)(run)(inputs)
    assert int(n_steps) == executed == int(mask.sum())
    assert bool(mask[:executed].all())
    for value, answer in zip(rows, expected, strict=True):
        assert len(value) == len(mask)
        recorded.assert_equal(value[:executed], answer, "executed rows")
        assert bool((value[executed:] == value[executed - 1]).all())


@pytest.mark.parametrize("name", [n for n in CASES if recorded.part(n, "grad")])
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "jit"])
def test_gradients(name, compiled):
    inputs, variables = arguments(name)
    gradient = recorded.part(name, "grad")
    executed = len(recorded.outputs(name)[0])
    fixed = {key: value for key, value in inputs.items() if key not in gradient}

    def cost(wrt):
        result = CASES[name](jscan, jnp, **wrt, **fixed, **variables)
        outputs = recorded.as_outputs(result[0])
        return recorded.cost(name, [value[:executed] for value in outputs])

    gradient_of = jax.grad(cost)
    differentiate = compiler(variables)(gradient_of) if compiled else gradient_of
    actual = differentiate({key: inputs[key] for key in gradient})
    for key, answer in gradient.items():
        recorded.assert_equal(actual[key], answer, f"gradient of {key}")
