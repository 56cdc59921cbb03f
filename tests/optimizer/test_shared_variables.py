"""`optimize` and `explain` of functions that use shared variables, and loop names."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxpr_as_fun

import jscan
from jscan import explain, optimize
from support.comparing import assert_close
from support.optimizer.loops import operations

X = jnp.linspace(-1.0, 1.0, 24).reshape(6, 4)


def chain(weight, x, name):
    step = lambda v, h, w: jnp.tanh(v * w + h * w)
    zero = jnp.zeros(x.shape[1:])
    return jscan.scan(
        step, sequences=x, outputs_info=zero, non_sequences=weight, name=name
    )[0]


@pytest.fixture
def weight():
    return jscan.shared(jnp.full(4, 0.5), name="weight")


def names(fun, *args):
    return [loop.name for loop in explain(fun)(*args).loops]


def test_reads_the_value_of_the_moment(weight):
    """Every call sees the current value, as a plain call does."""
    cost = lambda x: (chain(weight.value, x, "rnn") ** 2).sum()
    faster = optimize(cost)
    for value in (0.5, 0.25):
        weight.set_value(jnp.full(4, value))
        assert jnp.allclose(faster(X), cost(X))
        assert jnp.allclose(jax.grad(faster)(X), jax.grad(cost)(X))
    with pytest.raises(
        jscan.ScanValueError, match=r"(?s)weight.* is read inside jax.jit"
    ):
        jax.jit(faster)(X)


def test_gradients_in_shared_variables(weight):
    """Inside of `optimize`, outside of it, and in the report."""
    cost = lambda: (chain(weight.value, X, "rnn") ** 2).sum()
    expected = jax.grad(lambda w: (chain(w, X, None) ** 2).sum())(weight.value)
    slope = lambda: jscan.grad(cost, weight)
    assert jnp.allclose(optimize(slope)(), expected)
    assert jnp.allclose(jscan.grad(optimize(cost), weight), expected)
    assert names(slope) == ["rnn", "rnn (backward)"]


def test_a_whole_training_step(weight):
    """A function with updates: the report changes nothing, the faster one trains."""
    other = jscan.shared(jnp.zeros(()), name="other")

    def step(x):
        cost = lambda: (chain(weight.value, x, "rnn") ** 2).sum()
        value, slope = jscan.value_and_grad(cost, weight)
        return value, {weight: weight - 0.1 * slope, other: value}

    plain = jscan.function(step)
    assert names(plain, X) == ["rnn", "rnn (backward)"]
    np.testing.assert_array_equal(weight.get_value(), np.full(4, 0.5))
    expected = float(plain(X)), weight.get_value()
    for faster in (optimize(plain), jscan.function(optimize(step))):
        weight.set_value(jnp.full(4, 0.5))
        value = float(faster(X))
        np.testing.assert_allclose(value, expected[0], rtol=1e-6)
        np.testing.assert_allclose(weight.get_value(), expected[1], rtol=1e-6)
        assert float(other.value) == value
    assert isinstance(optimize(plain), jscan.Function)


def test_a_function_is_rewritten_after_differentiation(weight, monkeypatch):
    """Called in a cost, its loop runs backwards; the passes see that loop."""
    called = jscan.function(lambda x: (chain(weight.value, x, "rnn") ** 2).sum())
    steps = []
    for fun in (called, optimize(called)):
        monkeypatch.setenv("JSCAN_OPTIMIZE", "0" if fun is called else "1")
        slope = jscan.function(lambda x, fun=fun: jscan.grad(lambda: fun(x), weight))
        program = slope.traced(X)[0].jaxpr
        inputs = [jnp.ones(aval.shape, aval.dtype) for aval in program.in_avals]
        steps.append(operations(jaxpr_as_fun(program), *inputs)[1])
        last = slope(X)
    assert steps[1] != steps[0]
    expected = jax.grad(lambda w: (chain(w, X, None) ** 2).sum())(weight.value)
    assert jnp.allclose(last, expected)


def test_updates_and_draws_are_refused_in_a_plain_function(weight):
    """The error names the function to hand over instead."""
    count = jscan.function(lambda: {weight: weight + 1.0}, name="count")
    with pytest.raises(jscan.ScanTypeError, match=r"explain count itself"):
        explain(lambda: count())()
    stream = jscan.RandomStreams(1)
    noisy = lambda x: (chain(weight.value, x, "rnn") * stream.normal(size=(6, 4))).sum()
    with pytest.raises(
        jscan.ScanNotImplementedError, match=r"(?s)draws .* jscan.function"
    ):
        optimize(noisy)(X)
    assert names(noisy, X) == ["rnn"]  # nothing runs, nothing is drawn
    first = jscan.function(noisy)(X)
    again = jscan.RandomStreams(1)
    stream = again
    assert jnp.allclose(optimize(jscan.function(noisy))(X), first)


def test_loops_are_told_apart_by_name():
    """Loops of one structure keep their own names, forward and backward."""

    def loss(w, x):
        with jax.named_scope("model"):
            hidden = chain(w, x, "encoder")
        return (chain(w, hidden, "decoder") ** 2).sum()

    w = jnp.full(4, 0.5)
    both = ["model/encoder", "decoder", "decoder (backward)"]
    both.append("model/encoder (backward)")
    for fun in (
        jax.grad(loss),
        jax.jit(jax.grad(loss)),
        jax.grad(optimize(loss)),
        jax.grad(jax.checkpoint(loss)),
    ):
        assert names(fun, w, X) == both
    batched = jax.vmap(jax.grad(loss), (0, None))
    assert names(batched, w[None], X) == both
    assert names(loss, w, X) == both[:2]


def test_inner_loops_have_names():
    """Inner loops come before the loop around them."""

    def outer(w, x):
        step = lambda v, w: chain(w, jnp.outer(v, v), "inner")[-1]
        return jscan.map(step, x, non_sequences=w, name="outer")[0].sum()

    found = names(jax.grad(outer), jnp.full(4, 0.5), X)
    assert {"outer/inner", "outer/inner (backward)"} <= set(found)
    assert not any(name.startswith("loop") for name in found)


def test_draws_from_a_stream_of_its_own():
    """What a function makes and throws away is nobody else's state."""

    def walk(key, scale):
        noise = jscan.RandomStreams(key).normal(size=(3,), dtype="float32")
        step = lambda h: h + scale * noise
        return jscan.scan(step, outputs_info=jnp.zeros(3, "float32"), n_steps=4).outputs

    key, scale = jax.random.key(5), jnp.float32(0.5)
    expected = walk(key, scale)
    assert_close(jscan.optimize(walk)(key, scale), expected)
    assert_close(jax.jit(jscan.optimize(walk))(key, scale), expected)
    stream = jscan.RandomStreams(5)
    with pytest.raises(jscan.ScanError, match="draws no random numbers"):
        jscan.optimize(lambda: stream.normal().value)()
