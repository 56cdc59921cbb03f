"""Statistics: likelihoods that are sums over rows, filters, volatilities, learners."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ._registry import Case, Sizes, family, last


@family("likelihood/Poisson regression")
def poisson(draw: Sizes) -> Case:
    n, steps = draw.between(2, 100), draw.steps()

    def step(w, total, row):  # type: ignore[no-untyped-def]
        x, count = row
        return total + count * (x @ w) - jnp.exp(x @ w), None

    def by_hand(w, _, rows):  # type: ignore[no-untyped-def]
        rate = rows[0] @ w
        return (rows[1] * rate - jnp.exp(rate)).sum()

    rows = draw.normal(steps, n), jnp.abs(draw.normal(steps))
    return Case(step, draw.weight(n), jnp.float32(0), rows, last, by_hand)


@family("likelihood/multinomial regression")
def multinomial(draw: Sizes) -> Case:
    n, k, steps = draw.between(2, 60), draw.between(2, 20), draw.steps()

    def step(w, total, row):  # type: ignore[no-untyped-def]
        logits = row[0] @ w
        return total + logits[row[1]] - jax.nn.logsumexp(logits), None

    def by_hand(w, _, rows):  # type: ignore[no-untyped-def]
        logits = rows[0] @ w
        chosen = jnp.take_along_axis(logits, rows[1][:, None], 1)
        return (chosen[:, 0] - jax.nn.logsumexp(logits, axis=1)).sum()

    rows = draw.normal(steps, n), draw.below(k, steps)
    return Case(step, draw.weight(n, k), jnp.float32(0), rows, last, by_hand)


@family("likelihood/mixture of Gaussians")
def mixture(draw: Sizes) -> Case:
    k, d, steps = draw.between(2, 20), draw.between(1, 10), draw.steps()

    def one(p, x):  # type: ignore[no-untyped-def]
        off = (x[None] - p["mean"]) * jnp.exp(p["scale"])
        parts = jax.nn.log_softmax(p["weight"]) - 0.5 * (off**2).sum(1)
        return jax.nn.logsumexp(parts + p["scale"].sum(1))

    def by_hand(p, _, xs):  # type: ignore[no-untyped-def]
        return jax.vmap(one, (None, 0))(p, xs).sum()

    p = dict(mean=draw.normal(k, d), scale=0.1 * draw.normal(k, d))
    p["weight"] = draw.normal(k)
    step = lambda p, total, x: (total + one(p, x), None)
    return Case(step, p, jnp.float32(0), draw.normal(steps, d), last, by_hand)


@family("likelihood/Hawkes process")
def hawkes(draw: Sizes) -> Case:
    def step(p, state, gap):  # type: ignore[no-untyped-def]
        base, jump, decay = jnp.exp(p)
        excited, total = state
        faded = excited * jnp.exp(-decay * gap)
        rate = base + faded
        spent = base * gap + (excited - faded) / decay
        return (faded + jump, total + jnp.log(rate) - spent), None

    gaps = jnp.abs(draw.normal(draw.steps()))
    start = jnp.float32(0), jnp.float32(0)
    return Case(step, 0.1 * draw.normal(3), start, gaps, lambda end, _: end[1])


@family("likelihood/moving average of noise")
def moving_average(draw: Sizes) -> Case:
    def step(p, state, y):  # type: ignore[no-untyped-def]
        before, error, total = state
        off = y - p[0] - p[1] * before - p[2] * error
        return (y, off, total + off**2), None

    start = tuple(jnp.zeros(3))
    ys = draw.normal(draw.steps())
    return Case(step, 0.3 * draw.normal(3), start, ys, lambda end, _: end[2])


@family("filter/seasons, a trend and a level")
def holt_winters(draw: Sizes) -> Case:
    seasons = draw.between(4, 24)

    def step(p, s, y):  # type: ignore[no-untyped-def]
        a, b, c = jax.nn.sigmoid(p)
        seen = s["level"] + s["trend"] + s["season"][0]
        level = a * (y - s["season"][0]) + (1 - a) * (s["level"] + s["trend"])
        trend = b * (level - s["level"]) + (1 - b) * s["trend"]
        new = c * (y - level) + (1 - c) * s["season"][0]
        season = jnp.roll(s["season"], -1).at[-1].set(new)
        return dict(level=level, trend=trend, season=season), seen

    zero = jnp.float32(0)
    start = dict(level=zero, trend=zero, season=jnp.zeros(seasons))
    return Case(step, draw.normal(3), start, draw.normal(draw.steps(100, 1500)))


@family("filter/moving covariance")
def covariance(draw: Sizes) -> Case:
    n = draw.between(2, 30)

    def step(rate, state, x):  # type: ignore[no-untyped-def]
        mean, cov = state
        off = x - mean
        mean = mean + rate * off
        cov = (1 - rate) * (cov + rate * jnp.outer(off, off))
        return (mean, cov), jnp.sqrt(jnp.diagonal(cov))

    xs = draw.normal(draw.steps(100, 1500), n)
    return Case(step, jnp.float32(0.05), (jnp.zeros(n), jnp.eye(n)), xs)


@family("filter/particles")
def particles(draw: Sizes) -> Case:
    n = draw.between(10, 500)

    def step(p, state, row):  # type: ignore[no-untyped-def]
        y, noise = row
        state = p[0] * state + jnp.exp(p[1]) * noise
        weights = jax.nn.softmax(-0.5 * (y - state) ** 2)
        return state, weights @ state

    steps = draw.steps(100, 1000)
    rows = draw.normal(steps), draw.normal(steps, n)
    return Case(step, 0.3 * draw.normal(2), jnp.zeros(n), rows)


@family("volatility/exponential GARCH")
def egarch(draw: Sizes) -> Case:
    n = draw.between(1, 60)

    def step(p, h, r):  # type: ignore[no-untyped-def]
        z = r * jnp.exp(-0.5 * h)
        h = p[0] + 0.9 * h + p[1] * jnp.abs(z) + p[2] * z
        return h, -0.5 * (h + r**2 * jnp.exp(-h))

    returns = draw.normal(draw.steps(), n)
    return Case(step, 0.1 * jnp.abs(draw.normal(3, n)), jnp.zeros(n), returns)


@family("volatility/correlations that move")
def correlations(draw: Sizes) -> Case:
    n = draw.between(2, 12)

    def step(p, q, z):  # type: ignore[no-untyped-def]
        a, b = 0.3 * jax.nn.sigmoid(p)
        q = (1 - a - b) * jnp.eye(n) + a * jnp.outer(z, z) + b * q
        scale = 1 / jnp.sqrt(jnp.diagonal(q))
        r = q * scale[:, None] * scale
        return q, z @ jnp.linalg.solve(r, z)

    return Case(step, draw.normal(2), jnp.eye(n), draw.normal(draw.steps(100, 600), n))


@family("learning/recursive least squares")
def least_squares(draw: Sizes) -> Case:
    n = draw.between(2, 30)

    def step(forget, state, row):  # type: ignore[no-untyped-def]
        w, P = state
        x, y = row
        gain = P @ x / (forget + x @ P @ x)
        off = y - w @ x
        return (w + gain * off, (P - jnp.outer(gain, x @ P)) / forget), off

    steps = draw.steps(100, 1000)
    rows = draw.normal(steps, n), draw.normal(steps)
    return Case(step, jnp.float32(0.99), (jnp.zeros(n), jnp.eye(n)), rows)


@family("learning/traces of eligibility")
def eligibility(draw: Sizes) -> Case:
    n = draw.between(2, 120)

    def step(p, state, row):  # type: ignore[no-untyped-def]
        w, trace = state
        x, after, reward = row
        off = reward + 0.9 * (after @ w) - x @ w
        trace = 0.9 * jax.nn.sigmoid(p[0]) * trace + x
        return (w + 0.01 * jnp.exp(p[1]) * off * trace, trace), off

    steps = draw.steps(100, 1500)
    rows = draw.normal(steps, n), draw.normal(steps, n), draw.normal(steps)
    return Case(step, draw.normal(2), (jnp.zeros(n), jnp.zeros(n)), rows)


@family("learning/table of actions", gradient=False)
def table(draw: Sizes) -> Case:
    states, actions = draw.between(4, 300), draw.between(2, 8)

    def step(rate, q, row):  # type: ignore[no-untyped-def]
        s, a, after, reward = row
        off = reward + 0.9 * q[after].max() - q[s, a]
        return q.at[s, a].add(rate * off), off

    steps = draw.steps()
    rows = draw.below(states, steps), draw.below(actions, steps)
    rows = (*rows, draw.below(states, steps), draw.normal(steps))
    return Case(step, jnp.float32(0.1), jnp.zeros((states, actions)), rows)


@family("learning/mean of features, by words")
def features(draw: Sizes) -> Case:
    n, words = draw.between(4, 100), draw.between(20, 2000)

    def step(p, total, row):  # type: ignore[no-untyped-def]
        word, weight = row
        return total + weight * jnp.tanh(p[word]), None

    def by_hand(p, total, rows):  # type: ignore[no-untyped-def]
        return total + (rows[1][:, None] * jnp.tanh(p[rows[0]])).sum(0)

    steps = draw.steps()
    rows = draw.below(words, steps), draw.normal(steps)
    return Case(step, draw.normal(words, n), jnp.zeros(n), rows, last, by_hand)
