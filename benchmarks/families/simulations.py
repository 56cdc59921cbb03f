"""Simulations: equations, samplers, learning in a loop, control."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jax import lax

from ._registry import Case, Sizes, family, last


@family("equation/Lorenz by Runge-Kutta")
def lorenz(draw: Sizes) -> Case:
    def slope(p, s):  # type: ignore[no-untyped-def]
        x, y, z = s
        return jnp.stack([p[0] * (y - x), x * (p[1] - z) - y, x * y - p[2] * z])

    def step(p, s, _):  # type: ignore[no-untyped-def]
        a = slope(p, s)
        b = slope(p, s + 0.005 * a)
        c = slope(p, s + 0.005 * b)
        d = slope(p, s + 0.01 * c)
        s = s + 0.01 / 6 * (a + 2 * b + 2 * c + d)
        return s, s

    parameters = jnp.asarray([10.0, 28.0, 8 / 3], jnp.float32)
    length = draw.steps(100, 400)
    return Case(step, parameters, jnp.ones(3), None, length=length)


@family("equation/forced oscillators")
def oscillators(draw: Sizes) -> Case:
    n, steps = draw.between(1, 60), draw.steps()

    def move(p, state, force):  # type: ignore[no-untyped-def]
        x, v = state
        v = v + 0.01 * (force - p["k"] * x - p["d"] * v)
        return (x + 0.01 * v, v), x

    def by_hand(p, state, times):  # type: ignore[no-untyped-def]
        force = jnp.sin(p["w"] * times[:, None])
        return lax.scan(lambda s, f: move(p, s, f), state, force)[1]

    return Case(
        lambda p, state, t: move(p, state, jnp.sin(p["w"] * t)),
        dict(k=jnp.exp(draw.normal(n)), d=jnp.exp(draw.normal(n)), w=draw.normal(n)),
        (jnp.zeros(n), jnp.zeros(n)),
        jnp.linspace(0.0, 10.0, steps),
        by_hand=by_hand,
    )


@family("equation/heat")
def heat(draw: Sizes) -> Case:
    n = draw.between(8, 400)

    def step(rate, u, _):  # type: ignore[no-untyped-def]
        return u + rate * (jnp.roll(u, 1) - 2 * u + jnp.roll(u, -1)), None

    length = draw.steps(100, 2000)
    return Case(
        step, jnp.float32(0.2), draw.normal(n), None, lambda u, _: u, length=length
    )


@family("equation/epidemic with a dict of states")
def epidemic(draw: Sizes) -> Case:
    n = draw.between(1, 50)

    def step(p, s, _):  # type: ignore[no-untyped-def]
        new = jax.nn.sigmoid(p["beta"]) * s["S"] * s["I"]
        gone = jax.nn.sigmoid(p["gamma"]) * s["I"]
        s = dict(S=s["S"] - new, I=s["I"] + new - gone, R=s["R"] + gone)
        return s, s["I"]

    def by_hand(p, s, _):  # type: ignore[no-untyped-def]
        beta, gamma = jax.nn.sigmoid(p["beta"]), jax.nn.sigmoid(p["gamma"])

        def step(state, _):  # type: ignore[no-untyped-def]
            s, i = state
            new = beta * s * i
            i = i + new - gamma * i
            return (s - new, i), i

        return lax.scan(step, (s["S"], s["I"]), None, length=steps)[1]

    steps = draw.steps(100, 1000)
    parameters = dict(beta=draw.normal(n), gamma=draw.normal(n) - 2)
    start = dict(S=jnp.full(n, 0.99), I=jnp.full(n, 0.01), R=jnp.zeros(n))
    return Case(step, parameters, start, None, by_hand=by_hand, length=steps)


@family("equation/stochastic, draws in the step")
def langevin(draw: Sizes) -> Case:
    n, steps, key = draw.between(1, 200), draw.steps(64, 1000), draw.key()

    def noise(i):  # type: ignore[no-untyped-def]
        return jax.random.normal(jax.random.fold_in(key, i), (n,))

    def step(p, x, i):  # type: ignore[no-untyped-def]
        x = x - 0.01 * p * x + 0.1 * noise(i)
        return x, x

    def by_hand(p, x, steps_):  # type: ignore[no-untyped-def]
        drawn = jax.vmap(noise)(steps_)
        return lax.scan(lambda x, z: (x - 0.01 * p * x + 0.1 * z,) * 2, x, drawn)[1]

    return Case(step, draw.normal(n), jnp.zeros(n), jnp.arange(steps), by_hand=by_hand)


@family("sampler/Metropolis", gradient=False)
def metropolis(draw: Sizes) -> Case:
    n, steps = draw.between(1, 60), draw.steps(64, 1000)

    def move(scale, x, z, u):  # type: ignore[no-untyped-def]
        new = x + scale * z
        accept = jnp.log(u) < 0.5 * ((x**2).sum() - (new**2).sum())
        x = jnp.where(accept, new, x)
        return x, x

    def drawn(key):  # type: ignore[no-untyped-def]
        a, b = jax.random.split(key)
        return jax.random.normal(a, (n,)), jax.random.uniform(b)

    def by_hand(scale, x, keys):  # type: ignore[no-untyped-def]
        rows = jax.vmap(drawn)(keys)
        return lax.scan(lambda x, row: move(scale, x, *row), x, rows)[1]

    return Case(
        lambda scale, x, key: move(scale, x, *drawn(key)),
        jnp.float32(0.5),
        jnp.zeros(n),
        jax.random.split(draw.key(), steps),
        by_hand=by_hand,
    )


@family("sampler/sum of normals", gradient=False)
def sum_of_normals(draw: Sizes) -> Case:
    n, steps, key = draw.between(1, 300), draw.steps(64, 1000), draw.key()

    def noise(i):  # type: ignore[no-untyped-def]
        return jax.random.normal(jax.random.fold_in(key, i), (n,))

    def by_hand(scale, total, steps_):  # type: ignore[no-untyped-def]
        return total + scale * jax.vmap(noise)(steps_).sum(0)

    return Case(
        lambda scale, total, i: (total + scale * noise(i), None),
        jnp.float32(0.5),
        jnp.zeros(n),
        jnp.arange(steps),
        last,
        by_hand,
    )


@family("learning/discounted returns")
def returns(draw: Sizes) -> Case:
    n = draw.between(1, 64)

    def step(gamma, g, row):  # type: ignore[no-untyped-def]
        reward, on = row
        g = reward + gamma * on * g
        return g, g

    steps = draw.steps()
    xs = draw.normal(steps, n), (draw.normal(steps, n) > -2).astype(jnp.float32)
    return Case(step, jnp.float32(0.99), jnp.zeros(n), xs)


@family("learning/generalized advantages")
def advantages(draw: Sizes) -> Case:
    n, steps = draw.between(1, 64), draw.steps()

    def step(p, a, row):  # type: ignore[no-untyped-def]
        reward, value, after = row
        a = reward + 0.99 * jnp.tanh(p * after) - jnp.tanh(p * value) + 0.94 * a
        return a, a

    def by_hand(p, a, rows):  # type: ignore[no-untyped-def]
        rewards, values, after = rows
        delta = rewards + 0.99 * jnp.tanh(p * after) - jnp.tanh(p * values)
        return lax.scan(lambda a, d: (d + 0.94 * a,) * 2, a, delta)[1]

    xs = tuple(draw.normal(steps, n) for _ in range(3))
    return Case(step, draw.normal(n), jnp.zeros(n), xs, by_hand=by_hand)


@family("learning/gradient descent in the loop")
def descent(draw: Sizes) -> Case:
    n, rows = draw.between(2, 40), draw.between(2, 32)
    steps = draw.steps(64, 600)

    def step(rate, w, row):  # type: ignore[no-untyped-def]
        x, y = row
        cost, slope = jax.value_and_grad(lambda w: ((x @ w - y) ** 2).mean())(w)
        return w - rate * slope, cost

    xs = draw.normal(steps, rows, n), draw.normal(steps, rows)
    return Case(step, jnp.float32(0.01), jnp.zeros(n), xs)


@family("learning/Adam in the loop")
def adam(draw: Sizes) -> Case:
    n, rows = draw.between(2, 40), draw.between(2, 32)
    steps = draw.steps(64, 600)

    def step(rate, state, row):  # type: ignore[no-untyped-def]
        w, m, v = state
        x, y = row
        cost, g = jax.value_and_grad(lambda w: ((x @ w - y) ** 2).mean())(w)
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g**2
        return (w - rate * m / (jnp.sqrt(v) + 1e-6), m, v), cost

    xs = draw.normal(steps, rows, n), draw.normal(steps, rows)
    return Case(step, jnp.float32(0.01), (jnp.zeros(n),) * 3, xs)


@family("algebra/solve with the state")
def solved(draw: Sizes) -> Case:
    n = draw.between(2, 12)

    def step(scale, h, A):  # type: ignore[no-untyped-def]
        h = jnp.tanh(jnp.linalg.solve(n * jnp.eye(n) + scale * A, h + 1))
        return h, h

    xs = draw.normal(draw.steps(64, 500), n, n)
    return Case(step, jnp.float32(0.5), jnp.zeros(n), xs)


@family("memory/rows written one by one")
def written(draw: Sizes) -> Case:
    n, slots = draw.between(2, 40), draw.between(8, 60)
    steps = draw.steps(64, 800)

    def step(p, memory, row):  # type: ignore[no-untyped-def]
        i, x = row
        weights = jax.nn.softmax(memory @ (p * x))
        read = weights @ memory
        return lax.dynamic_update_index_in_dim(memory, jnp.tanh(read + x), i, 0), read

    xs = draw.below(slots, steps), draw.normal(steps, n)
    return Case(step, draw.normal(n), jnp.zeros((slots, n)), xs)


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Plant:
    """What is controlled, and what the controller remembers."""

    level: jax.Array
    integral: jax.Array
    before: jax.Array


@family("control/PID with a dataclass of states")
def pid(draw: Sizes) -> Case:
    n, steps = draw.between(1, 60), draw.steps()

    def step(p, plant, aim):  # type: ignore[no-untyped-def]
        off = aim - plant.level
        integral = plant.integral + 0.01 * off
        push = p[0] * off + p[1] * integral + p[2] * (off - plant.before)
        level = plant.level + 0.01 * (push - jnp.tanh(plant.level))
        return Plant(level, integral, off), level

    gains = jnp.asarray([1.0, 0.1, 0.01], jnp.float32)
    start = Plant(jnp.zeros(n), jnp.zeros(n), jnp.zeros(n))
    return Case(step, gains, start, draw.normal(steps, n))
