"""What the costs of a GPU decide, wherever the tests run."""

import jax
import jax.numpy as jnp
import pytest

from jscan import explain, optimize
from jscan._optimizer import rewrite
from support.comparing import assert_close
from support.optimizer.loops import check, loop_lengths, operations, reasons
from support.optimizer.machines import SHIPPED, every_machine

X = jax.random.normal(jax.random.key(3), (70, 4))
W = jax.random.normal(jax.random.key(4), (4, 4)) / 4


@pytest.fixture(autouse=True)
def gpu_costs(small_loops_pay):
    """Every platform has the costs of a GPU."""
    with every_machine(SHIPPED["cuda"]):
        yield


def _scan(step, xs):
    def both(c, x):
        new = step(c, x)
        return new, new

    return jax.lax.scan(both, jnp.zeros(xs.shape[1:], xs.dtype), xs)[1]


def decay(x):
    return _scan(lambda c, v: 0.5 * c + v, x)


def waves(x):
    """A dozen operations a step."""

    def step(c, v):
        for _ in range(6):
            c = jnp.sin(c) * 0.7
        return c + v

    return _scan(step, x)


def network(x):
    return _scan(lambda h, v: jnp.tanh(h @ W + v), x)


def unroll_of(fun, *args, **keywords):
    closed = rewrite(jax.make_jaxpr(fun)(*args), platform="cuda", **keywords)
    return [e.params["unroll"] for e in closed.jaxpr.eqns if e.primitive.name == "scan"]


@pytest.mark.parametrize(("fun", "factor"), [(decay, 16), (waves, 8), (network, 8)])
def test_an_iteration_does_as_many_steps_as_compile_fast(fun, factor):
    """What an iteration costs does not depend on what it does."""
    assert unroll_of(fun, X) == [factor]
    assert f"{factor} per iteration" in str(explain(fun)(X))
    check(fun, X)


def test_backward_loops_are_unrolled_too():
    loss = lambda x: (decay(x) ** 2).sum()
    assert unroll_of(jax.grad(loss), X) == [16, 16]
    expected = jax.hessian(loss)(X[:40, 0])
    assert_close(jax.jit(optimize(jax.hessian(loss)))(X[:40, 0]), expected)
    pushed = lambda f: lambda x: jax.jvp(f, (x,), (x,))
    assert_close(jax.jit(optimize(pushed(waves)))(X), pushed(waves)(X), 1e-4)


def _inner_loop(x):
    return _scan(
        lambda c, v: jax.lax.fori_loop(0, 3, lambda i, h: jnp.sin(h), c) + v, x
    )


def _large_product(x):
    wide = jnp.ones((4, 70_000))
    rows = lambda c: jnp.tile(c, (64, 1)) @ wide @ wide.T
    return _scan(lambda c, v: jnp.tanh(rows(c * v[0]).max(0)) + v, x)


def _long(x):
    def step(c, v):
        for _ in range(70):
            c = jnp.sin(c)
        return c + v

    return _scan(step, x)


@pytest.mark.parametrize(
    ("fun", "steps", "reason"),
    [
        (_inner_loop, 70, "does scan, beside which an iteration costs little"),
        (_large_product, 70, "does dot_general, beside which"),
        (_long, 70, "71 operations, two are more than 128"),
        (decay, 31, "31 steps are too few"),
    ],
)
def test_unroll_says_why_not(fun, steps, reason):
    assert reason in reasons(fun, X[:steps], name="unroll")
    assert max(unroll_of(fun, X[:steps])) == 1


def test_different_loops_run_as_one():
    """A loop less is worth more than any step it saves, with products as without."""

    def several(x):
        return decay(x), network(x), waves(x)

    assert loop_lengths(optimize(several), X) == [70]
    check(several, X)


def test_small_products_are_sums():
    """Up to 512 multiplications, fused with what reads them: without a barrier."""

    def small(x):
        return _scan(lambda h, v: jnp.tanh(h @ W + v), x)

    xs = jnp.stack([X, X * 0.5], 1)
    outside, inside = operations(optimize(small), xs)
    assert "dot_general" not in inside
    assert "optimization_barrier" not in [*outside, *inside]
    check(small, xs)


def test_no_batch_is_too_short():
    """A map of a few steps is one batch."""
    assert loop_lengths(optimize(lambda x: jax.lax.map(jnp.tanh, x)), X[:3]) == []


def test_a_linear_recurrence_is_named():
    """It would be hundreds of times as fast, but rounds differently: that is asked."""
    assert "is a linear recurrence" in reasons(decay, X, name="associate")
    assert reasons(network, X, name="associate") == ""
    (report,) = explain(decay, passes=["associate"])(X).loops
    assert report.fired == ("associate",)
    with every_machine(SHIPPED["cpu"]):
        assert reasons(decay, X, name="associate") == ""
