"""Loops with keys, gathers, counters, inner loops and written-to states."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from ._registry import Problem, integers, matrix, normal, workload


@workload("control/table lookup in an rnn", 512)
def lookup(length: int) -> Problem:
    def function(parameters, tokens):
        table, recur = parameters

        def step(h, token):
            h = jnp.tanh(table[token] + h @ recur)
            return h, h

        return lax.scan(step, jnp.zeros(64), tokens)[1]

    parameters = (normal(2000, 64, scale=0.1), matrix(64, 64))
    return Problem(function, parameters, integers(2000, length), length)


@workload("control/x[i] of a counted loop", 2_000)
def counted(length: int) -> Problem:
    def function(parameters, _):
        scale, xs = parameters

        def step(h, i):
            h = jnp.tanh(scale * h + xs[i])
            return h, h

        return lax.scan(step, jnp.zeros(32), jnp.arange(length))[1]

    return Problem(function, (normal(32), normal(length, 32)), None, length)


@workload("control/fori_loop that adds tanh(x[i] @ W)", 2_000)
def fori(length: int) -> Problem:
    def function(weight, xs):
        def body(i, total):
            return total + jnp.tanh(xs[i] @ weight)

        return lax.fori_loop(0, length, body, jnp.zeros(64))

    return Problem(function, matrix(64, 64), normal(length, 64), length)


@workload("control/while_loop to a tolerance", 200, gradient=None)
def until_small(length: int) -> Problem:
    def function(scale, start):
        def unfinished(carry):
            i, x = carry
            return (i < length) & (jnp.abs(x).max() > 1e-30)

        def body(carry):
            i, x = carry
            return i + 1, scale * jnp.sin(x)

        return lax.while_loop(unfinished, body, (0, start))

    return Problem(function, jnp.float32(0.99), normal(256), length)


@workload("control/dropout, key folded with the step", 256)
def dropout(length: int) -> Problem:
    def function(parameters, data):
        read, recur = parameters
        xs, key = data

        def step(h, inputs):
            i, x = inputs
            kept = jax.random.bernoulli(jax.random.fold_in(key, i), 0.9, h.shape)
            h = jnp.tanh(x @ read + jnp.where(kept, h, 0) @ recur)
            return h, h

        return lax.scan(step, jnp.zeros((8, 64)), (jnp.arange(length), xs))[1]

    data = (normal(length, 8, 64), jax.random.key(1))
    return Problem(function, (matrix(64, 64), matrix(64, 64, 1)), data, length)


@workload("control/noise, key split in the carry", 1_000)
def carried_key(length: int) -> Problem:
    def function(scale, key):
        def step(carry, _):
            key, x = carry
            key, now = jax.random.split(key)
            x = scale * x + jax.random.normal(now, (64,))
            return (key, x), x

        return lax.scan(step, (key, jnp.zeros(64)), None, length=length)[1]

    return Problem(function, jnp.full(64, 0.9), jax.random.key(2), length)


@workload("control/noise from one constant key", 500)
def constant_key(length: int) -> Problem:
    def function(scale, key):
        def step(x, _):
            x = jnp.tanh(scale * x + jax.random.normal(key, (64,)))
            return x, x

        return lax.scan(step, jnp.zeros(64), None, length=length)[1]

    return Problem(function, normal(64), jax.random.key(3), length)


@workload("control/loop in a loop", 64)
def nested(length: int) -> Problem:
    def function(parameters, xs):
        read, recur = parameters

        def inner(h, x):
            h = jnp.tanh(x @ read + h @ recur)
            return h, None

        def outer(total, rows):
            total = total + lax.scan(inner, jnp.zeros(32), rows)[0]
            return total, total

        return lax.scan(outer, jnp.zeros(32), xs)[1]

    parameters = (matrix(32, 32), matrix(32, 32, 1))
    return Problem(function, parameters, normal(length, 16, 32), 16 * length)


@workload("control/scan inside fori_loop", 16)
def scan_in_fori(length: int) -> Problem:
    def function(scale, xs):
        def step(state, x):
            state = jnp.tanh(scale * state + x)
            return state, None

        def sweep(_, state):
            return lax.scan(step, state, xs)[0]

        return lax.fori_loop(0, length, sweep, jnp.zeros(64))

    return Problem(function, normal(64), normal(100, 64), 100 * length)


@workload("control/cond in the body", 2_000)
def branches(length: int) -> Problem:
    def function(scale, xs):
        def step(state, x):
            state = lax.cond(
                x[0] > 0, lambda s: jnp.tanh(scale * s + x), lambda s: 0.5 * s, state
            )
            return state, state

        return lax.scan(step, jnp.zeros(64), xs)[1]

    return Problem(function, normal(64), normal(length, 64), length)


@workload("control/state written by at[i].set, read at i-1", 1_000)
def written_state(length: int) -> Problem:
    """The quadratic gradient of JAX issue 10197."""

    def function(scale, xs):
        def body(i, rows):
            return rows.at[i].set(jnp.tanh(scale * rows[i - 1] + xs[i]))

        return lax.fori_loop(1, length, body, jnp.zeros((length, 4)))

    return Problem(function, normal(4), normal(length, 4), length)


@workload("control/histogram by at[i].add", 10_000, gradient=None)
def histogram(length: int) -> Problem:
    def function(weight, bins):
        def step(counts, bin_):
            return counts.at[bin_].add(weight), None

        return lax.scan(step, jnp.zeros(128), bins)[0]

    return Problem(function, jnp.float32(0.5), integers(128, length), length)


@workload("control/gradient descent in the loop", 300)
def descent(length: int) -> Problem:
    def function(rate, data):
        inputs, targets = data

        def cost(weight):
            return jnp.mean((jnp.tanh(inputs @ weight) - targets) ** 2)

        def step(weight, _):
            value, slope = jax.value_and_grad(cost)(weight)
            return weight - rate * slope, value

        return lax.scan(step, jnp.zeros(16), None, length=length)[1]

    data = (normal(128, 16), normal(128))
    return Problem(function, jnp.float32(0.1), data, length)


@workload("control/sort in the body", 500)
def sorting(length: int) -> Problem:
    def function(scale, xs):
        def step(state, x):
            state = jnp.sort(0.5 * state + scale * x)
            return state, state[:4]

        return lax.scan(step, jnp.zeros(64), xs)[1]

    return Problem(function, normal(64), normal(length, 64), length)


@workload("control/integers, xorshift", 20_000, gradient=None)
def xorshift(length: int) -> Problem:
    def function(scale, seed):
        def step(state, _):
            state = state ^ (state << 13)
            state = state ^ (state >> 17)
            state = state ^ (state << 5)
            return state, scale * (state >> 8).astype(jnp.float32)

        return lax.scan(step, seed, None, length=length)[1]

    return Problem(function, jnp.float32(2.0**-24), jnp.uint32(2463534242), length)


@workload("control/rematerialised rnn", 256)
def rematerialised(length: int) -> Problem:
    def function(parameters, xs):
        read, recur = parameters

        @jax.checkpoint
        def step(h, x):
            h = jnp.tanh(x @ read + h @ recur)
            return h, h

        return lax.scan(step, jnp.zeros((8, 64)), xs)[1]

    parameters = (matrix(64, 64), matrix(64, 64, 1))
    return Problem(function, parameters, normal(length, 8, 64), length)
