"""The finite check of mode DEBUG, together with what loops can be told."""

import jax.numpy as jnp
import pytest

import jscan


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"truncate_gradient": 2},
        {"checkpoint": "sqrt"},
        {"profile": "checked"},
        {"max_steps": 5},
    ],
    ids=lambda options: next(iter(options), "plain"),
)
@pytest.mark.parametrize("stops", [False, True], ids=["scan", "until"])
def test_the_error_names_step_output_and_inputs(options, stops):
    def step(a, h):
        rows = [h + a, jnp.log(a)]
        return (rows, jscan.until(a > 9.0)) if stops else rows

    with pytest.raises(jscan.NonFiniteError, match=r"storm.*output 1.*step 2") as seen:
        jscan.scan(
            step,
            jnp.array([1.0, 2.0, -1.0, 4.0]),
            [jnp.zeros(()), None],
            mode="DEBUG",
            name="storm",
            **options,
        )
    assert (seen.value.step, seen.value.output) == (2, "output 1")
    assert float(seen.value.inputs["sequences[0][t]"]) == -1.0
    assert float(seen.value.inputs["outputs_info[0][t-1]"]) == 3.0


def test_a_loop_that_stops_before_the_bad_step_is_fine():
    rows, _ = jscan.scan(
        lambda a: (jnp.log(a), jscan.until(a > 1.5)),
        jnp.array([1.0, 2.0, -1.0]),
        mode="DEBUG",
    )
    assert len(rows) == 2
