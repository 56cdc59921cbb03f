"""jscan gives the answers that Theano 0.9.0 gave: loops, taps, derivatives, views."""

from functools import partial
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jscan
from theano_answers import recorded
from theano_answers.cases import CASES
from theano_answers.cases_state import STATE_CASES
from theano_answers.cases_stops import CHECKPOINT_CASES, TRUNCATE_CASES, UNTIL_CASES

# The recorded programs mix integers and floats, as Theano's users did.
pytestmark = [pytest.mark.any_jax, pytest.mark.usefixtures("standard_promotion")]


def test_every_recorded_case_is_used_by_exactly_one_table():
    tables = [CASES, STATE_CASES, UNTIL_CASES, TRUNCATE_CASES, CHECKPOINT_CASES]
    used = [name for table in tables for name in table]
    assert sorted(used) == sorted(recorded.names())


def in_mode(mode: str | None) -> Any:
    """The names of jscan, with every loop in this mode."""
    names = ["scan", "map", "reduce", "foldl", "foldr"]
    return SimpleNamespace(
        **{name: partial(getattr(jscan, name), mode=mode) for name in names}
    )


@pytest.mark.parametrize("mode", [None, "DEBUG"], ids=["compiled", "debug"])
@pytest.mark.parametrize("name", CASES)
def test_outputs(name, mode):
    inputs = as_jax(recorded.part(name, "in"))
    actual = recorded.as_outputs(CASES[name](in_mode(mode), jnp, **inputs))
    expected = recorded.outputs(name)
    assert len(actual) == len(expected)
    for position, (value, answer) in enumerate(zip(actual, expected, strict=True)):
        recorded.assert_equal(value, answer, f"output {position}")


@pytest.mark.parametrize("name", [n for n in CASES if recorded.part(n, "grad")])
def test_derivatives(name):
    inputs = as_jax(recorded.part(name, "in"))
    first, second = recorded.part(name, "grad"), recorded.part(name, "grad2")
    fixed = {key: value for key, value in inputs.items() if key not in first}

    def cost(wrt):
        return recorded.cost(
            name, recorded.as_outputs(CASES[name](jscan, jnp, **wrt, **fixed))
        )

    def derivatives(wrt):
        def summed_gradient(value, key):
            return jax.grad(cost)(wrt | {key: value})[key].sum()

        curvature = {key: jax.grad(summed_gradient)(wrt[key], key) for key in second}
        return jax.grad(cost)(wrt), curvature

    gradient, curvature = jax.jit(derivatives)({key: inputs[key] for key in first})
    for key, answer in first.items():
        recorded.assert_equal(gradient[key], answer, f"gradient of {key}")
    for key, answer in second.items():
        recorded.assert_equal(curvature[key], answer, f"second derivative of {key}")


def as_jax(inputs: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    return {key: jnp.asarray(value) for key, value in inputs.items()}
