"""Time series: filters, volatilities, chains with hidden states."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from ._registry import Case, Sizes, family, last


@family("filter/vector autoregression of two lags")
def two_lags(draw: Sizes) -> Case:
    n, steps = draw.between(2, 80), draw.steps(100, 1000)

    def step(p, state, x):  # type: ignore[no-untyped-def]
        a, b = state
        row = a @ p["A"] + b @ p["B"] + x
        return (row, a), row

    def by_hand(p, state, xs):  # type: ignore[no-untyped-def]
        both = jnp.concatenate([p["A"], p["B"]])

        def step(state, x):  # type: ignore[no-untyped-def]
            row = state @ both + x
            return jnp.concatenate([row, state[:n]]), row

        return lax.scan(step, jnp.concatenate(state), xs)[1]

    parameters = dict(A=0.5 * draw.weight(n, n), B=0.4 * draw.weight(n, n))
    start = jnp.zeros(n), jnp.zeros(n)
    return Case(step, parameters, start, draw.normal(steps, n), by_hand=by_hand)


@family("filter/autoregression of a window")
def window(draw: Sizes) -> Case:
    lags, steps = draw.between(2, 40), draw.steps()

    def step(w, window, x):  # type: ignore[no-untyped-def]
        y = w @ window + x
        return jnp.concatenate([window[1:], y[None]]), y

    weights = draw.normal(lags, scale=0.5 / lags)
    return Case(step, weights, jnp.zeros(lags), draw.normal(steps))


@family("filter/exponential smoothing")
def smoothing(draw: Sizes) -> Case:
    n = draw.between(1, 300)

    def step(p, h, x):  # type: ignore[no-untyped-def]
        h = h + jax.nn.sigmoid(p) * (x - h)
        return h, h

    def by_hand(p, h, xs):  # type: ignore[no-untyped-def]
        rate = jax.nn.sigmoid(p)
        return lax.scan(lambda h, x: (h + rate * (x - h),) * 2, h, xs)[1]

    xs = draw.normal(draw.steps(), n)
    return Case(step, draw.normal(n), jnp.zeros(n), xs, by_hand=by_hand)


@family("filter/last of many tanh rows")
def last_of_rows(draw: Sizes) -> Case:
    n = draw.between(4, 200)

    def step(w, h, x):  # type: ignore[no-untyped-def]
        h = jnp.tanh(w * h + x)
        return h, h

    def by_hand(w, h, xs):  # type: ignore[no-untyped-def]
        return lax.scan(lambda h, x: (step(w, h, x)[0], None), h, xs)[0]

    xs, weight = draw.normal(draw.steps(), n), draw.normal(n, scale=0.3)
    read = lambda _, rows: rows[-1]
    return Case(step, weight, jnp.zeros(n), xs, read, by_hand)


@family("filter/Kalman, constant velocity")
def kalman(draw: Sizes) -> Case:
    n = draw.between(1, 4)
    eye, zero = jnp.eye(n), jnp.zeros((n, n))
    move = jnp.block([[eye, 0.1 * eye], [zero, eye]])
    see = jnp.concatenate([eye, zero], 1)

    def step(p, state, z):  # type: ignore[no-untyped-def]
        m, P = state
        m, P = move @ m, move @ P @ move.T + jnp.exp(p[0]) * jnp.eye(2 * n)
        S = see @ P @ see.T + jnp.exp(p[1]) * eye
        gain = jnp.linalg.solve(S, see @ P).T
        off = z - see @ m
        state = m + gain @ off, P - gain @ see @ P
        return state, -0.5 * (off @ jnp.linalg.solve(S, off))

    start = jnp.zeros(2 * n), jnp.eye(2 * n)
    return Case(step, draw.normal(2), start, draw.normal(draw.steps(100, 1000), n))


@family("filter/local level")
def local_level(draw: Sizes) -> Case:
    def step(p, state, y):  # type: ignore[no-untyped-def]
        m, variance = state
        variance = variance + jnp.exp(p[0])
        total = variance + jnp.exp(p[1])
        off = y - m
        gain = variance / total
        state = m + gain * off, variance * (1 - gain)
        return state, -0.5 * (jnp.log(total) + off**2 / total)

    def by_hand(p, state, ys):  # type: ignore[no-untyped-def]
        q, r = jnp.exp(p)

        def step(state, y):  # type: ignore[no-untyped-def]
            m, variance = state
            variance = variance + q
            total, off = variance + r, y - m
            gain = variance / total
            return (m + gain * off, variance * (1 - gain)), (total, off)

        total, off = lax.scan(step, state, ys)[1]
        return -0.5 * (jnp.log(total) + off**2 / total)

    start = jnp.float32(0), jnp.float32(1)
    return Case(step, draw.normal(2), start, draw.normal(draw.steps()), by_hand=by_hand)


@family("volatility/GARCH(1,1) likelihood")
def garch(draw: Sizes) -> Case:
    def step(p, variance, r):  # type: ignore[no-untyped-def]
        variance = p[0] + p[1] * r**2 + p[2] * variance
        return variance, -0.5 * (jnp.log(variance) + r**2 / variance)

    def by_hand(p, variance, rs):  # type: ignore[no-untyped-def]
        new = p[0] + p[1] * rs**2
        step = lambda v, x: (x + p[2] * v,) * 2
        variances = lax.scan(step, variance, new)[1]
        return -0.5 * (jnp.log(variances) + rs**2 / variances)

    parameters = jnp.asarray([0.1, 0.1, 0.8], jnp.float32)
    rs = draw.normal(draw.steps(200, 8000))
    return Case(step, parameters, jnp.float32(1), rs, by_hand=by_hand)


@family("volatility/worst fall so far")
def drawdown(draw: Sizes) -> Case:
    def step(scale, state, r):  # type: ignore[no-untyped-def]
        level, peak, worst = state
        level = level + scale * r
        peak = jnp.maximum(peak, level)
        worst = jnp.maximum(worst, peak - level)
        return (level, peak, worst), worst

    n = draw.between(1, 50)
    xs = draw.normal(draw.steps(), n)
    return Case(step, draw.normal(n), (jnp.zeros(n),) * 3, xs)


@family("chain/hidden Markov in logs")
def hidden_markov(draw: Sizes) -> Case:
    k = draw.between(2, 24)

    def step(p, a, e):  # type: ignore[no-untyped-def]
        moves = jax.nn.log_softmax(p["A"], axis=1)
        return jax.nn.logsumexp(a[:, None] + moves, axis=0) + e, None

    def by_hand(p, a, es):  # type: ignore[no-untyped-def]
        moves = jax.nn.log_softmax(p["A"], axis=1)
        step = lambda a, e: (jax.nn.logsumexp(a[:, None] + moves, axis=0) + e, None)
        return jax.nn.logsumexp(lax.scan(step, a, es)[0])

    read = lambda a, _: jax.nn.logsumexp(a)
    xs = draw.normal(draw.steps(100, 1500), k)
    start = jax.nn.log_softmax(draw.normal(k))
    return Case(step, dict(A=draw.normal(k, k)), start, xs, read, by_hand)


@family("chain/hidden Markov, scaled")
def scaled_markov(draw: Sizes) -> Case:
    k = draw.between(2, 60)

    def step(p, a, e):  # type: ignore[no-untyped-def]
        a = (a @ jax.nn.softmax(p["A"], axis=1)) * jnp.exp(e)
        total = a.sum()
        return a / total, jnp.log(total)

    def by_hand(p, a, es):  # type: ignore[no-untyped-def]
        moves = jax.nn.softmax(p["A"], axis=1)

        def step(a, e):  # type: ignore[no-untyped-def]
            a = (a @ moves) * e
            total = a.sum()
            return a / total, total

        return jnp.log(lax.scan(step, a, jnp.exp(es))[1]).sum()

    read = lambda _, rows: rows.sum()
    xs = draw.normal(draw.steps(100, 1500), k)
    start = jax.nn.softmax(draw.normal(k))
    return Case(step, dict(A=draw.normal(k, k)), start, xs, read, by_hand)


@family("chain/conditional random field")
def random_field(draw: Sizes) -> Case:
    k, n = draw.between(3, 24), draw.between(4, 60)

    def step(p, a, x):  # type: ignore[no-untyped-def]
        scores = a[:, None] + p["T"] + (x @ p["W"])[None]
        return jax.nn.logsumexp(scores, axis=0), None

    def by_hand(p, a, xs):  # type: ignore[no-untyped-def]
        def step(a, row):  # type: ignore[no-untyped-def]
            return jax.nn.logsumexp(a[:, None] + p["T"], axis=0) + row, None

        return jax.nn.logsumexp(lax.scan(step, a, xs @ p["W"])[0])

    read = lambda a, _: jax.nn.logsumexp(a)
    parameters = dict(T=draw.normal(k, k), W=draw.weight(n, k))
    xs = draw.normal(draw.steps(64, 600), n)
    return Case(step, parameters, jnp.zeros(k), xs, read, by_hand)


@family("chain/connectionist classification")
def ctc(draw: Sizes) -> Case:
    words, length = draw.between(5, 60), draw.between(3, 20)
    labels = draw.below(words, length)

    def step(scale, a, scores):  # type: ignore[no-untyped-def]
        here = jax.nn.log_softmax(scale * scores)[labels]
        before = jnp.concatenate([jnp.full(1, -1e5), a[:-1]])
        return jnp.logaddexp(a, before) + here, None

    def by_hand(scale, a, scores):  # type: ignore[no-untyped-def]
        here = jax.nn.log_softmax(scale * scores)[:, labels]

        def step(a, row):  # type: ignore[no-untyped-def]
            before = jnp.concatenate([jnp.full(1, -1e5), a[:-1]])
            return jnp.logaddexp(a, before) + row, None

        return lax.scan(step, a, here)[0][-1]

    start = jnp.full(length, -1e5).at[0].set(0.0)
    xs = draw.normal(draw.steps(64, 600), words)
    return Case(step, jnp.float32(1), start, xs, lambda a, _: a[-1], by_hand)


@family("chain/Viterbi", gradient=False)
def viterbi(draw: Sizes) -> Case:
    k = draw.between(2, 40)

    def step(p, a, e):  # type: ignore[no-untyped-def]
        scores = a[:, None] + p
        return scores.max(0) + e, scores.argmax(0)

    xs = draw.normal(draw.steps(100, 1500), k)
    return Case(step, draw.normal(k, k), jnp.zeros(k), xs)


@family("chain/product of matrices")
def product_of_matrices(draw: Sizes) -> Case:
    n = draw.between(2, 6)
    xs = draw.normal(draw.steps(100, 1500), n, n, scale=0.1)
    step = lambda scale, P, A: (P @ (jnp.eye(n) + scale * A), None)
    return Case(step, jnp.float32(0.5), jnp.eye(n), xs, last)
