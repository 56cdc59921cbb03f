"""Small states: time series, filters, differential equations."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from ._registry import OLD_JAX, Function, Problem, integers, normal, workload


def _autoregression(length: int, coefficients: list[float]) -> Problem:
    lags = len(coefficients)

    def function(weights, noise):
        def step(carry, e):
            y = sum(weights[k] * carry[k] for k in range(lags)) + e
            return (y, *carry[:-1]), y

        return lax.scan(step, (jnp.float32(0),) * lags, noise)[1]

    return Problem(
        function, jnp.asarray(coefficients, jnp.float32), normal(length), length
    )


@workload("series/AR(2)", 100_000)
def ar2(length: int) -> Problem:
    return _autoregression(length, [0.5, 0.2])


@workload("series/AR(8)", 50_000)
def ar8(length: int) -> Problem:
    return _autoregression(length, [0.3, 0.2, 0.1, 0.05, 0.05, 0.02, 0.02, 0.01])


@workload("series/eight lags one by one, (64,)", 5_000)
def eight_lags(length: int) -> Problem:
    def function(weights, xs):
        def step(window, x):
            lags = sum(weights[k] * window[k] for k in range(8))
            y = jnp.tanh(lags + x)
            return jnp.concatenate([window[1:], y[None]]), y

        return lax.scan(step, jnp.zeros((8, 64)), xs)[1]

    return Problem(function, 0.1 * normal(8), normal(length, 64), length)


@workload("series/eight lags by a product, (64,)", 5_000)
def eight_lags_at_once(length: int) -> Problem:
    def function(weights, xs):
        def step(window, x):
            y = jnp.tanh(weights @ window + x)
            return jnp.concatenate([window[1:], y[None]]), y

        return lax.scan(step, jnp.zeros((8, 64)), xs)[1]

    return Problem(function, 0.1 * normal(8), normal(length, 64), length)


@workload("series/GARCH(1,1)", 100_000, forward=2.2, gradient=2.0)
def garch(length: int) -> Problem:
    def function(parameters, returns):
        omega, alpha, beta = parameters

        def step(variance, r):
            variance = omega + alpha * r * r + beta * variance
            return variance, jnp.log(variance) + r * r / variance

        return lax.scan(step, jnp.float32(1.0), returns)[1]

    start = (jnp.float32(0.1), jnp.float32(0.1), jnp.float32(0.8))
    return Problem(function, start, normal(length), length)


@workload("series/cumulative sum, scalar", 100_000)
def cumulative_scalar(length: int) -> Problem:
    def function(scale, xs):
        def step(total, x):
            total = total + scale * x
            return total, total

        return lax.scan(step, jnp.float32(0), xs)[1]

    return Problem(function, jnp.float32(0.5), normal(length), length)


@workload("series/cumulative sum, (64,)", 20_000)
def cumulative_vector(length: int) -> Problem:
    def function(scale, xs):
        def step(total, x):
            total = total + scale * x
            return total, total

        return lax.scan(step, jnp.zeros(64), xs)[1]

    return Problem(function, normal(64), normal(length, 64), length)


@workload("series/running maximum", 50_000)
def running_maximum(length: int) -> Problem:
    def function(scale, xs):
        def step(top, x):
            top = jnp.maximum(top, scale * x)
            return top, top

        return lax.scan(step, jnp.float32(-jnp.inf), xs)[1]

    return Problem(function, jnp.float32(0.5), normal(length), length)


@workload("series/exponential smoothing, (64,)", 10_000)
def smoothing(length: int) -> Problem:
    def function(logit, xs):
        decay = jax.nn.sigmoid(logit)

        def step(level, x):
            error = x - level
            return level + decay * error, error

        return lax.scan(step, jnp.zeros(64), xs)[1]

    return Problem(function, normal(64), normal(length, 64), length)


def _kalman(size: int) -> Function:
    def function(transition, observations):
        noise = 0.1 * jnp.eye(size)

        def step(carry, y):
            mean, covariance = carry
            covariance = transition @ covariance @ transition.T + noise
            spread = covariance[0, 0] + 1
            gain = covariance[:, 0] / spread
            mean = transition @ mean
            error = y - mean[0]
            mean = mean + gain * error
            covariance = covariance - gain[:, None] * covariance[0][None, :]
            return (mean, covariance), error * error / spread + jnp.log(spread)

        start = (jnp.zeros(size), jnp.eye(size))
        return lax.scan(step, start, observations)[1]

    return function


def _transition(size: int) -> jax.Array:
    return 0.9 * jnp.eye(size) + 0.1 * jnp.eye(size, k=1)


KALMAN = 2.5 if OLD_JAX else 20.0


@workload("filter/Kalman d=4", 10_000, forward=KALMAN, gradient=KALMAN)
def kalman(length: int) -> Problem:
    return Problem(_kalman(4), _transition(4), normal(length), length)


@workload("filter/Kalman d=8", 5_000)
def kalman_of_eight(length: int) -> Problem:
    return Problem(_kalman(8), _transition(8), normal(length), length)


@workload("filter/Kalman d=4, 16 series by vmap", 1_000)
def kalman_batch(length: int) -> Problem:
    function = jax.vmap(_kalman(4), (None, 0))
    return Problem(function, _transition(4), normal(16, length), length)


@workload("filter/hidden Markov, log space, 16 states", 2_000)
def hidden_markov(length: int) -> Problem:
    def function(parameters, symbols):
        transition = jax.nn.log_softmax(parameters[0], axis=1)
        emission = jax.nn.log_softmax(parameters[1], axis=1)

        def step(alpha, symbol):
            moved = jax.nn.logsumexp(alpha[:, None] + transition, axis=0)
            return moved + emission[:, symbol], None

        start = jnp.full(16, -jnp.log(16.0))
        return jax.nn.logsumexp(lax.scan(step, start, symbols)[0])

    parameters = (normal(16, 16), normal(16, 8))
    return Problem(function, parameters, integers(8, length), length)


@workload("filter/Viterbi, 16 states", 2_000, gradient=None)
def viterbi(length: int) -> Problem:
    def function(transition, scores):
        def step(best, score):
            paths = best[:, None] + transition
            return paths.max(axis=0) + score, paths.argmax(axis=0)

        return lax.scan(step, jnp.zeros(16), scores)

    return Problem(function, normal(16, 16), normal(length, 16), length)


@workload("equation/Lorenz by Runge-Kutta", 5_000)
def lorenz(length: int) -> Problem:
    def slope(state, parameters):
        x, y, z = state
        sigma, rho, beta = parameters
        return jnp.stack([sigma * (y - x), x * (rho - z) - y, x * y - beta * z])

    def function(parameters, start):
        h = 1e-3

        def step(state, _):
            k1 = slope(state, parameters)
            k2 = slope(state + h / 2 * k1, parameters)
            k3 = slope(state + h / 2 * k2, parameters)
            k4 = slope(state + h * k3, parameters)
            state = state + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
            return state, state

        return lax.scan(step, start, None, length=length)[1]

    parameters = (jnp.float32(10), jnp.float32(28), jnp.float32(8 / 3))
    return Problem(function, parameters, jnp.ones(3), length)


@workload("equation/logistic map", 50_000)
def logistic_map(length: int) -> Problem:
    def function(rate, start):
        def step(x, _):
            x = rate * x * (1 - x)
            return x, x

        return lax.scan(step, start, None, length=length)[1]

    return Problem(function, jnp.float32(2.9), jnp.float32(0.3), length)


@workload("equation/diagonal state space, (8, 64)", 2_000)
def state_space(length: int) -> Problem:
    def function(parameters, xs):
        decay, into, out = parameters

        def step(state, x):
            state = decay * state + into * x
            return state, (out * state).sum(axis=0)

        return lax.scan(step, jnp.zeros((8, 64)), xs)[1]

    parameters = (0.9 * jnp.ones((8, 64)), normal(8, 64), normal(8, 64, seed=1))
    return Problem(function, parameters, normal(length, 64), length)
