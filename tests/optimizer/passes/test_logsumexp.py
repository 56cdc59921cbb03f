"""save_memory: the logsumexp of rows over time is kept, not the rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from jscan import explain, optimize
from support.comparing import assert_close
from support.optimizer.loops import reasons, stacked_shapes

STEPS = 12
A = jnp.linspace(0.5, 1.5, 5)
INF, NAN = jnp.inf, jnp.nan


def rows(a, x):
    """Rows that need the state; without it they would not be in a loop at all."""
    step = lambda c, v: ((c := c * a + v), c + v)
    return jax.lax.scan(step, jnp.zeros_like(a), x)[1]


def given(x):
    """A loop whose rows are exactly those of `x`, though it does not look so."""
    step = lambda c, v: (c + 1, jnp.where(c >= 0, v, c))
    return jax.lax.scan(step, jnp.zeros(x.shape[1:], x.dtype), x)[1]


def sines(x):
    step = lambda c, v: ((c := jnp.sin(c) + v), c)
    return jax.lax.scan(step, jnp.zeros(5), x)[1]


def small(fun):
    """`optimize` with so little memory that rows are not worth storing."""
    return optimize(fun, memory_budget=10)


X = jax.random.normal(jax.random.key(0), (STEPS, 5)) * 3


@pytest.mark.parametrize("options", [{"axis": 0}, {"axis": 0, "keepdims": True}, {}])
def test_values_gradients_and_no_rows(options):
    """Also over all axes; first and second derivatives, and a batch."""

    def loss(a, x):
        return jax.nn.logsumexp(rows(a, x), **options)

    assert (STEPS, 5) in stacked_shapes(loss, A, X)
    assert (STEPS, 5) not in stacked_shapes(small(loss), A, X)
    stack = jnp.stack([A, A / 2])

    def everything(f):
        total = lambda a: (f(a, X) ** 2).sum()
        batch = jax.vmap(lambda a: f(a, X))(stack)
        return f(A, X), batch, jax.grad(total)(A), jax.hessian(total)(A)

    plain, ours = jax.jit(lambda: (everything(loss), everything(small(loss))))()
    assert_close(ours, plain, 1e-4)


def test_against_scipy():
    """In double precision, on rows that overflow when they are not shifted."""
    x = np.linspace(-2000.0, 2000.0, STEPS * 3).reshape(STEPS, 3)
    for order in (x, x[::-1], np.roll(x, 5, axis=0)):
        got = small(lambda v: jax.nn.logsumexp(given(v), axis=0))(jnp.asarray(order))
        expected = scipy.special.logsumexp(order, axis=0)
        np.testing.assert_allclose(got, expected, rtol=1e-6)


SPECIAL = {
    "minus infinities first": [-INF, -INF, 1.0, 2.0],
    "a minus infinity between": [800.0, -INF, 801.0, -INF],
    "only minus infinities": [-INF, -INF, -INF, -INF],
    "an infinity": [1.0, INF, 900.0, -INF],
    "two infinities": [INF, -INF, INF, 3.0],
    "a nan": [1.0, NAN, 2.0, 3.0],
    "a nan after an infinity": [1.0, INF, NAN, 3.0],
    "falling": [-900.0, -901.0, -902.0, -950.0],
    "equal": [7.0, 7.0, 7.0, 7.0],
}


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float16, jnp.bfloat16])
def test_special_values(dtype):
    """Infinities and NaN come out as they do of the original, and so do gradients."""
    x = jnp.asarray(list(SPECIAL.values()), dtype).T
    loss = lambda v: jax.nn.logsumexp(given(v), axis=0)
    tolerance = {"float32": 1e-6, "float16": 2e-3, "bfloat16": 2e-2}[x.dtype.name]
    assert x.shape not in stacked_shapes(small(loss), x)

    def everything(f):
        # The columns are independent: these are all derivatives there are.
        backward = jax.grad(lambda v: f(v).sum())(x)
        return f(x), backward, *jax.jvp(f, (x,), (jnp.ones_like(x),))

    plain, ours = jax.jit(lambda: (everything(loss), everything(small(loss))))()
    for expected, got in zip(plain, ours, strict=True):
        np.testing.assert_array_equal(np.isnan(got), np.isnan(expected))
        np.testing.assert_allclose(
            np.float64(got), np.float64(expected), rtol=tolerance, atol=tolerance
        )


def test_long_sums_in_half_precision():
    """Scales between rows are not rounded to 16 bits, or slow growth would be lost."""
    x = jnp.linspace(0.0, 4.0, 3000, dtype=jnp.float16)[:, None]
    got = small(lambda v: jax.nn.logsumexp(given(v), axis=0))(x)
    expected = np.asarray(scipy.special.logsumexp(np.float64(x), axis=0))
    np.testing.assert_allclose(np.asarray(got, np.float64), expected, rtol=2e-3)


def test_temporary_memory():
    """Rows of 41 MB, over the default budget, are not stored."""

    def last(a):
        step = lambda r, _: ((r := r * a), r)
        return jax.nn.logsumexp(jax.lax.scan(step, a, length=160_000)[1], axis=0)

    report = explain(last)(jnp.full(64, 0.9999))
    assert report.temporary_bytes is not None
    before, after = report.temporary_bytes
    assert before > 160_000 * 64 * 4
    assert after < before // 1000
    assert "logsumexp of" in str(report)


def weighted(x):
    return jax.nn.logsumexp(rows(A, x), axis=0, b=jnp.arange(5.0)[None])


def masked(x):
    return jax.nn.logsumexp(rows(A, x), axis=0, where=x > 0)


def each_row(x):
    return jax.nn.logsumexp(rows(A, x), axis=1)


def softmax(x):
    return jax.nn.softmax(rows(A, x), axis=0)


def also_returned(x):
    ys = rows(A, x)
    return jax.nn.logsumexp(ys, axis=0), ys


def also_the_maximum(x):
    ys = rows(A, x)
    return jax.nn.logsumexp(ys, axis=0), ys.max(axis=0)


def by_hand(x):
    """Without the guard against infinities, so another function."""
    ys = rows(A, x)
    top = jax.lax.stop_gradient(ys.max(axis=0))[None]
    return jnp.log(jnp.exp(ys - top).sum(axis=0)) + top[0]


@pytest.mark.parametrize(
    "fun",
    [weighted, masked, each_row, softmax, also_returned, also_the_maximum, by_hand],
)
def test_others_keep_their_rows(fun):
    """What is not the plain logsumexp of rows, read as such alone, is left alone."""
    assert any(shape[:1] == (STEPS,) for shape in stacked_shapes(small(fun), X))
    assert "logsumexp of" not in str(explain(fun, memory_budget=10)(X))
    assert_close(jax.jit(small(fun))(X), fun(X))


def test_refusals_are_reported():
    """Rows read otherwise, few rows, and rows that need no state."""

    def said(fun, **options):
        return reasons(fun, X, name="save_memory", **options)

    plain = lambda x: jax.nn.logsumexp(rows(A, x), axis=0)
    assert "one exponential less a step is faster while they take" in said(plain)
    assert "read otherwise too" in said(also_the_maximum, memory_budget=10)
    assert "were not found to be faster" in said(
        lambda x: jax.nn.logsumexp(sines(x), axis=0), memory_budget=10
    )
    long = jnp.zeros((20_000, 1), jnp.float32)
    said_long = reasons(
        lambda x: jax.nn.logsumexp(given(x), axis=0), long, name="save_memory"
    )
    assert "the rounding of 20000 sums in a row would add up" in said_long
    no_state = lambda x: jax.nn.logsumexp(
        jax.lax.scan(lambda c, v: (c, jnp.sin(v)), (), x)[1], axis=0
    )
    assert "need no state" in said(no_state)
