"""Recurrent networks: the four families of the grid, and their relatives."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from ._registry import Problem, integers, matrix, normal, workload


def rnn(length: int, batch: int, hidden: int) -> Problem:
    """A tanh network, inputs as wide as the state."""

    def function(parameters, xs):
        read, recur, bias = parameters

        def step(h, x):
            h = jnp.tanh(x @ read + h @ recur + bias)
            return h, h

        return lax.scan(step, jnp.zeros((batch, hidden)), xs)[1]

    return Problem(function, _gate(hidden, 0), normal(length, batch, hidden), length)


def gru(length: int, batch: int, hidden: int) -> Problem:
    """Reset, update and candidate gate, each with its own matrices."""

    def function(parameters, xs):
        (wr, ur, br), (wz, uz, bz), (wn, un, bn) = parameters

        def step(h, x):
            reset = jax.nn.sigmoid(x @ wr + h @ ur + br)
            update = jax.nn.sigmoid(x @ wz + h @ uz + bz)
            candidate = jnp.tanh(x @ wn + reset * (h @ un + bn))
            h = (1 - update) * candidate + update * h
            return h, h

        return lax.scan(step, jnp.zeros((batch, hidden)), xs)[1]

    gates = tuple(_gate(hidden, seed) for seed in range(3))
    return Problem(function, gates, normal(length, batch, hidden), length)


def lstm(length: int, batch: int, hidden: int) -> Problem:
    """Four gates with their own matrices, as in Theano's tutorial."""

    def function(parameters, xs):
        (wi, ui, bi), (wf, uf, bf), (wg, ug, bg), (wo, uo, bo) = parameters

        def step(carry, x):
            h, c = carry
            take = jax.nn.sigmoid(x @ wi + h @ ui + bi)
            keep = jax.nn.sigmoid(x @ wf + h @ uf + bf)
            fresh = jnp.tanh(x @ wg + h @ ug + bg)
            show = jax.nn.sigmoid(x @ wo + h @ uo + bo)
            c = keep * c + take * fresh
            h = show * jnp.tanh(c)
            return (h, c), h

        zeros = jnp.zeros((batch, hidden))
        return lax.scan(step, (zeros, zeros), xs)[1]

    gates = tuple(_gate(hidden, seed) for seed in range(4))
    return Problem(function, gates, normal(length, batch, hidden), length)


def _run_cell(
    gates: Callable[[jax.Array, jax.Array], jax.Array], rows: jax.Array, hidden: int
) -> jax.Array:
    """An LSTM over rows `[T, batch, ...]`, whose joined gates are of a row and `h`."""

    def step(carry, row):
        h, c = carry
        take, keep, fresh, show = jnp.split(gates(row, h), 4, -1)
        c = jax.nn.sigmoid(keep) * c + jax.nn.sigmoid(take) * jnp.tanh(fresh)
        h = jax.nn.sigmoid(show) * jnp.tanh(c)
        return (h, c), h

    zeros = jnp.zeros((rows.shape[1], hidden))
    return lax.scan(step, (zeros, zeros), rows)[1]


def fused_lstm(length: int, batch: int, hidden: int) -> Problem:
    """The four gates side by side in one matrix, as libraries write it."""

    def function(parameters, xs):
        read, recur, bias = parameters
        return _run_cell(lambda x, h: x @ read + h @ recur + bias, xs, hidden)

    parameters = (
        matrix(hidden, 4 * hidden),
        matrix(hidden, 4 * hidden, 1),
        normal(4 * hidden),
    )
    return Problem(function, parameters, normal(length, batch, hidden), length)


def joined_lstm(length: int, batch: int, hidden: int) -> Problem:
    """Input and state joined before one product, as flax's optimized cell does."""

    def function(parameters, xs):
        weight, bias = parameters
        gates = lambda x, h: jnp.concatenate([x, h], axis=-1) @ weight + bias
        return _run_cell(gates, xs, hidden)

    parameters = (matrix(2 * hidden, 4 * hidden), normal(4 * hidden))
    return Problem(function, parameters, normal(length, batch, hidden), length)


def _gate(hidden: int, seed: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    read = matrix(hidden, hidden, 2 * seed)
    recur = matrix(hidden, hidden, 2 * seed + 1)
    return read, recur, normal(hidden, scale=0.1, seed=seed)


@workload("network/rnn, 8 rows, 64 wide", 256)
def _rnn(length: int) -> Problem:
    return rnn(length, 8, 64)


@workload("network/joined LSTM, 8 rows, 128 wide", 128)
def _joined(length: int) -> Problem:
    return joined_lstm(length, 8, 128)


def _beforehand(length: int, batch: int, hidden: int) -> Problem:
    """A fused LSTM whose author computes `x @ read` for all steps before the loop."""

    def function(parameters, xs):
        read, recur, bias = parameters
        return _run_cell(lambda row, h: row + h @ recur, xs @ read + bias, hidden)

    return dataclasses.replace(fused_lstm(length, batch, hidden), function=function)


@workload("network/LSTM, inputs beforehand, 8 rows, 128 wide", 128)
def _beforehand_rows(length: int) -> Problem:
    return _beforehand(length, 8, 128)


@workload("network/LSTM, inputs beforehand, 1 row, 64 wide", 512)
def _beforehand_row(length: int) -> Problem:
    return _beforehand(length, 1, 64)


@workload("network/gates of a row, 8 rows, 64 wide", 512)
def _gated(length: int) -> Problem:
    """A simple recurrent unit: both gates are parts of a row."""

    def function(parameters, xs):
        read, bias = parameters
        rows = xs @ read + bias

        def step(h, row):
            keep, fresh = jnp.split(row, 2, -1)
            h = jnp.tanh(h * jax.nn.sigmoid(keep + h) + fresh)
            return h, h

        return lax.scan(step, jnp.zeros((8, 64)), rows)[1]

    parameters = matrix(64, 128), normal(128)
    return Problem(function, parameters, normal(length, 8, 64), length)


@workload("network/decay and input of a row, 8 rows, 64 wide", 512)
def _decay(length: int) -> Problem:
    """Both parts of a row in cheap arithmetic: nothing is gained by copying them."""

    def function(parameters, xs):
        def step(h, row):
            decay, fresh = jnp.split(row * parameters, 2, -1)
            h = decay * h + fresh
            return h, h

        return lax.scan(step, jnp.zeros((8, 64)), xs)[1]

    rows = normal(length, 8, 128, scale=0.5)
    return Problem(function, normal(128), rows, length)


@workload("network/tiny rnn, 8 rows, 8 wide", 2_000, forward=2.0, gradient=3.0)
def _tiny(length: int) -> Problem:
    return rnn(length, 8, 8)


@workload("network/tiny rnn, 2 rows, 16 wide", 2_000)
def _tiny_pair(length: int) -> Problem:
    return rnn(length, 2, 16)


@workload("network/rnn without rows, 64 wide", 2_000)
def _single(length: int) -> Problem:
    def function(parameters, xs):
        read, recur, bias = parameters

        def step(h, x):
            h = jnp.tanh(x @ read + h @ recur + bias)
            return h, h

        return lax.scan(step, jnp.zeros(64), xs)[1]

    return Problem(function, _gate(64, 0), normal(length, 64), length)


@workload("network/rnn with a 1000-wide readout", 128)
def readout(length: int) -> Problem:
    def function(parameters, xs):
        (read, recur, bias), (out, out_bias) = parameters

        def step(h, x):
            h = jnp.tanh(x @ read + h @ recur + bias)
            return h, h @ out + out_bias

        return lax.scan(step, jnp.zeros((8, 128)), xs)[1]

    parameters = (_gate(128, 0), (matrix(128, 1000), normal(1000)))
    return Problem(function, parameters, normal(length, 8, 128), length)


@workload("network/language model, loss in the loop", 128)
def language_model(length: int) -> Problem:
    def function(parameters, tokens):
        table, (read, recur, bias), out = parameters

        def step(h, pair):
            token, target = pair
            h = jnp.tanh(table[token] @ read + h @ recur + bias)
            scores = jax.nn.log_softmax(h @ out)
            return h, -jnp.take_along_axis(scores, target[:, None], 1).mean()

        pairs = (tokens[:-1], tokens[1:])
        return lax.scan(step, jnp.zeros((8, 64)), pairs)[1].mean()

    parameters = (normal(500, 64), _gate(64, 0), matrix(64, 500))
    return Problem(function, parameters, integers(500, length + 1, 8), length)


@workload("network/two layers, one loop after the other", 128)
def stacked(length: int) -> Problem:
    def layer(gate, xs):
        read, recur, bias = gate

        def step(h, x):
            h = jnp.tanh(x @ read + h @ recur + bias)
            return h, h

        return lax.scan(step, jnp.zeros((8, 64)), xs)[1]

    def function(parameters, xs):
        return layer(parameters[1], layer(parameters[0], xs))

    parameters = (_gate(64, 0), _gate(64, 1))
    return Problem(function, parameters, normal(length, 8, 64), length)


@workload("network/both directions", 128)
def bidirectional(length: int) -> Problem:
    def layer(gate, xs, reverse):
        read, recur, bias = gate

        def step(h, x):
            h = jnp.tanh(x @ read + h @ recur + bias)
            return h, h

        return lax.scan(step, jnp.zeros((8, 64)), xs, reverse=reverse)[1]

    def function(parameters, xs):
        forth = layer(parameters[0], xs, False)
        back = layer(parameters[1], xs, True)
        return jnp.concatenate([forth, back], axis=-1)

    parameters = (_gate(64, 0), _gate(64, 1))
    return Problem(function, parameters, normal(length, 8, 64), length)


@workload("network/rnn with padded rows", 256)
def masked(length: int) -> Problem:
    def function(parameters, data):
        read, recur, bias = parameters
        xs, lengths = data

        def step(h, inputs):
            t, x = inputs
            fresh = jnp.tanh(x @ read + h @ recur + bias)
            h = jnp.where((t < lengths)[:, None], fresh, h)
            return h, h

        steps = (jnp.arange(length), xs)
        return lax.scan(step, jnp.zeros((8, 64)), steps)[1]

    data = (normal(length, 8, 64), integers(length, 8))
    return Problem(function, _gate(64, 0), data, length)


@workload("network/decoder with attention", 64)
def attention(length: int) -> Problem:
    def function(parameters, data):
        (read, recur, bias), query = parameters
        memory, xs = data

        def step(h, x):
            weights = jax.nn.softmax(memory @ (h @ query))
            context = weights @ memory
            h = jnp.tanh((x + context) @ read + h @ recur + bias)
            return h, h

        return lax.scan(step, jnp.zeros(64), xs)[1]

    parameters = (_gate(64, 0), matrix(64, 64, 9))
    data = (normal(50, 64), normal(length, 64))
    return Problem(function, parameters, data, length)


@workload("network/deep residual blocks, weights scanned", 24)
def scanned_layers(length: int) -> Problem:
    def function(weights, x):
        def step(h, weight):
            return h + jnp.tanh(h @ weight), None

        return lax.scan(step, x, weights)[0]

    return Problem(
        function, normal(length, 128, 128, scale=0.05), normal(32, 128), length
    )
