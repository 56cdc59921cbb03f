"""A step twice as long is rewritten by twice the work, counted in lines that run."""

import os
import sys

import jax
import jax.numpy as jnp
import pytest

import jscan
from jscan._optimizer.entry import rewrite

OURS = os.path.dirname(jscan.__file__)
ROWS = jnp.linspace(0.0, 1.0, 12)
MATRIX = 0.1 * jnp.eye(8)


def elementwise(size):
    def last(w):
        def step(h, v):
            for number in range(size):
                h = jnp.sin(h) * w if number % 2 else h + v * number
            return h, h

        return jax.lax.scan(step, w, ROWS)[1].sum()

    return last


def products(size):
    def last(w):
        def step(h, v):
            for number in range(size // 2):
                h = jnp.tanh(h @ (w * MATRIX) + v) + MATRIX[number % 8]
            return h, h.sum()

        return jax.lax.scan(step, jnp.ones(8), ROWS)[1].sum()

    return last


@jax.jit
def cell(h, v, w):
    return jnp.tanh(h * w + v) * jax.nn.sigmoid(h - v)


def calls(size):
    def last(w):
        def step(h, v):
            for _ in range(size // 3):
                h = jax.nn.silu(cell(h, v, w))
            return h, h

        return jax.lax.scan(step, w, ROWS)[1].sum()

    return last


def lines(function):
    """How many lines of ours run while a function's loops are rewritten."""
    program = jax.make_jaxpr(function)(1.0)
    rewrite(program, platform="cpu")  # what is kept for good is kept now
    count = 0

    def in_frame(frame, event, _):
        nonlocal count
        count += event == "line"
        return in_frame

    def on_call(frame, *_):
        return in_frame if frame.f_code.co_filename.startswith(OURS) else None

    program = jax.make_jaxpr(function)(1.0)
    before = sys.gettrace()
    sys.settrace(on_call)
    try:
        rewrite(program, platform="cpu")
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("kind", [elementwise, products, calls])
@pytest.mark.parametrize("how", ["forward", "gradient"])
def test_work_grows_with_the_length_of_a_step(kind, how, measured_costs, monkeypatch):
    monkeypatch.setenv("JSCAN_DEBUG", "0")  # what verifies is not what is measured
    given = jax.grad if how == "gradient" else lambda f: f
    one, two, four = (lines(given(kind(size))) for size in (24, 48, 96))
    # What comes on top for each operation does not grow with their number.
    assert four - two < 2.1 * (two - one)
