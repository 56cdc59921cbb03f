"""Loops of which only some of the rows are read."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from ._registry import Problem, matrix, normal, workload


def _iterate(length: int, width: int, read: Callable[..., object]) -> Problem:
    def function(parameters, start):
        scale, shift = parameters

        def step(state, _):
            state = jnp.sin(scale * state + shift)
            return state, state

        return read(lax.scan(step, start, None, length=length)[1])

    parameters = (normal(width, scale=0.5), normal(width, seed=1))
    return Problem(function, parameters, normal(width, seed=2), length)


def _cumulate(length: int, width: int, read: Callable[..., object]) -> Problem:
    def function(parameters, start):
        def step(state, _):
            state = state * parameters + 1
            return state, state

        return read(lax.scan(step, start, None, length=length)[1])

    # Close to one, so that neither the states nor the cotangents die out: arithmetic
    # on zeros and denormal numbers has a speed of its own.
    decay = 1 - 1e-3 * jnp.abs(normal(width))
    return Problem(function, decay, normal(width), length)


@workload("rows/last of 5000 x 1000", 5_000, forward=1.8)
def last(length: int) -> Problem:
    return _cumulate(length, 1000, lambda rows: rows[-1])


@workload("rows/every 50th of 5000 x 1000", 5_000, quick_length=100, forward=1.8)
def every(length: int) -> Problem:
    return _cumulate(length, 1000, lambda rows: rows[::50])


@workload("rows/last ten of 5000 x 1000", 5_000)
def last_ten(length: int) -> Problem:
    return _cumulate(length, 1000, lambda rows: rows[-10:])


@workload("rows/first ten of 5000 x 1000", 5_000)
def first_ten(length: int) -> Problem:
    return _cumulate(length, 1000, lambda rows: rows[:10])


@workload("rows/mean of 2000 x 256", 2_000)
def mean(length: int) -> Problem:
    return _iterate(length, 256, lambda rows: rows.mean(axis=0))


@workload("rows/sum of 2000 x 256", 2_000)
def total(length: int) -> Problem:
    return _cumulate(length, 256, lambda rows: rows.sum(axis=0))


@workload("rows/maximum of 2000 x 256", 2_000)
def maximum(length: int) -> Problem:
    return _cumulate(length, 256, lambda rows: rows.max(axis=0))


@workload("rows/logsumexp of 2000 x 64", 2_000)
def logsumexp(length: int) -> Problem:
    return _iterate(length, 64, lambda rows: jax.nn.logsumexp(rows, axis=0))


@workload("rows/all of 2000 x 256", 2_000)
def everything(length: int) -> Problem:
    return _iterate(length, 256, lambda rows: rows)


@workload("rows/last of an rnn, 8 rows, 128 wide", 256)
def last_of_rnn(length: int) -> Problem:
    def function(parameters, xs):
        read, recur = parameters

        def step(h, x):
            h = jnp.tanh(x @ read + h @ recur)
            return h, h

        return lax.scan(step, jnp.zeros((8, 128)), xs)[1][-1]

    parameters = (matrix(128, 128), matrix(128, 128, 1))
    return Problem(function, parameters, normal(length, 8, 128), length)


@workload("rows/last of a reversed loop", 2_000)
def last_reversed(length: int) -> Problem:
    def function(scale, xs):
        def step(state, x):
            state = jnp.tanh(scale * state + x)
            return state, state

        return lax.scan(step, jnp.zeros(256), xs, reverse=True)[1][0]

    return Problem(function, normal(256), normal(length, 256), length)
