"""A number of steps known only at run time needs a bound."""

import jax
import jax.numpy as jnp
import pytest

import jscan


@pytest.mark.parametrize("transform", [jax.jit, jax.eval_shape, jax.vmap])
def test_without_a_bound_the_error_says_how_to_give_one(transform):
    def run(n):
        return jscan.scan(
            lambda h: h + 1, outputs_info=0.0, n_steps=n, name="storm"
        ).outputs

    steps = jnp.asarray([2, 3]) if transform is jax.vmap else 3
    with pytest.raises(ValueError, match=r"(?s)storm.*n_steps.*max_steps") as caught:
        transform(run, steps) if transform is jax.eval_shape else transform(run)(steps)
    assert isinstance(caught.value, jscan.ScanError)
