"""How much faster are loops of other libraries, unchanged but for `optimize`?

Programs as their documentation has them, of dynamax, distrax, rlax, tinygp, blackjax
and numpyro, forward and gradient: nobody here wrote their loops. A library that is not
installed is left out.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import _timing
from against_lax import same
from jscan import optimize
from regret import gradient

HEADER = ("library", "program", "pass", "plain", "plain / optimized", "build", "")

Program = tuple[Callable[..., Any], tuple[Any, ...]]
Maker = Callable[[Any, int], Program]
PROGRAMS: list[tuple[str, str, str, tuple[int, ...], bool, Maker]] = []


def program(
    module: str, title: str, *sizes: int, differentiable: bool = True
) -> Callable[[Maker], Maker]:
    """Registers what makes a program out of a module and a size."""

    def register(make: Maker) -> Maker:
        library = module.partition(".")[0]
        PROGRAMS.append((library, module, title, sizes, differentiable, make))
        return make

    return register


def normal(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(sum(shape)).normal(size=shape), "float32")


def chain(states: int, steps: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Transitions, initial probabilities and likelihoods of a hidden Markov model."""
    transition = jax.nn.softmax(normal(states, states))
    return transition, jax.nn.softmax(normal(states)), normal(steps, states)


HMM, LGSSM = "dynamax.hidden_markov_model", "dynamax.linear_gaussian_ssm"


@program(HMM, "HMM, likelihood", 3, 12, 40)
def _(hmm: Any, states: int) -> Program:
    filtered = lambda a, p, y: hmm.hmm_filter(p, a, y).marginal_loglik
    return filtered, chain(states, 300)


@program(HMM, "HMM, smoother", 3, 12, 40, differentiable=False)
def _(hmm: Any, states: int) -> Program:
    return lambda a, p, y: hmm.hmm_smoother(p, a, y), chain(states, 300)


@program(HMM, "HMM, sample of the posterior", 12, differentiable=False)
def _(hmm: Any, states: int) -> Program:
    key = jax.random.PRNGKey(0)
    return lambda a, p, y: hmm.hmm_posterior_sample(key, p, a, y), chain(states, 300)


def gaussian(states: int) -> tuple[Any, jax.Array]:
    """Parameters and observations of a linear Gaussian model."""
    inference = importlib.import_module(f"{LGSSM}.inference")
    turning = 0.9 * jnp.linalg.qr(normal(states, states))[0]
    unit, seen = jnp.eye(states), max(1, states - 1)
    parameters = inference.make_lgssm_params(
        jnp.zeros(states),
        unit,
        turning,
        0.1 * unit,
        normal(seen, states),
        jnp.eye(seen),
    )
    return parameters, normal(300, seen)


@program(LGSSM, "Kalman, likelihood", 2, 4, 10)
def _(ssm: Any, states: int) -> Program:
    return lambda p, y: ssm.lgssm_filter(p, y).marginal_loglik, gaussian(states)


@program(LGSSM, "Kalman, smoother", 2, 4, 10, differentiable=False)
def _(ssm: Any, states: int) -> Program:
    return lambda p, y: ssm.lgssm_smoother(p, y).smoothed_means, gaussian(states)


@program("distrax", "HMM, forward", 4, 16)
def _(distrax: Any, states: int) -> Program:
    def forward(logits: jax.Array, means: jax.Array, seen: jax.Array) -> Any:
        start = distrax.Categorical(logits=jnp.zeros(states))
        moves = distrax.Categorical(logits=logits)
        return distrax.HMM(start, moves, distrax.Normal(means, 1.0)).forward(seen)

    return forward, (normal(states, states), normal(states), normal(400))


@program("rlax", "V-trace, 100 steps", 1, 32, 256)
def _(rlax: Any, rows: int) -> Program:
    errors = lambda *a: rlax.vtrace(*a, stop_target_gradients=False)
    steps = [normal(100 + i, rows)[:100] for i in range(3)]
    discount, ratio = jnp.full((100, rows), 0.99), jnp.abs(normal(100, rows))
    return jax.vmap(errors, 1, 1), (*steps, discount, ratio)


@program("tinygp", "quasiseparable kernels", 300, 2000)
def _(tinygp: Any, points: int) -> Program:
    kernels, times = tinygp.kernels.quasisep, jnp.linspace(0.0, 50.0, points)

    def likelihood(p: jax.Array, seen: jax.Array) -> Any:
        p = jnp.exp(p)
        waves = kernels.SHO(omega=p[0], quality=p[1], sigma=p[2])
        process = tinygp.GaussianProcess(
            waves + kernels.Matern32(scale=p[3]), times, diag=0.1
        )
        return process.log_probability(seen)

    return likelihood, (jnp.zeros(4), jnp.sin(times))


def density(x: jax.Array) -> jax.Array:
    return -0.5 * (x**2).sum() - jax.nn.softplus(x).sum()


def sampled(kernel: Any, numbers: int) -> Program:
    """A chain of 200 draws, as the library's documentation runs one."""

    def run(start: jax.Array, key: jax.Array) -> Any:
        def step(state: Any, key: jax.Array) -> Any:
            state, _ = kernel.step(key, state)
            return state, state.position

        keys = jax.random.split(key, 200)
        return jax.lax.scan(step, kernel.init(start), keys)[1]

    return run, (normal(numbers), jax.random.PRNGKey(0))


@program("blackjax", "HMC, 200 draws", 5, 100, differentiable=False)
def _(blackjax: Any, numbers: int) -> Program:
    return sampled(blackjax.hmc(density, 0.1, jnp.ones(numbers), 10), numbers)


@program("blackjax", "random walk, 200 draws", 5, 100, differentiable=False)
def _(blackjax: Any, numbers: int) -> Program:
    steps = blackjax.mcmc.random_walk.normal(0.1 * jnp.ones(numbers))
    return sampled(blackjax.additive_step_random_walk(density, steps), numbers)


@program("numpyro", "autoregression of two lags", 300)
def _(numpyro: Any, steps: int) -> Program:
    flow = importlib.import_module("numpyro.contrib.control_flow")
    util = importlib.import_module("numpyro.infer.util")

    def model(seen: jax.Array, p: jax.Array) -> None:
        def step(state: Any, now: jax.Array) -> Any:
            mean = p[0] * state[0] + p[1] * state[1]
            normal_ = numpyro.distributions.Normal(mean, jnp.exp(p[2]))
            numpyro.sample("y", normal_, obs=now)
            return (now, state[0]), mean

        flow.scan(step, (seen[0], seen[1]), seen[2:])

    density = lambda p, seen: util.log_density(model, (seen, p), {}, {})[0]
    return density, (0.1 * normal(3), normal(steps))


def rows(how: _timing.Settings) -> Iterator[list[str]]:
    """Measures every program of the libraries that are there."""
    for library, module, title, sizes, differentiable, make in PROGRAMS:
        if importlib.util.find_spec(library) is None:
            continue
        for size in sizes[:1] if how.quick else sizes:
            name = f"{title}, {size}"
            if not how.wants(f"{library} {name}"):
                continue
            plain, arguments = make(importlib.import_module(module), size)
            for direction in ("forward", "gradient")[: 1 + differentiable]:
                function = gradient(plain) if direction == "gradient" else plain
                as_it_is = _timing.build(function, arguments)
                optimized = _timing.build(optimize(function), arguments)
                timing = _timing.measure_pair(as_it_is, optimized, how)
                agree = same(as_it_is.call(), optimized.call())
                yield [
                    library,
                    name,
                    direction,
                    _timing.duration(timing.seconds * timing.ratio),
                    str(timing),
                    f"{optimized.build_seconds / as_it_is.build_seconds:.2f}x",
                    "" if agree else "DIFFERENT RESULT",
                ]
            jax.clear_caches()


if __name__ == "__main__":
    _timing.run_script(__doc__, HEADER, rows)
