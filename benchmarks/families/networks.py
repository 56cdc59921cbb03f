"""Networks: cells with their inputs in the step, decoders, state-space layers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from ._registry import Case, Sizes, family


def _sizes(draw: Sizes) -> tuple[int, int, int]:
    return draw.steps(64, 800), draw.between(1, 200), draw.between(4, 200)


@family("network/tanh, inputs in the step")
def rnn(draw: Sizes) -> Case:
    steps, n, m = _sizes(draw)

    def by_hand(p, h, xs):  # type: ignore[no-untyped-def]
        rows = xs @ p["W"] + p["b"]
        return lax.scan(lambda h, r: (jnp.tanh(r + h @ p["U"]),) * 2, h, rows)[1]

    return Case(
        lambda p, h, x: (jnp.tanh(x @ p["W"] + h @ p["U"] + p["b"]),) * 2,
        dict(W=draw.weight(n, m), U=draw.weight(m, m), b=draw.normal(m)),
        jnp.zeros(m),
        draw.normal(steps, n),
        by_hand=by_hand,
    )


@family("network/tanh, product written as a sum")
def rnn_of_sums(draw: Sizes) -> Case:
    steps, _, m = _sizes(draw)

    def by_hand(w, h, xs):  # type: ignore[no-untyped-def]
        return lax.scan(lambda h, x: (jnp.tanh(w @ h + x),) * 2, h, xs)[1]

    return Case(
        lambda w, h, x: (jnp.tanh((w * h[None]).sum(1) + x),) * 2,
        draw.weight(m, m),
        jnp.zeros(m),
        draw.normal(steps, m),
        by_hand=by_hand,
    )


@family("network/GRU, a weight a gate")
def gru(draw: Sizes) -> Case:
    steps, n, m = _sizes(draw)
    p = {k: draw.weight(n, m) for k in ("Wr", "Wz", "Wn")}
    p |= {k: draw.weight(m, m) for k in ("Ur", "Uz", "Un")}

    def cell(p, h, r, z, n):  # type: ignore[no-untyped-def]
        r = jax.nn.sigmoid(r + h @ p["Ur"])
        z = jax.nn.sigmoid(z + h @ p["Uz"])
        return (z * h + (1 - z) * jnp.tanh(n + r * (h @ p["Un"])),) * 2

    def by_hand(p, h, xs):  # type: ignore[no-untyped-def]
        rows = xs @ p["Wr"], xs @ p["Wz"], xs @ p["Wn"]
        return lax.scan(lambda h, row: cell(p, h, *row), h, rows)[1]

    return Case(
        lambda p, h, x: cell(p, h, x @ p["Wr"], x @ p["Wz"], x @ p["Wn"]),
        p,
        jnp.zeros(m),
        draw.normal(steps, n),
        by_hand=by_hand,
    )


@family("network/LSTM, gates in one")
def lstm(draw: Sizes) -> Case:
    steps, n, m = _sizes(draw)

    def cell(p, state, row):  # type: ignore[no-untyped-def]
        h, c = state
        i, f, g, o = jnp.split(row + h @ p["U"], 4)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), h

    def by_hand(p, state, xs):  # type: ignore[no-untyped-def]
        return lax.scan(lambda s, row: cell(p, s, row), state, xs @ p["W"])[1]

    return Case(
        lambda p, state, x: cell(p, state, x @ p["W"]),
        dict(W=draw.weight(n, 4 * m), U=draw.weight(m, 4 * m)),
        (jnp.zeros(m), jnp.zeros(m)),
        draw.normal(steps, n),
        by_hand=by_hand,
    )


@family("network/embedded tokens")
def embedded(draw: Sizes) -> Case:
    steps, n, m = _sizes(draw)
    words = draw.between(20, 2000)

    def by_hand(p, h, tokens):  # type: ignore[no-untyped-def]
        rows = p["E"][tokens] @ p["W"]
        return lax.scan(lambda h, r: (jnp.tanh(r + h @ p["U"]),) * 2, h, rows)[1]

    return Case(
        lambda p, h, i: (jnp.tanh(p["E"][i] @ p["W"] + h @ p["U"]),) * 2,
        dict(E=draw.normal(words, n), W=draw.weight(n, m), U=draw.weight(m, m)),
        jnp.zeros(m),
        draw.below(words, steps),
        by_hand=by_hand,
    )


@family("network/loss in the loop")
def loss_inside(draw: Sizes) -> Case:
    steps, _, m = _sizes(draw)
    words = draw.between(5, 100)

    def step(p, state, row):  # type: ignore[no-untyped-def]
        h, total = state
        h = jnp.tanh(row[0] + h @ p["U"])
        scores = jax.nn.log_softmax(h @ p["V"])
        return (h, total - scores[row[1]]), None

    def by_hand(p, state, rows):  # type: ignore[no-untyped-def]
        hs = lax.scan(lambda h, r: (jnp.tanh(r + h @ p["U"]),) * 2, state[0], rows[0])
        scores = jax.nn.log_softmax(hs[1] @ p["V"])
        return -jnp.take_along_axis(scores, rows[1][:, None], 1).sum()

    return Case(
        step,
        dict(U=draw.weight(m, m), V=draw.weight(m, words)),
        (jnp.zeros(m), jnp.float32(0)),
        (draw.normal(steps, m), draw.below(words, steps)),
        lambda state, _: state[1],
        by_hand,
    )


@family("decoder/attention by products")
def attention(draw: Sizes) -> Case:
    keys, m = draw.between(4, 40), draw.between(8, 100)

    def by_hand(p, s, _):  # type: ignore[no-untyped-def]
        left, right = p["K"] @ p["W"].T, p["K"] @ p["V"]
        step = lambda s, _: (jax.nn.softmax(left @ s) @ right,) * 2
        return lax.scan(step, s, None, length=steps)[1]

    steps = draw.steps(64, 600)
    return Case(
        lambda p, s, _: (jax.nn.softmax(p["K"] @ (s @ p["W"])) @ p["K"] @ p["V"],) * 2,
        dict(K=draw.normal(keys, m), W=draw.weight(m, m), V=draw.weight(m, m)),
        draw.normal(m),
        None,
        by_hand=by_hand,
        length=steps,
    )


@family("decoder/additive attention")
def additive(draw: Sizes) -> Case:
    keys, m = draw.between(4, 40), draw.between(8, 100)

    def context(p, s, known):  # type: ignore[no-untyped-def]
        weights = jax.nn.softmax(jnp.tanh(known + (s @ p["W"])[None]) @ p["v"])
        return jnp.tanh(weights @ p["K"] + s)

    def by_hand(p, s, _):  # type: ignore[no-untyped-def]
        known = p["K"] @ p["U"]
        step = lambda s, _: (context(p, s, known),) * 2
        return lax.scan(step, s, None, length=steps)[1]

    steps = draw.steps(64, 600)
    weights = dict(W=draw.weight(m, m), U=draw.weight(m, m), v=draw.normal(m))
    return Case(
        lambda p, s, _: (context(p, s, p["K"] @ p["U"]),) * 2,
        dict(weights, K=draw.normal(keys, m)),
        draw.normal(m),
        None,
        by_hand=by_hand,
        length=steps,
    )


@family("layer/selective state space")
def selective(draw: Sizes) -> Case:
    n, k, steps = draw.between(4, 64), draw.between(2, 16), draw.steps(64, 800)

    def rows_of(p, x):  # type: ignore[no-untyped-def]
        delta = jax.nn.softplus(x @ p["D"])
        decay = jnp.exp(-delta[..., None] * jnp.exp(p["A"]))
        return decay, (delta * x)[..., None] * (x @ p["B"])[..., None, :], x @ p["C"]

    def step(p, h, x):  # type: ignore[no-untyped-def]
        decay, new, out = rows_of(p, x)
        h = decay * h + new
        return h, h @ out

    def by_hand(p, h, xs):  # type: ignore[no-untyped-def]
        decay, new, out = rows_of(p, xs)
        hs = lax.scan(lambda h, r: (r[0] * h + r[1],) * 2, h, (decay, new))[1]
        return jnp.einsum("tnk,tk->tn", hs, out)

    p = dict(D=draw.weight(n, n), A=draw.normal(n, k, scale=0.3))
    p |= dict(B=draw.weight(n, k), C=draw.weight(n, k))
    return Case(step, p, jnp.zeros((n, k)), draw.normal(steps, n), by_hand=by_hand)


@family("layer/linear attention")
def linear_attention(draw: Sizes) -> Case:
    n, k, steps = draw.between(4, 64), draw.between(4, 32), draw.steps(64, 800)

    def inner(total, row):  # type: ignore[no-untyped-def]
        query, key, value = row
        total = total + jnp.outer(key, value)
        return total, query @ total

    def by_hand(p, total, xs):  # type: ignore[no-untyped-def]
        return lax.scan(inner, total, tuple(xs @ p[i] for i in "QKV"))[1]

    return Case(
        lambda p, total, x: inner(total, tuple(x @ p[i] for i in "QKV")),
        {i: draw.weight(n, k) for i in "QKV"},
        jnp.zeros((k, k)),
        draw.normal(steps, n),
        by_hand=by_hand,
    )


@family("layer/bank of averages")
def averages(draw: Sizes) -> Case:
    n, steps = draw.between(2, 200), draw.steps()

    def step(p, h, x):  # type: ignore[no-untyped-def]
        h = p["decay"] * h + p["gain"] * x
        return h, (p["out"] * h).sum()

    def by_hand(p, h, xs):  # type: ignore[no-untyped-def]
        step = lambda h, x: (p["decay"] * h + p["gain"] * x,) * 2
        return lax.scan(step, h, xs)[1] @ p["out"]

    decay = jax.nn.sigmoid(2 + draw.normal(n))
    parameters = dict(decay=decay, gain=draw.normal(n), out=draw.normal(n))
    return Case(step, parameters, jnp.zeros(n), draw.normal(steps), by_hand=by_hand)


@family("network/layer norm in the cell")
def normed(draw: Sizes) -> Case:
    steps, n, m = _sizes(draw)

    def cell(p, h, row):  # type: ignore[no-untyped-def]
        a = row + h @ p["U"]
        return (jnp.tanh(p["g"] * (a - a.mean()) * lax.rsqrt(a.var() + 1e-5)),) * 2

    def by_hand(p, h, xs):  # type: ignore[no-untyped-def]
        return lax.scan(lambda h, r: cell(p, h, r), h, xs @ p["W"])[1]

    return Case(
        lambda p, h, x: cell(p, h, x @ p["W"]),
        dict(W=draw.weight(n, m), U=draw.weight(m, m), g=1 + draw.normal(m, scale=0.1)),
        jnp.zeros(m),
        draw.normal(steps, n),
        by_hand=by_hand,
    )
