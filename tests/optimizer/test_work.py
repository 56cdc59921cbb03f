"""A step twice as long is rewritten by twice the work, counted in lines that run."""

import os
import sys

import jax
import jax.numpy as jnp
import pytest

import jscan
from jscan._jax.equations import renamed
from jscan._jax.jaxprs import is_variable, open_jaxpr
from jscan._optimizer.analysis.index import flattened
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


# From these sizes on the same rules have something to do.
@pytest.mark.parametrize(
    ("kind", "size"), [(elementwise, 24), (products, 24), (calls, 96)]
)
@pytest.mark.parametrize("how", ["forward", "gradient"])
def test_work_grows_with_the_length_of_a_step(
    kind, size, how, measured_costs, monkeypatch
):
    monkeypatch.setenv("JSCAN_DEBUG", "0")  # what verifies is not what is measured
    given = jax.grad if how == "gradient" else lambda f: f
    one, two, four = (lines(given(kind(n * size))) for n in (1, 2, 4))
    # What comes on top for each operation does not grow with their number.
    assert four - two < 2.1 * (two - one)


def test_one_equation_exchanged_is_what_a_walk_through_all_finds():
    """Work that led to the old one alone is gone, and its readers with it."""

    def function(x):
        doubled, unread = 2 * x, jnp.sin(x)
        first = jax.lax.scan(lambda h, v: (h + v, h * v), 0.0, doubled)[1]
        second = jax.lax.scan(lambda h, v: (h * v, h), 1.0, first + unread)[1]
        return second + doubled

    program = lambda f: flattened(open_jaxpr(jax.make_jaxpr(f)(ROWS))[0])
    flat, other = program(function), program(lambda x: jnp.cos(3 * x))
    (old,) = (e for e in flat.equations if e.primitive.name == "scan" and last(e, flat))
    (x,) = {a for a in flat.equations[0].invars if is_variable(a)}
    names = dict.fromkeys(flat_inputs(other), x)
    new = renamed(other.equations, names, {other.outputs[0]: old.outvars[-1]})
    made = flat.exchanged(old, new)
    walked = flat.with_equations(made.equations)
    assert len(made.equations) == 4  # twice the rows, cos, its operand, the sum
    assert made.equations == walked.equations
    assert made.readers.keys() == walked.readers.keys()
    for variable, readers in walked.readers.items():
        found = made.readers[variable]
        assert (found is None) == (readers is None)
        assert set(map(id, found or ())) == set(map(id, readers or ()))
    assert walked.producers.items() <= made.producers.items()


def last(equation, flat):
    """Whether a loop's rows are read by the sum that the program returns."""
    return any(e is flat.equations[-1] for e in flat.readers.get(equation.outvars[-1]))


def flat_inputs(flat):
    return {v for v in flat.readers if v not in flat.producers}
