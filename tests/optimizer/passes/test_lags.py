"""small_dots, lags: numbers times rows of one array are one product."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

import jscan
from jscan import optimize
from support.comparing import assert_close
from support.optimizer.loops import check, operations
from support.optimizer.machines import SHIPPED, every_machine

T, LAGS, WIDE = 30, 5, 3
W = jax.random.normal(jax.random.key(0), (LAGS,)) / 5
X = jax.random.normal(jax.random.key(1), (T, WIDE))


@pytest.fixture(autouse=True)
def few_lags_pay(small_loops_pay):
    """Three terms are enough, and a product is not a sum again."""
    costs = {"fewest_lags": 3, "batch_start": 0, "small_columns": 0, "longest_row": 0}
    machine = dataclasses.replace(SHIPPED["cpu"], **costs)
    with every_machine(machine):
        yield
    jax.clear_caches()


def weighed(terms):
    """A loop over a window, whose step adds up what `terms` makes of it."""

    def function(weights, xs):
        def step(window, x):
            parts = terms(weights, window, x)
            y = jnp.tanh(sum(parts[1:], parts[0]))
            return jnp.concatenate([window[1:], y[None]]), y

        return jax.lax.scan(step, jnp.ones((LAGS, *xs.shape[1:])), xs)[1]

    return function


FIRED = {
    "all": lambda w, s, x: [*(w[k] * s[k] for k in range(LAGS)), x],
    "row first": lambda w, s, x: [*(s[k] * w[k] for k in range(LAGS)), x],
    "in any order": lambda w, s, x: [w[2] * s[3], x, w[1] * s[2], w[0] * s[4]],
    "among others": lambda w, s, x: [
        x,
        *(w[k] * s[k] for k in range(3)),
        jnp.sin(s[4]),
    ],
}


@pytest.mark.parametrize("name", FIRED)
def test_fires(name):
    """One product, and no row is read by itself for it; the numbers agree."""
    function = weighed(FIRED[name])
    _, inside = operations(optimize(function), W, X)
    assert inside.count("dot_general") == 1
    assert "mul" not in inside
    check(function, W, X, tolerance=1e-4)
    check(function, W, X[:, 0], tolerance=1e-4)  # rows that are numbers


REFUSED = {
    "too few": lambda w, s, x: [w[0] * s[0], w[1] * s[1], x],
    "a gap": lambda w, s, x: [w[k] * s[k] for k in (0, 1, 3, 4)],
    "a row twice": lambda w, s, x: [w[k] * s[min(k, 3)] for k in range(LAGS)],
    "numbers that change": lambda w, s, x: [x[0] * s[k] for k in range(LAGS)],
    "rows of rows": lambda w, s, x: [w[0] * s[k, 0] + 0 * x for k in range(LAGS)],
    "another type": lambda w, s, x: [
        (w[k].astype("float32") * s[k].astype("float32")).astype(x.dtype)
        for k in range(LAGS)
    ],
    "read elsewhere": lambda w, s, x: [
        *(parts := [w[k] * s[k] for k in range(LAGS)]),
        jnp.sin(sum(map(jnp.cos, parts), x)),
    ],
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    """What is not such a sum stays as it was."""
    function = weighed(REFUSED[name])
    assert "dot_general" not in operations(optimize(function), W, X)[1]
    check(function, W, X, tolerance=1e-4)


def test_not_below_what_pays():
    """By the measured costs a few lags stay apart."""
    with every_machine(SHIPPED["cpu"]):
        jax.clear_caches()
        function = weighed(lambda w, s, x: [*(w[k] * s[k] for k in range(LAGS)), -x])
        assert "dot_general" not in operations(optimize(function), W, X)[1]


def test_taps_of_a_scan():
    """Taps of a scan that keeps its last rows as one array, without being asked."""
    lags = 12
    weights = jax.random.normal(jax.random.key(2), (lags,)) / 9

    def by_taps(weights, xs):
        def step(x, *rows):
            return jnp.tanh(sum(w * r for w, r in zip(weights, rows, strict=True)) + x)

        initial = {"initial": jnp.zeros((lags, WIDE)), "taps": list(range(-lags, 0))}
        return jscan.scan(step, xs, initial)[0]

    def by_window(weights, xs):
        def step(window, x):
            y = jnp.tanh(weights @ window + x)
            return jnp.concatenate([window[1:], y[None]]), y

        return jax.lax.scan(step, jnp.zeros((lags, WIDE)), xs)[1]

    assert operations(by_taps, weights, X)[1].count("dot_general") == 1
    for of in (lambda f: f, lambda f: jax.grad(lambda w, xs: (f(w, xs) ** 2).sum())):
        assert_close(jax.jit(of(by_taps))(weights, X), of(by_window)(weights, X), 1e-4)
    loss = lambda scale, f: (f(scale * weights, X) ** 2).mean()
    at = jnp.asarray(0.9)
    assert_close(
        jax.hessian(lambda s: loss(s, by_taps))(at),
        jax.hessian(lambda s: loss(s, by_window))(at),
        1e-3,
    )
