"""The finite check of mode DEBUG, together with what loops can be told."""

import jax
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


@pytest.mark.parametrize("transform", [jax.jit, jax.vmap])
def test_a_condition_that_is_traced_is_refused_with_the_reason(transform):
    """A Python loop has to know when to stop; eagerly and under `grad` it does."""

    def total(limit):
        step = lambda h: (h + 1.0, jscan.until(h + 1.0 >= limit))
        return jscan.scan(
            step, None, 0.0, n_steps=9, mode="DEBUG", name="storm"
        ).outputs.sum()

    with pytest.raises(jscan.ScanNotImplementedError, match="condition traced") as got:
        transform(total)(jnp.ones(2) if transform is jax.vmap else 2.0)
    assert "storm" in str(got.value)
    assert float(total(3.0)) == 6.0

    def scaled(a):
        step = lambda h, a: (h * a, jscan.until(h * a > 4.0))
        loop = jscan.scan(step, None, 1.0, a, n_steps=9, mode="DEBUG")
        return loop.outputs[-1]

    assert float(jax.grad(scaled)(2.0)) == 12.0  # the derivative of a cubed
