"""small_dots and unroll: the last passes, for the CPU's compiler."""

import jax
import jax.numpy as jnp
import numpy as np

from jscan import explain, optimize
from jscan.optimize import rewrite
from optimize.loops import assert_same, check, operations, reasons

A = jnp.eye(4) * 0.9 + jnp.eye(4, k=1) * 0.1
X = jax.random.normal(jax.random.key(5), (80,))


def kalman(a, x):
    def step(state, x_t):
        m, p = state
        p = a @ p @ a.T + 0.1 * jnp.eye(4)
        gain = p[:, 0] / (p[0, 0] + 1)
        m = a @ m
        m = m + gain * (x_t - m[0])
        return (m, p - gain[:, None] * p[0][None, :]), m[0]

    return jax.lax.scan(step, (jnp.zeros(4), jnp.eye(4)), x)[1]


def test_tiny_products_are_written_out():
    """Matrix times matrix goes; a matrix times a vector is fine as it is."""
    _, plain = operations(kalman, A, X)
    _, inside = operations(optimize(kalman), A, X)
    assert plain.count("dot_general") == 3
    assert inside.count("dot_general") == 1
    check(kalman, A, X, tolerance=1e-4)


def test_written_out_product_equals_the_product():
    """Batch axes, several contracted axes, any order: against NumPy."""
    left, right = np.random.default_rng(0).normal(size=(2, 2, 3, 4))

    def loop(x, y):
        def step(c, _):
            return jax.lax.dot_general(
                x * c.sum(), y, (((2, 1), (2, 1)), ((0,), (0,)))
            )[:, None] + 0 * c, None

        return jax.lax.scan(step, jnp.ones((2, 1)), length=2)[0]

    once = np.einsum("bij,bij->b", left, right)
    expected = (once * (once * 2).sum())[:, None]
    np.testing.assert_allclose(optimize(loop)(left, right), expected, rtol=1e-5)


def test_transposed_weights_are_stored_once():
    """A backward step reads `u.T`, whose transpose XLA does not hoist."""
    u = jnp.eye(32) / 2

    def loss(u, x):
        step = lambda h, x_t: ((h := jnp.tanh(h @ u + x_t)), h)
        return (jax.lax.scan(step, jnp.zeros((2, 32)), x)[1] ** 2).sum()

    x = jnp.ones((5, 2, 32))
    report = explain(jax.grad(loss))(u, x)
    assert "transposed matrix" in str(report.loops[-1])
    assert_same(jax.jit(optimize(jax.grad(loss)))(u, x), jax.grad(loss)(u, x))


def test_products_with_one_left_operand_are_merged():
    """Three gates of a small state are one product inside the loop."""
    u = [jnp.eye(16) / k for k in (2, 3, 4)]

    def cell(u, x):
        def step(h, x_t):
            h = jnp.tanh(h @ u[0] + x_t) * jax.nn.sigmoid(h @ u[1]) + h @ u[2]
            return h, h

        return jax.lax.scan(step, jnp.ones((8, 16)), x)[1]

    x = jnp.ones((5, 8, 16))
    _, inside = operations(optimize(cell), u, x)
    assert inside.count("dot_general") == 1
    check(cell, u, x)


def test_cpu_rules_stay_off_elsewhere():
    """On another platform none of the CPU's rules is applied."""
    closed = jax.make_jaxpr(kalman)(A, X)
    rewritten = rewrite(closed, platform="cuda")
    loops = [e for e in rewritten.jaxpr.eqns if e.primitive.name == "scan"]
    body = loops[0].params["jaxpr"].jaxpr
    assert sum(e.primitive.name == "dot_general" for e in body.eqns) == 3
    assert loops[0].params["unroll"] == 1


def unroll_of(fun, *args, **keywords):
    closed = rewrite(jax.make_jaxpr(fun)(*args), platform="cpu", **keywords)
    return [e.params["unroll"] for e in closed.jaxpr.eqns if e.primitive.name == "scan"]


def recurrence(a, x):
    step = lambda c, x_t: ((c := a * c + x_t), c)
    return jax.lax.scan(step, jnp.zeros((), x.dtype), x)[1]


def test_tiny_steps_are_unrolled_at_lowering_only():
    """Not before differentiation, which would keep the factor."""
    a = X[0] * 0.5
    assert unroll_of(recurrence, a, X) == [4]
    assert unroll_of(recurrence, a, X, stage="trace") == [1]
    assert unroll_of(recurrence, a, X[:20]) == [1]
    check(recurrence, a, X)


def test_a_chosen_unroll_is_kept():
    """What the user chose is not changed."""

    def loop(x):
        step = lambda c, x_t: ((c := 0.5 * c + x_t), c)
        return jax.lax.scan(step, jnp.zeros((), x.dtype), x, unroll=2)[1]

    assert unroll_of(loop, X) == [2]


def test_unroll_says_why_not():
    """A large step, and one that is more than arithmetic."""
    x = jnp.ones((80, 64))
    step = lambda c, x_t: ((c := jnp.tanh(c + x_t)), c)
    wide = lambda x: jax.lax.scan(step, jnp.zeros(64), x)[1]
    assert "not tiny" in reasons(wide, x, name="unroll")
    step_sum = lambda c, x_t: ((c := c + x_t.sum() * c.max()), c)
    other = lambda x: jax.lax.scan(step_sum, jnp.zeros(64), x)[1]
    assert "more than elementwise" in reasons(other, x, name="unroll")
