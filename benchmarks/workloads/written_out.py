"""Products written with * and sum, and maps of functions that take long."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from ._registry import Problem, matrix, normal, workload


@workload("written out/sum of outer products 154 x 36", 151)
def outer_products(length: int) -> Problem:
    def function(scale, rows):
        step = lambda total, row: (total + jnp.outer(scale * row[0], row[1]), None)
        return lax.scan(step, jnp.zeros((154, 36)), rows)[0]

    rows = normal(length, 154), normal(length, 36)
    return Problem(function, normal(154), rows, length)


@workload("written out/tanh of (W * h).sum(1), 64 x 64", 1_000)
def network_of_sums(length: int) -> Problem:
    def function(weight, xs):
        def step(state, x):
            state = jnp.tanh((weight * state).sum(1) + x)
            return state, state

        return lax.scan(step, jnp.zeros(64), xs)[1]

    return Problem(function, matrix(64, 64), normal(length, 64), length)


@workload("written out/map of sines, 256 wide", 500)
def sines(length: int) -> Problem:
    def function(scale, xs):
        return lax.scan(lambda _, x: (None, jnp.sin(scale * x) + x.sum()), None, xs)[1]

    return Problem(function, normal(256), normal(length, 256), length)


@workload("written out/sum of 131 normals a step", 146, gradient=None)
def draws(length: int) -> Problem:
    def function(scale, key):
        def step(total, i):
            drawn = jax.random.normal(jax.random.fold_in(key, i), (131,))
            return total + scale * drawn, None

        return lax.scan(step, jnp.zeros(131), jnp.arange(length))[0]

    return Problem(function, jnp.float32(0.5), jax.random.key(0), length)
