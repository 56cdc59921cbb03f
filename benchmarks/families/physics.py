"""Physics, signals, controls, algebra and layers of newer networks."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from ._registry import Case, Sizes, family, last


@family("physics/bodies by leapfrog")
def bodies(draw: Sizes) -> Case:
    n = draw.between(2, 20)

    def force(mass, x):  # type: ignore[no-untyped-def]
        off = x[None] - x[:, None]
        cubed = ((off**2).sum(-1) + 0.1) ** 1.5
        return (mass[:, None] * off / cubed[..., None]).sum(1)

    def step(mass, state, _):  # type: ignore[no-untyped-def]
        x, v = state
        v = v + 0.005 * force(mass, x)
        x = x + 0.01 * v
        return (x, v + 0.005 * force(mass, x)), x

    start = draw.normal(n, 3), jnp.zeros((n, 3))
    length = draw.steps(100, 500)
    return Case(step, jnp.abs(draw.normal(n)), start, None, length=length)


@family("physics/grid that reacts")
def grid(draw: Sizes) -> Case:
    n = draw.between(8, 40)

    def spread(u):  # type: ignore[no-untyped-def]
        shifted = [jnp.roll(u, by, axis) for by in (1, -1) for axis in (0, 1)]
        return sum(shifted) - 4 * u

    def step(p, state, _):  # type: ignore[no-untyped-def]
        u, v = state
        met = u * v * v
        u = u + 0.1 * spread(u) - met + p[0] * (1 - u)
        return (u, v + 0.05 * spread(v) + met - p[1] * v), u.mean()

    start = jnp.ones((n, n)), 0.1 * jnp.abs(draw.normal(n, n))
    return Case(step, jnp.array([0.03, 0.09]), start, None, length=draw.steps(100, 400))


@family("physics/neurons that spike", gradient=False)
def neurons(draw: Sizes) -> Case:
    n = draw.between(4, 150)

    def step(W, state, current):  # type: ignore[no-untyped-def]
        v, spikes = state
        v = 0.9 * v + current + spikes @ W
        fired = v > 1.0
        return (jnp.where(fired, 0.0, v), fired.astype(jnp.float32)), fired

    steps = draw.steps(100, 1500)
    start = jnp.zeros(n), jnp.zeros(n)
    return Case(step, draw.weight(n, n), start, draw.normal(steps, n))


@family("physics/pendulum with a motor")
def pendulum(draw: Sizes) -> Case:
    n = draw.between(1, 40)

    def step(p, s, torque):  # type: ignore[no-untyped-def]
        push = torque - p["drag"] * s["speed"] - jnp.sin(s["angle"])
        speed = s["speed"] + 0.02 * push
        s = dict(angle=s["angle"] + 0.02 * speed, speed=speed)
        return s, jnp.cos(s["angle"])

    start = dict(angle=draw.normal(n), speed=jnp.zeros(n))
    xs = draw.normal(draw.steps(), n)
    return Case(step, dict(drag=jnp.abs(draw.normal(n))), start, xs)


@family("sampler/Langevin")
def langevin(draw: Sizes) -> Case:
    n = draw.between(2, 100)

    def energy(p, x):  # type: ignore[no-untyped-def]
        return (jnp.log(jnp.cosh(x * p)) + 0.1 * x**2).sum()

    def step(p, x, noise):  # type: ignore[no-untyped-def]
        x = x - 0.05 * jax.grad(energy, 1)(p, x) + 0.3 * noise
        return x, x

    steps = draw.steps(100, 2000)
    return Case(step, draw.normal(n), jnp.zeros(n), draw.normal(steps, n))


@family("sampler/two coordinates in turn", gradient=False)
def gibbs(draw: Sizes) -> Case:
    n = draw.between(1, 60)

    def step(rho, state, _):  # type: ignore[no-untyped-def]
        x, y, key = state
        key, one, two = jax.random.split(key, 3)
        spread = jnp.sqrt(1 - rho**2)
        x = rho * y + spread * jax.random.normal(one, (n,))
        y = rho * x + spread * jax.random.normal(two, (n,))
        return (x, y, key), x + y

    start = jnp.zeros(n), jnp.zeros(n), draw.key()
    return Case(step, jnp.float32(0.7), start, None, length=draw.steps(100, 1000))


@family("control/Riccati")
def riccati(draw: Sizes) -> Case:
    n, m = draw.between(2, 8), draw.between(1, 4)

    def step(p, P, _):  # type: ignore[no-untyped-def]
        A, B = p["A"], p["B"]
        S = jnp.eye(m) + B.T @ P @ B
        K = jnp.linalg.solve(S, B.T @ P @ A)
        return jnp.eye(n) + A.T @ P @ (A - B @ K), K

    p = dict(A=draw.weight(n, n), B=draw.weight(n, m))
    return Case(step, p, jnp.eye(n), None, length=draw.steps(50, 400))


@family("control/plan by a learned model")
def plan(draw: Sizes) -> Case:
    n, m, k = draw.between(2, 16), draw.between(1, 6), draw.between(4, 64)

    def step(p, s, u):  # type: ignore[no-untyped-def]
        h = jax.nn.relu(jnp.concatenate([s, u]) @ p["in"] + p["bias"])
        s = s + 0.1 * h @ p["out"]
        return s, (s**2).sum() + 0.1 * (u**2).sum()

    p = {"in": draw.weight(n + m, k), "out": draw.weight(k, n), "bias": draw.normal(k)}
    return Case(step, p, draw.normal(n), draw.normal(draw.steps(50, 500), m))


@family("signal/filter of two poles")
def biquad(draw: Sizes) -> Case:
    n = draw.between(1, 40)

    def step(p, state, x):  # type: ignore[no-untyped-def]
        a, b = state
        y = p[0] * x + a
        return (p[1] * x - 0.3 * p[3] * y + b, p[2] * x - 0.1 * p[4] * y), y

    start = jnp.zeros(n), jnp.zeros(n)
    return Case(step, 0.5 * draw.normal(5, n), start, draw.normal(draw.steps(), n))


@family("signal/adaptive filter")
def adaptive(draw: Sizes) -> Case:
    taps = draw.between(4, 64)

    def step(rate, state, row):  # type: ignore[no-untyped-def]
        w, window = state
        x, wanted = row
        window = jnp.concatenate([x[None], window[:-1]])
        off = wanted - w @ window
        return (w + rate * off * window / (1 + window @ window), window), off

    steps = draw.steps()
    rows = draw.normal(steps), draw.normal(steps)
    start = jnp.zeros(taps), jnp.zeros(taps)
    return Case(step, jnp.float32(0.1), start, rows)


@family("algebra/power iteration")
def power(draw: Sizes) -> Case:
    n = draw.between(4, 150)

    def step(A, x, _):  # type: ignore[no-untyped-def]
        x = A @ x
        return x / jnp.linalg.norm(x), None

    length = draw.steps(20, 300)
    # A part of it: the whole has length one, whatever the matrix is.
    read = lambda end, _: end[: n // 2]
    return Case(step, draw.weight(n, n), draw.normal(n), None, read, length=length)


@family("algebra/conjugate gradient")
def conjugate(draw: Sizes) -> Case:
    n = draw.between(4, 100)

    def step(A, state, _):  # type: ignore[no-untyped-def]
        x, r, d = state
        moved = A @ d + A.T @ d + 4 * d
        alpha = (r @ r) / (d @ moved + 1e-6)
        new = r - alpha * moved
        beta = (new @ new) / (r @ r + 1e-6)
        return (x + alpha * d, new, new + beta * d), None

    b = draw.normal(n)
    read = lambda end, _: end[0]
    start = jnp.zeros(n), b, b
    length = draw.steps(10, 60)
    return Case(step, draw.weight(n, n), start, None, read, length=length)


@family("algebra/polynomial by Horner")
def horner(draw: Sizes) -> Case:
    n = draw.between(1, 500)
    step = lambda x, total, c: (total * x + c, None)
    xs = draw.normal(draw.steps(10, 200))
    return Case(step, 0.5 * draw.normal(n), jnp.zeros(n), xs, last)


@family("layer/weighted keys and values")
def weighted(draw: Sizes) -> Case:
    n = draw.between(4, 200)

    def step(p, state, row):  # type: ignore[no-untyped-def]
        key, value = row
        top, bottom = state
        now = jnp.exp(p["first"] + key)
        out = (top + now * value) / (bottom + now + 1e-6)
        fade = jnp.exp(-jnp.exp(p["decay"]))
        new = jnp.exp(key)
        return (fade * top + new * value, fade * bottom + new), out

    steps = draw.steps(100, 1500)
    p = dict(first=draw.normal(n), decay=draw.normal(n))
    rows = draw.normal(steps, n), draw.normal(steps, n)
    return Case(step, p, (jnp.zeros(n), jnp.zeros(n)), rows)


@family("layer/delta rule")
def delta(draw: Sizes) -> Case:
    n, m = draw.between(4, 32), draw.between(4, 32)

    def step(p, S, x):  # type: ignore[no-untyped-def]
        key, value, query = jnp.tanh(x @ p["k"]), x @ p["v"], x @ p["q"]
        S = S + 0.1 * jnp.outer(key, value - key @ S)
        return S, query @ S

    p = dict(k=draw.weight(m, n), v=draw.weight(m, m), q=draw.weight(m, n))
    xs = draw.normal(draw.steps(50, 800), m)
    return Case(step, p, jnp.zeros((n, m)), xs)


@family("network/two layers of tanh")
def two_layers(draw: Sizes) -> Case:
    n, m, k = draw.between(2, 40), draw.between(4, 80), draw.between(4, 80)

    def step(p, state, x):  # type: ignore[no-untyped-def]
        a, b = state
        a = jnp.tanh(x @ p["x"] + a @ p["a"])
        b = jnp.tanh(a @ p["u"] + b @ p["b"])
        return (a, b), b

    p = dict(x=draw.weight(n, m), a=draw.weight(m, m))
    p |= dict(u=draw.weight(m, k), b=draw.weight(k, k))
    xs = draw.normal(draw.steps(50, 800), n)
    return Case(step, p, (jnp.zeros(m), jnp.zeros(k)), xs)


@family("memory/ring of rows")
def ring(draw: Sizes) -> Case:
    slots, n = draw.between(4, 40), draw.between(1, 30)

    def step(p, state, x):  # type: ignore[no-untyped-def]
        i, rows = state
        oldest = lax.dynamic_index_in_dim(rows, i, keepdims=False)
        new = jnp.tanh(p * oldest + x)
        return ((i + 1) % slots, lax.dynamic_update_index_in_dim(rows, new, i, 0)), new

    start = jnp.int32(0), jnp.zeros((slots, n))
    return Case(step, draw.normal(n), start, draw.normal(draw.steps(100, 1500), n))
