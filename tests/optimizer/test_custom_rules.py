"""A derivative rule the user wrote is the one used, optimizer or not."""

import jax
import jax.numpy as jnp

from jscan import optimize
from support.optimizer.loops import check, loop_lengths, lowered, operations

X = jnp.arange(5.0)


@jax.custom_vjp
def total(x):
    return jax.lax.scan(lambda c, v: (c + v, c), 0.0, x)[0]


total.defvjp(lambda x: (total(x), None), lambda _, g: (jnp.full(5, 7.0) * g,))


@jax.custom_jvp
def last(x):
    return jax.lax.scan(lambda c, v: (c * 0.5 + v, c), jnp.zeros(()), x)[1][-1]


@last.defjvp
def _(primals, tangents):
    (x,), (tangent,) = primals, tangents
    return last(x), jnp.sum(tangent) * 3.0


def test_rules_are_kept():
    """Wrong on purpose, so that losing one would show."""
    assert jax.grad(optimize(total))(X).tolist() == [7.0] * 5
    assert jax.grad(jax.jit(optimize(last)))(X).tolist() == [3.0] * 5


def test_bodies_are_rewritten_once_no_derivative_follows():
    """At lowering the rule has been used: the body is an ordinary program."""
    run = lowered(total, X)
    assert loop_lengths(run, X) == []
    assert float(run(X)[0]) == 10.0


@jax.custom_vjp
def clipped(x):
    return x * 2.0


clipped.defvjp(lambda x: (x * 2.0, None), lambda _, g: (jnp.clip(g, -1.0, 1.0),))


@jax.custom_jvp
def doubled(x):
    return jnp.sin(x)


@doubled.defjvp
def _(primals, tangents):
    return jnp.sin(primals[0]), 2.0 * tangents[0]


def test_rules_inside_a_step_are_kept():
    """Forward, backward, and backward again; the rules are wrong on purpose."""

    def backward(x):
        step = lambda c, v: (clipped(doubled(c) * v), c)
        return (3.0 * jax.lax.scan(step, 1.0, x)[0]) ** 2

    def forward(x):
        return jax.lax.scan(lambda c, v: (doubled(c) * v, c), 1.0, x)[0]

    x = X / 4 + 0.2
    for plain in (jax.grad(backward), jax.jit(jax.grad(backward))):
        faster = jax.grad(optimize(backward))
        assert jnp.allclose(faster(x), plain(x), rtol=1e-5)
        assert jnp.allclose(jax.jit(faster)(x), plain(x), rtol=1e-5)
    hessian = jax.jit(jax.hessian(optimize(forward)))
    assert jnp.allclose(hessian(x), jax.hessian(forward)(x), rtol=1e-5)


def relu_layer(weights, x):
    def step(h, row):
        h = jax.nn.relu(h @ weights + row)
        return h, h

    return jax.lax.scan(step, jnp.zeros((4, 8)), x)[1]


def test_a_rule_that_nobody_can_use_is_opened():
    """At lowering a step with `relu` is as elementwise as any.

    So copies of a loop are found, and no pass takes the call for expensive work.
    """
    weights, x = jnp.eye(8) / 2, jax.random.normal(jax.random.key(3), (10, 4, 8))
    twice = lambda w, x: relu_layer(w, x) + 2.0 * relu_layer(w, x)
    assert loop_lengths(optimize(twice), weights, x) == [10]
    _, inside = operations(optimize(relu_layer), weights, x)
    assert "custom_jvp_call" not in inside
    check(twice, weights, x)


def test_opened_rules_were_used_for_the_derivative():
    """`relu` has slope 0 at 0, by its rule alone: a plain maximum would have 1/2."""
    zeros = jnp.zeros((10, 4, 8))
    slope = jax.grad(lambda x: optimize(relu_layer)(jnp.eye(8), x).sum())(zeros)
    assert float(jnp.abs(slope).max()) == 0.0
