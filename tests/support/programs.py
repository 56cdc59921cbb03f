"""Hand-picked loops, each written twice: with jscan and with plain `lax.scan`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jscan

Tree = Any


@dataclass(frozen=True)
class Program:
    """Two programs that must agree, and arguments for both."""

    ours: Callable[..., Tree]
    by_hand: Callable[..., Tree]
    args: dict[str, np.ndarray]


PROGRAMS: dict[str, Program] = {}


def program(**args: Any) -> Callable[[type], type]:
    """Register a class with the two static methods `ours` and `by_hand`."""

    def register(pair: Any) -> type:
        PROGRAMS[pair.__name__] = Program(pair.ours, pair.by_hand, args)
        return pair

    return register


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    """Reproducible numbers in (-1, 1) with three decimals."""
    return np.round(np.random.default_rng(seed).uniform(-1, 1, shape), 3)


@program(x=numbers(5, 3), h=numbers(3, seed=1), W=numbers(3, 3, seed=2))
class one_tap:
    @staticmethod
    def ours(x, h, W):
        return jscan.scan(lambda x, h: jnp.tanh(x + h @ W), x, h).outputs

    @staticmethod
    def by_hand(x, h, W):
        def step(h, x):
            new = jnp.tanh(x + h @ W)
            return new, new

        return jax.lax.scan(step, h, x)[1]


@program(x=numbers(6), z=numbers(2, seed=1), w=numbers(seed=2))
class two_taps:
    @staticmethod
    def ours(x, z, w):
        return jscan.scan(
            lambda x, before, last, w: jnp.sin(before * w) + last * x,
            sequences=x,
            outputs_info=dict(initial=z, taps=[-2, -1]),
            non_sequences=w,
        ).outputs

    @staticmethod
    def by_hand(x, z, w):
        def step(carry, x):
            before, last = carry
            new = jnp.sin(before * w) + last * x
            return (last, new), new

        return jax.lax.scan(step, (z[0], z[1]), x)[1]


@program(z=numbers(4, 2), w=numbers(seed=2))
class gap_taps:
    @staticmethod
    def ours(z, w):
        return jscan.scan(
            lambda last, fourth, w: jnp.sin(last * w) - fourth,
            outputs_info=dict(initial=z, taps=[-1, -4]),
            non_sequences=w,
            n_steps=7,
        ).outputs

    @staticmethod
    def by_hand(z, w):
        def step(window, _):
            new = jnp.sin(window[3] * w) - window[0]
            return jnp.concatenate([window[1:], new[None]]), new

        return jax.lax.scan(step, z, None, length=7)[1]


@program(x=numbers(7, 2), w=numbers(2, seed=1))
class map_of_windows:
    @staticmethod
    def ours(x, w):
        return jscan.scan(
            lambda before, now, after: [before * w + jnp.tanh(after), now.sum()],
            sequences=dict(input=x, taps=[-1, 0, 1]),
        ).outputs

    @staticmethod
    def by_hand(x, w):
        def step(_, rows):
            before, now, after = rows
            return None, [before * w + jnp.tanh(after), now.sum()]

        return jax.lax.scan(step, None, (x[:-2], x[1:-1], x[2:]))[1]


@program(x=numbers(5), y=numbers(7, seed=3), h=numbers(seed=1))
class backwards:
    @staticmethod
    def ours(x, y, h):
        return jscan.scan(
            lambda x, y, h: jnp.cos(h * y) + x, [x, y], h, go_backwards=True
        ).outputs

    @staticmethod
    def by_hand(x, y, h):
        def step(h, rows):
            new = jnp.cos(h * rows[1]) + rows[0]
            return new, new

        # Unequal lengths are aligned at their ends.
        return jax.lax.scan(step, h, (x[::-1], y[:1:-1]))[1]


@program(x=numbers(5), h=numbers(seed=1), count=np.int32(2))
class integer_state:
    @staticmethod
    def ours(x, h, count):
        def step(x, count, h):
            parity = (count % 2).astype(x.dtype)
            return [count + 3, h * 0.5 + x * parity, jnp.sin(h)]

        return jscan.scan(step, x, [count, h, None]).outputs

    @staticmethod
    def by_hand(x, h, count):
        def step(carry, x):
            count, h = carry
            parity = (count % 2).astype(x.dtype)
            new = (count + 3, h * 0.5 + x * parity)
            return new, [*new, jnp.sin(h)]

        return jax.lax.scan(step, (count, h), x)[1]


@program(x=numbers(5) + 1j * numbers(5, seed=4), h=numbers(2) + 0j, w=numbers(seed=2))
class complex_state:
    @staticmethod
    def ours(x, h, w):
        return jscan.scan(
            lambda x, h: [h * jnp.exp(1j * x), abs(h) ** 2 * w], x, [h, None]
        ).outputs

    @staticmethod
    def by_hand(x, h, w):
        def step(h, x):
            new = h * jnp.exp(1j * x)
            return new, [new, abs(h) ** 2 * w]

        return jax.lax.scan(step, h, x)[1]


@program(a=numbers(4, 2), b=numbers(4, seed=1), h=numbers(2, seed=2), c=numbers())
class pytrees:
    @staticmethod
    def ours(a, b, h, c):
        def step(rows, state):
            h = jnp.tanh(state["h"] * rows["b"] + rows["a"])
            new = {"h": h, "c": state["c"] + h.sum()}
            return [new, {"squares": h**2}]

        return jscan.scan(
            step,
            sequences=dict(input={"a": a, "b": b}),
            outputs_info=[dict(initial={"h": h, "c": c}), None],
        ).outputs

    @staticmethod
    def by_hand(a, b, h, c):
        def step(state, rows):
            a, b = rows
            h = jnp.tanh(state["h"] * b + a)
            new = {"h": h, "c": state["c"] + h.sum()}
            return new, [new, {"squares": h**2}]

        return jax.lax.scan(step, {"h": h, "c": c}, (a, b))[1]


@program(rows=numbers(3, 4), h=numbers(seed=1), w=numbers(seed=2))
class nested:
    @staticmethod
    def ours(rows, h, w):
        def outer(row, h, w):
            inner, _ = jscan.scan(lambda a, s: jnp.tanh(s + a * w), row, h)
            return inner[-1]

        return jscan.scan(outer, rows, h, w).outputs

    @staticmethod
    def by_hand(rows, h, w):
        def inner(s, a):
            return jnp.tanh(s + a * w), None

        def outer(h, row):
            h, _ = jax.lax.scan(inner, h, row)
            return h, h

        return jax.lax.scan(outer, h, rows)[1]


@program(x=numbers(5), h=numbers(seed=1))
class chained:
    @staticmethod
    def ours(x, h):
        first, _ = jscan.scan(lambda a, h: jnp.sin(h) + a, x, h)
        second, _ = jscan.scan(lambda a, h: h * a + 1, first, h, go_backwards=True)
        return [first, second]

    @staticmethod
    def by_hand(x, h):
        def rising(h, a):
            new = jnp.sin(h) + a
            return new, new

        def falling(h, a):
            new = h * a + 1
            return new, new

        first = jax.lax.scan(rising, h, x)[1]
        return [first, jax.lax.scan(falling, h, first[::-1])[1]]


def long_lag(name: str, steps: int) -> None:
    """Taps [-1, -128] on a scalar state, for a loop shorter or longer than the lag."""

    def ours(z, w):
        return jscan.scan(
            lambda last, old: jnp.sin(last) * w + old * 0.5,
            outputs_info=dict(initial=z, taps=[-1, -128]),
            n_steps=steps,
        ).outputs

    def by_hand(z, w):
        def step(window, _):
            new = jnp.sin(window[127]) * w + window[0] * 0.5
            return jnp.concatenate([window[1:], new[None]]), new

        return jax.lax.scan(step, z, None, length=steps)[1]

    args = {"z": numbers(128), "w": numbers(seed=2)}
    PROGRAMS[name] = Program(ours, by_hand, args)


long_lag("long_lag_short_loop", 5)
long_lag("long_lag_long_loop", 300)
