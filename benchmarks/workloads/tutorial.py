"""The examples of Theano's scan tutorial, as lax.scan."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from ._registry import Problem, matrix, normal, workload


@workload("tutorial/map tanh(x @ W + b)", 20_000, forward=2.0, gradient=1.7)
def affine_map(length: int) -> Problem:
    def function(parameters, xs):
        weight, bias = parameters
        return lax.scan(lambda _, x: (None, jnp.tanh(x @ weight + bias)), None, xs)[1]

    return Problem(function, (matrix(64, 64), normal(64)), normal(length, 64), length)


@workload("tutorial/map 8 rows tanh(x @ W + b)", 2_000, forward=1.0, gradient=1.0)
def affine_map_of_rows(length: int) -> Problem:
    problem = affine_map(length)
    return Problem(problem.function, problem.parameters, normal(length, 8, 64), length)


@workload("tutorial/map square, scalar", 50_000)
def square_map(length: int) -> Problem:
    def function(scale, xs):
        return lax.scan(lambda _, x: (None, (scale * x) ** 2), None, xs)[1]

    return Problem(function, jnp.float32(0.5), normal(length), length)


@workload("tutorial/norms of the rows", 10_000)
def row_norms(length: int) -> Problem:
    def function(scale, xs):
        return lax.scan(
            lambda _, x: (None, jnp.sqrt(jnp.sum((scale * x) ** 2))), None, xs
        )[1]

    return Problem(function, normal(64), normal(length, 64), length)


@workload("tutorial/trace of a matrix", 512)
def trace(length: int) -> Problem:
    def function(scale, matrix_):
        def step(total, i):
            total = total + scale * matrix_[i, i]
            return total, total

        return lax.scan(step, jnp.float32(0), jnp.arange(length))[1][-1]

    return Problem(function, jnp.float32(2.0), normal(length, length), length)


def _power(length: int, size: int) -> Problem:
    def function(base, _):
        def step(result, _):
            result = result * base
            return result, result

        return lax.scan(step, jnp.ones_like(base), None, length=length)[1][-1]

    return Problem(function, jnp.full(size, 0.9999, jnp.float32), None, length)


@workload("tutorial/power, last of n=100", 10_000, forward=6.0)
def power(length: int) -> Problem:
    return _power(length, 100)


@workload("tutorial/power, last of n=1000", 5_000, forward=6.0)
def power_of_many(length: int) -> Problem:
    return _power(length, 1000)


@workload("tutorial/polynomial", 10_000)
def polynomial(length: int) -> Problem:
    def function(x, coefficients):
        def step(_, term):
            coefficient, exponent = term
            return None, coefficient * x**exponent

        exponents = jnp.arange(length, dtype=jnp.float32)
        return lax.scan(step, None, (coefficients, exponents))[1].sum()

    return Problem(function, jnp.float32(0.99), normal(length), length)


@workload("tutorial/polynomial, running total", 10_000)
def polynomial_in_carry(length: int) -> Problem:
    def function(x, coefficients):
        def step(carry, coefficient):
            total, power_ = carry
            return (total + coefficient * power_, power_ * x), None

        start = (jnp.float32(0), jnp.float32(1))
        return lax.scan(step, start, coefficients)[0][0]

    return Problem(function, jnp.float32(0.99), normal(length), length)


@workload("tutorial/two lags and an input", 2_000)
def two_lags(length: int) -> Problem:
    def function(parameters, inputs):
        now, before, read, write = parameters

        def step(carry, u):
            state, previous = carry
            fresh = jnp.tanh(state @ now + previous @ before + u @ read)
            return (fresh, state), fresh @ write

        zeros = jnp.zeros(32)
        return lax.scan(step, (zeros, zeros), inputs)[1]

    weights = (matrix(32, 32), matrix(32, 32, 1), matrix(16, 32), matrix(32, 16))
    return Problem(function, weights, normal(length, 16), length)


@workload("tutorial/Jacobian, row by row", 256)
def jacobian_rows(length: int) -> Problem:
    def function(weight, x):
        def row(i):
            return jax.grad(lambda v: jnp.tanh(v @ weight)[i])(x)

        return lax.scan(lambda _, i: (None, row(i)), None, jnp.arange(length))[1]

    return Problem(function, matrix(64, length), normal(64), length)


@workload("tutorial/Gibbs sampling", 500, gradient=None)
def gibbs(length: int) -> Problem:
    def function(parameters, key):
        weight, hidden_bias, visible_bias = parameters

        def step(visible, i):
            first, second = jax.random.split(jax.random.fold_in(key, i))
            hidden = jax.nn.sigmoid(visible @ weight + hidden_bias)
            hidden = jax.random.bernoulli(first, hidden).astype(jnp.float32)
            visible = jax.nn.sigmoid(hidden @ weight.T + visible_bias)
            visible = jax.random.bernoulli(second, visible).astype(jnp.float32)
            return visible, visible

        return lax.scan(step, jnp.ones((4, 64)), jnp.arange(length))[1][-1]

    parameters = (matrix(64, 64), normal(64), normal(64, seed=1))
    return Problem(function, parameters, jax.random.key(0), length)
