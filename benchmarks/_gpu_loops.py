"""The loops that `gpu.py` times, and options of XLA's compiler for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

import jscan

Step = Callable[[jax.Array], jax.Array]

_EIGHT, _WIDE = jnp.full((8, 256), 0.1), jnp.full(2**16, 0.1)
_WEIGHT = jnp.full((256, 256), 0.004)

STEPS: dict[str, tuple[Step, jax.Array]] = {
    "0.9 * s + 1, one number": (lambda s: 0.9 * s + 1, jnp.float32(0)),
    "0.9 * s + 1, 65,536 numbers": (lambda s: 0.9 * s + 1, _WIDE),
    "tanh(s @ w), 8 rows, 256 wide": (lambda s: jnp.tanh(s @ _WEIGHT), _EIGHT),
}

STATES = {"number": jnp.float32(0.5), "(64,)": jnp.full(64, 0.5)}

# What XLA puts in command buffers unless it is told otherwise, by its source.
_USUAL = "FUSION,CUBLAS,CUBLASLT,CUSTOM_CALL,CUDNN,DYNAMIC_SLICE_FUSION"
_BUFFERS, _SMALLEST = "xla_gpu_enable_command_buffer", "xla_gpu_graph_min_graph_size"
_LOOPS = {_BUFFERS: f"{_USUAL},WHILE,CONDITIONAL", _SMALLEST: 1}

GRAPHS: dict[str, dict[str, Any]] = {
    "no command buffers": {_BUFFERS: ""},
    "of single operations": {_SMALLEST: 1},
    "of whole loops": _LOOPS,
    "of whole loops, unrolled": _LOOPS | {"xla_gpu_command_buffer_unroll_loops": True},
    "two steps an iteration": {"xla_gpu_enable_while_loop_double_buffering": True},
}


def repeated(step: Step, steps: int, unroll: int) -> Step:
    """A step, so many times, several in an iteration."""

    def run(start: jax.Array) -> jax.Array:
        once = lambda s, _: (step(s), None)
        return lax.scan(once, start, None, length=steps, unroll=unroll)[0]

    return run


def _advance(h: jax.Array) -> jax.Array:
    return 0.999 * jnp.tanh(1.1 * h + 0.1)


def counted(stop: int) -> Step:
    """A loop of known length."""
    return repeated(_advance, stop, 1)


def stopping(stop: int) -> Step:
    """The same by `jscan.until`: a check at each step."""

    def step(i: jax.Array, h: jax.Array) -> Any:
        return _advance(h), jscan.until(i + 1 >= stop)

    return lambda h: jscan.reduce(step, jnp.arange(8192), h).outputs


def checked(stop: int, every: int) -> Step:
    """The same by hand: every k steps one check; what runs too far changes nothing."""

    def some(state: Any) -> Any:
        i, h, done = state
        for _ in range(every):
            h = jnp.where(done, h, _advance(h))
            done |= i + 1 >= stop
            i += 1
        return i, h, done

    def run(h: jax.Array) -> jax.Array:
        start = (jnp.int32(0), h, jnp.array(False))
        return lax.while_loop(lambda s: ~s[2] & (s[0] < 8192), some, start)[1]

    return run


def in_graphs(quick: bool) -> dict[str, tuple[Step, jax.Array]]:
    """Loops of known length, as they are and optimized, and one that stops."""
    steps, found = 16 if quick else 400, {}
    for name, (step, start) in list(STEPS.items())[: 1 if quick else None]:
        plain = repeated(step, steps, 1)
        found[name] = plain, start
        found[f"{name}, optimized"] = jscan.optimize(plain), start
    found["a loop that stops, (64,)"] = stopping(steps), STATES["(64,)"]
    return found


def linear(decay: jax.Array, xs: jax.Array) -> jax.Array:
    """`s[t] = decay[t] * s[t-1] + xs[t]`."""

    def step(s: jax.Array, row: tuple[jax.Array, jax.Array]) -> Any:
        s = row[0] * s + row[1]
        return s, s

    return lax.scan(step, jnp.zeros(xs.shape[1:]), (decay, xs))[1]


def associative(decay: jax.Array, xs: jax.Array) -> jax.Array:
    """The same in a few operations on all steps."""

    def join(left: Any, right: Any) -> Any:
        return left[0] * right[0], right[0] * left[1] + right[1]

    return lax.associative_scan(join, (decay, xs))[1]
