"""Loops that carry nothing, or only sums."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from ._registry import Case, Sizes, family, last


def _map(function, parameters, xs) -> Case:  # type: ignore[no-untyped-def]
    def by_hand(parameters, _, xs):  # type: ignore[no-untyped-def]
        return jax.vmap(lambda x: function(parameters, x))(xs)

    return Case(
        lambda p, carry, x: (carry, function(p, x)), parameters, 0, xs, by_hand=by_hand
    )


@family("map/sine of a row")
def sines(draw: Sizes) -> Case:
    n = draw.between(4, 300)
    xs, scale = draw.normal(draw.steps(), n), draw.normal(n)
    return _map(lambda w, a: jnp.sin(a * w) + a.sum(), scale, xs)


@family("map/two layers")
def layers(draw: Sizes) -> Case:
    n, m, k = draw.between(4, 90), draw.between(4, 90), draw.between(1, 20)
    parameters = draw.weight(n, m), draw.weight(m, k)
    xs = draw.normal(draw.steps(), n)
    return _map(lambda p, a: jnp.tanh(a @ p[0]) @ p[1], parameters, xs)


@family("map/softmax")
def softmax(draw: Sizes) -> Case:
    n = draw.between(3, 200)
    xs, scale = draw.normal(draw.steps(), n), draw.normal(n)
    return _map(lambda w, a: jax.nn.softmax(w * a), scale, xs)


@family("map/layer norm")
def layer_norm(draw: Sizes) -> Case:
    n = draw.between(8, 200)
    xs, scale = draw.normal(draw.steps(), n), draw.normal(n)

    def function(w, a):  # type: ignore[no-untyped-def]
        return w * (a - a.mean()) * lax.rsqrt(a.var() + 1e-5)

    return _map(function, scale, xs)


@family("map/sorted rows", gradient=False)
def sorted_rows(draw: Sizes) -> Case:
    xs = draw.normal(draw.steps(100, 1000), draw.between(4, 100))
    return _map(lambda w, a: jnp.sort(w * a), jnp.float32(1.5), xs)


@family("map/Cholesky")
def cholesky(draw: Sizes) -> Case:
    n = draw.between(2, 12)
    xs = draw.normal(draw.steps(100, 800), n, n)
    return _map(
        lambda w, a: jnp.linalg.cholesky(w * a @ a.T + n * jnp.eye(n)),
        jnp.float32(0.5),
        xs,
    )


@family("map/convolution")
def convolution(draw: Sizes) -> Case:
    n, k = draw.between(16, 200), draw.between(3, 9)
    xs, kernel = draw.normal(draw.steps(100, 1000), n), draw.normal(k)
    return _map(lambda w, a: jnp.convolve(a, w, "same"), kernel, xs)


@family("sum/outer products")
def outer_products(draw: Sizes) -> Case:
    n, m, steps = draw.between(8, 160), draw.between(8, 160), draw.steps(100, 2000)

    def step(scale, total, row):  # type: ignore[no-untyped-def]
        return total + jnp.outer(scale * row[0], row[1]), None

    def by_hand(scale, _, rows):  # type: ignore[no-untyped-def]
        return (scale * rows[0]).T @ rows[1]

    rows = draw.normal(steps, n), draw.normal(steps, m)
    return Case(step, draw.normal(n), jnp.zeros((n, m)), rows, last, by_hand)


@family("sum/squared errors of a model")
def squared_errors(draw: Sizes) -> Case:
    n, k, steps = draw.between(4, 120), draw.between(1, 20), draw.steps()

    def step(w, total, row):  # type: ignore[no-untyped-def]
        return total + ((row[0] @ w - row[1]) ** 2).sum(), None

    def by_hand(w, _, rows):  # type: ignore[no-untyped-def]
        return ((rows[0] @ w - rows[1]) ** 2).sum()

    rows = draw.normal(steps, n), draw.normal(steps, k)
    return Case(step, draw.weight(n, k), jnp.float32(0), rows, last, by_hand)


@family("sum/logistic likelihood")
def logistic_likelihood(draw: Sizes) -> Case:
    n, steps = draw.between(2, 60), draw.steps()

    def step(w, total, row):  # type: ignore[no-untyped-def]
        return total + jax.nn.log_sigmoid(row[1] * (row[0] @ w)), None

    def by_hand(w, _, rows):  # type: ignore[no-untyped-def]
        return jax.nn.log_sigmoid(rows[1] * (rows[0] @ w)).sum()

    rows = draw.normal(steps, n), jnp.sign(draw.normal(steps))
    return Case(step, draw.normal(n), jnp.float32(0), rows, last, by_hand)


@family("sum/counts of tokens", gradient=False)
def counts(draw: Sizes) -> Case:
    n = draw.between(10, 2000)
    tokens = draw.below(n, draw.steps())

    def by_hand(weight, start, tokens):  # type: ignore[no-untyped-def]
        return start.at[tokens].add(weight)

    return Case(
        lambda weight, total, i: (total.at[i].add(weight), None),
        jnp.float32(0.5),
        jnp.zeros(n),
        tokens,
        last,
        by_hand,
    )


@family("sum/running mean and variance")
def welford(draw: Sizes) -> Case:
    n = draw.between(1, 100)

    def step(scale, state, x):  # type: ignore[no-untyped-def]
        count = state["count"] + 1.0
        off = scale * x - state["mean"]
        mean = state["mean"] + off / count
        squares = state["squares"] + off * (scale * x - mean)
        return dict(count=count, mean=mean, squares=squares), squares / count

    start = dict(count=jnp.float32(0), mean=jnp.zeros(n), squares=jnp.zeros(n))
    return Case(step, draw.normal(n), start, draw.normal(draw.steps(), n))
