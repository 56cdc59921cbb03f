"""What XLA counts in a program, which decides in which thread a CPU runs it."""

import jax
import jax.numpy as jnp
import pytest

from jscan._jax.jaxprs import open_jaxpr
from jscan._optimizer.costs.flops import counted_flops, flops

pytestmark = [
    pytest.mark.any_jax,
    pytest.mark.skipif(jax.default_backend() != "cpu", reason="it is a CPU that asks"),
]
X, W = jnp.ones((40, 8)), jnp.ones((8, 5))


def of_xla(function, *operands):
    return jax.jit(function).lower(*operands).compile().cost_analysis()["flops"]


def of_ours(function, *operands, count=counted_flops):
    return count(open_jaxpr(jax.make_jaxpr(function)(*operands))[0].eqns)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x @ W,
        lambda x: 1.5 * x + 0.5,
        lambda x: jnp.exp(x) * x,
        lambda x: jnp.maximum(x, 2.0).sum(),
    ],
    ids=["product", "arithmetic", "function", "sum"],
)
def test_operations_count_about_the_same(function):
    """Functions count nothing; XLA adds up in two stages, and counts those."""
    assert of_ours(function, X) == pytest.approx(of_xla(function, X), rel=0.3)


def decayed(x, length):
    step = lambda state, _: (0.9 * state + x, None)
    return jax.lax.scan(step, x, None, length=length)[0]


def test_the_body_of_a_loop_counts_once():
    short, long = (of_xla(lambda x, n=n: decayed(x, n), X) for n in (10, 1000))
    assert short == long < 1000
    assert of_ours(lambda x: decayed(x, 1000), X) < 1000
    assert of_ours(lambda x: decayed(x, 1000), X, count=flops) > 1000 * X.size


def test_of_branches_the_larger_one_counts():
    def either(x):
        return jax.lax.cond(x[0, 0] > 0, lambda x: x @ W, lambda x: x[:, :5], x)

    assert of_xla(either, X) == pytest.approx(of_xla(lambda x: x @ W, X), rel=0.1)
    assert of_ours(either, X) == pytest.approx(of_xla(either, X), rel=0.1)


def test_draws_hand_a_program_over_anyway():
    draw = lambda key: jax.random.normal(key, (20,))
    key = jax.random.key(0)
    assert of_xla(draw, key) > 1000
    assert of_ours(draw, key) > 1000
