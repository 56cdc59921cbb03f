"""save_memory, across a derivative: what the forward loop hands to the backward one."""

import jax
import jax.numpy as jnp
import pytest

import jscan
from jscan import optimize
from jscan._optimizer.passes.save_memory import residuals as _stored
from support.comparing import assert_close
from support.optimizer.loops import stacked_shapes

T, ROWS, WIDE = 40, 8, 16
W = jax.random.normal(jax.random.key(0), (WIDE, 4 * WIDE)) / 4
X = jax.random.normal(jax.random.key(1), (T, ROWS, 4 * WIDE))


def cell(weight, h, c, x):
    i, f, g, o = jnp.split(h @ weight + x, 4, axis=-1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c


def lstm(weight, xs):
    """A loop of JAX."""

    def step(carry, x):
        h, c = cell(weight, carry[0], carry[1], x)
        return (h, c), h

    zeros = jnp.zeros((ROWS, WIDE))
    return jax.lax.scan(step, (zeros, zeros), xs)[1]


def ours(weight, xs, **options):
    """The same loop of jscan, which nobody asks to optimize."""
    zeros = jnp.zeros((ROWS, WIDE))
    (h, _), _ = jscan.scan(
        lambda x, h, c: cell(weight, h, c, x),
        sequences=xs,
        outputs_info=[zeros, zeros],
        **options,
    )
    return h


def loss(function):
    return lambda weight, xs: (function(weight, xs) ** 2).sum()


def rows(fun, *args):
    """How many stacks the loops of a program hand out."""
    return sum(shape[:1] == (T,) for shape in stacked_shapes(fun, *args))


def temporary(fun, *args):
    analysis = jax.jit(fun).lower(*args).compile().memory_analysis()
    assert analysis is not None
    return analysis.temp_size_in_bytes


def test_derivatives_of_loops_store_as_little_as_rewritten_derivatives():
    """Six rows of the state and the gates, the result, and what the sums read."""
    asked = rows(optimize(jax.grad(loss(lstm))), W, X)
    assert rows(jax.grad(loss(optimize(lstm))), W, X) == asked
    assert rows(jax.grad(loss(ours)), W, X) == asked
    assert rows(jax.grad(loss(lstm)), W, X) > asked


def test_it_takes_less_memory():
    """The compiled gradient beside the one of the loop as written."""
    kept = jax.grad(loss(optimize(lstm, passes=["save_memory"])))
    assert temporary(kept, W, X) < 0.8 * temporary(jax.grad(loss(lstm)), W, X)


@pytest.mark.parametrize(
    "wrap", [lambda f: f, optimize, jax.jit], ids=["eager", "optimize", "jit"]
)
def test_an_eager_derivative_stores_its_input_and_no_copy(wrap):
    scan = wrap(lambda c, xs: jax.lax.scan(lambda c, x: (c * x, c), c, xs))
    xs = X[:, 0]
    _, back = jax.vjp(lambda xs: scan(jnp.ones_like(xs[0]), xs), xs)
    stored = jax.tree.leaves(back)
    assert any(leaf is xs for leaf in stored)
    assert [leaf.shape for leaf in stored] == [xs.shape] * 2  # and the states


DERIVATIVES = {
    "grad": jax.grad,
    "jit": lambda f: jax.jit(jax.grad(f)),
    "vmap": lambda f: jax.vmap(jax.grad(f), (None, 0)),
    "grad-grad": lambda f: jax.grad(lambda w, x: (jax.grad(f)(w, x) ** 2).sum()),
    "jvp-grad": lambda f: lambda w, x: jax.jvp(lambda v: jax.grad(f)(v, x), (w,), (w,)),
    "linearize": lambda f: lambda w, x: jax.linearize(f, w, x)[1](w, x),
    "remat": lambda f: jax.grad(jax.checkpoint(f)),
    "hessian": lambda f: lambda w, x: jax.hessian(lambda a: f(a * w, x))(jnp.ones(())),
}


@pytest.mark.parametrize("name", DERIVATIVES)
def test_numbers_agree(name):
    """Every derivative that splits a loop, ours and asked for, beside `lax.scan`."""
    derive = DERIVATIVES[name]
    xs = jnp.stack([X, X[::-1]]) if name == "vmap" else X
    expected = derive(loss(lstm))(W, xs)
    assert_close(derive(loss(ours))(W, xs), expected, 1e-6)
    assert_close(derive(loss(optimize(lstm)))(W, xs), expected, 1e-6)


def test_it_can_be_switched_off(monkeypatch):
    """By the mode, by the passes, and by the environment."""
    asked = rows(jax.grad(loss(ours)), W, X)
    written = rows(jax.grad(loss(lambda w, xs: ours(w, xs, mode="FAST_COMPILE"))), W, X)
    assert written > asked
    alone, without = ["merge", "save_memory"], ["merge"]
    assert rows(jax.grad(loss(optimize(lstm, passes=without))), W, X) > rows(
        jax.grad(loss(optimize(lstm, passes=alone))), W, X
    )
    monkeypatch.setenv("JSCAN_OPTIMIZE", "0")
    assert rows(jax.grad(loss(lambda w, xs: ours(w, xs, name="off"))), W, X) == written


def test_a_failure_stores_as_before(monkeypatch):
    """The derivative is right all the same; with JSCAN_DEBUG=1 the error is raised."""

    def broken(*_):
        raise RuntimeError("injected")

    def scaled(weight, xs):  # not in any cache
        return loss(ours)(weight * 1.5, xs + 0.25)

    monkeypatch.setattr(_stored, "_checkpointed", broken)
    monkeypatch.delenv("JSCAN_DEBUG")
    expected = jax.grad(lambda w, xs: loss(lstm)(w * 1.5, xs + 0.25))(W, X)
    assert_close(jax.grad(scaled)(W, X), expected, 1e-6)
    monkeypatch.setenv("JSCAN_DEBUG", "1")
    with pytest.raises(RuntimeError, match="injected"):
        jax.grad(lambda w: (ours(w, X[:13]) ** 2).sum())(W)


@pytest.mark.parametrize("checkpoint", [None, 2, "sqrt", "recursive"])
def test_complex_gates(checkpoint):
    """What JAX's checkpoints cannot store is left as it is."""
    xs = jax.lax.complex(X[:5, :, :3], X[5:10, :, :3]) / 4

    def step(x, h):
        return jnp.tanh(x + h) * h

    def by_hand(xs):
        body = lambda h, x: (step(x, h), step(x, h))
        return abs(jax.lax.scan(body, xs[0], xs)[1]).sum()

    def by_jscan(xs):
        rows = jscan.scan(step, xs, xs[0], checkpoint=checkpoint).outputs
        return abs(rows).sum()

    expected = jax.grad(by_hand)(xs)
    assert_close(jax.grad(by_jscan)(xs), expected, 1e-5)
    assert_close(jax.jit(jax.grad(optimize(by_hand)))(xs), expected, 1e-5)
