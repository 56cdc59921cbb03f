"""Shared variables as arguments: the variable itself, or its value before the loop.

Listed in `non_sequences` a variable is the variable, as Theano hands over the very same
object: it is worth what the step before left. The references are Python loops.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jscan

MODES = [None, "FAST_COMPILE", "DEBUG"]
X = jnp.array([0.5, -1.0, 2.0, 0.3, 1.1])


@pytest.fixture
def s():
    return jscan.shared(1.5, name="s")


def by_operators(x, h, s):
    return h * s + x, {s: s * 0.5 + x}


def by_name(x, h, s):
    return h * s + x, {s.name and s: s.value * 0.5 + x}


def python_loop(x, h, s, xp=np):
    """Rows, and the final value of the variable."""
    rows = []
    for item in x:
        h, s = h * s + item, s * 0.5 + item
        rows.append(h)
    return xp.stack(rows), s


def through_jax(variable):
    """A step that hands its argument to functions of JAX."""

    def step(x, h, s):
        return jnp.multiply(h, s) + x, {variable: jax.lax.mul(s, 0.5) + x}

    return step


def steps(variable):
    def closed(x, h, s):
        return h * s + x, {variable: s * 0.5 + x}

    return [by_operators, by_name, closed, through_jax(variable)]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("strict", [False, True], ids=["", "strict"])
@pytest.mark.parametrize("which", range(4))
def test_it_is_worth_what_the_step_before_left(s, mode, strict, which):
    rows, updates = jscan.scan(steps(s)[which], X, 0.2, [s], mode=mode, strict=strict)
    expected, last = python_loop(X, 0.2, 1.5)
    np.testing.assert_allclose(rows, expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(updates[s], last, rtol=1e-12, atol=1e-12)
    assert float(s.value) == 1.5


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("which", range(4))
def test_functions_store_it_and_go_on(s, mode, which):
    run = jscan.function(lambda x: jscan.scan(steps(s)[which], x, 0.2, s), mode=mode)
    before = 1.5
    for _ in range(2):
        expected, before = python_loop(X, 0.2, before)
        np.testing.assert_allclose(run(X), expected, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(s.value, before, rtol=1e-12, atol=1e-12)


def weights_and_lanes():
    return jnp.cos(jnp.arange(5.0)), jnp.stack([X, 2 * X])


@functools.cache
def derivatives_of_the_unrolled_loop():
    weights, both = weights_and_lanes()

    def cost(x, value):
        rows, last = python_loop(x, 0.2, value, jnp)
        return (rows * weights).sum() + last**2

    args = X, jnp.asarray(1.5)
    return (
        jax.grad(cost, 1)(*args),
        jax.grad(cost)(*args),
        jax.hessian(cost)(*args),
        jax.jvp(lambda x: cost(x, args[1]), (X,), (weights,))[1],
        jax.vmap(cost, (0, None))(both, args[1]),
    )


@pytest.mark.parametrize("which", range(4))
@pytest.mark.parametrize(
    "options",
    [{}, {"mode": "DEBUG"}, {"checkpoint": 2}, {"unroll": 3}, {"name": "named"}],
    ids=lambda o: next(iter(o.values()), "plain"),
)
def test_derivatives_in_it_and_through_it(s, which, options):
    """Beside JAX's derivative of the unrolled loop."""
    weights, both = weights_and_lanes()

    def cost(x):
        rows, updates = jscan.scan(steps(s)[which], x, 0.2, s, **options)
        return (rows * weights).sum() + updates[s] ** 2

    by_value, by_x, second, along, lanes = derivatives_of_the_unrolled_loop()
    near = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10)
    near(jscan.grad(lambda: cost(X), s), by_value)
    near(jax.grad(cost)(X), by_x)
    near(jax.hessian(cost)(X), second)
    near(jax.jvp(cost, (X,), (weights,))[1], along)
    near(jax.vmap(cost)(both), lanes)
    if options.get("mode") != "DEBUG":
        slope = jscan.function(lambda x: jscan.grad(lambda: cost(x), s))
        near(slope(X), by_value)


@pytest.mark.parametrize("mode", MODES)
def test_in_map_reduce_folds_and_stops(s, mode):
    step = lambda x, s: (x * s, {s: s + x})
    values = np.cumsum([1.5, *X])
    rows, updates = jscan.map(step, X, s, mode=mode)
    np.testing.assert_allclose(rows, X * values[:-1])
    np.testing.assert_allclose(updates[s], values[-1])
    fold = lambda x, h, s: (h + x * s, {s: s + x})
    for run in (jscan.reduce, jscan.foldl):
        total, updates = run(fold, X, 0.0, s, mode=mode)
        np.testing.assert_allclose(total, (X * values[:-1]).sum())
        np.testing.assert_allclose(updates[s], values[-1])
    last, _ = jscan.foldr(fold, X, 0.0, s, mode=mode)
    np.testing.assert_allclose(last, (X[::-1] * np.cumsum([1.5, *X[::-1]])[:-1]).sum())
    stop = lambda s: (s, {s: s * 2.0}, jscan.until(s > 5.0))
    result = jscan.scan(stop, None, None, s, n_steps=9, mode=mode)
    assert result.outputs.tolist() == [1.5, 3.0, 6.0]
    assert float(result.updates[s]) == 12.0


def test_saved_at_chunk_ends(s):
    """Powers of two: the last of every three steps."""
    step = lambda h, s: (h * s, {s: s * 2.0})
    rows = jscan.scan_checkpoints(step, None, 1.0, s, n_steps=7, save_every_N=3).outputs
    expected = np.cumprod(1.5 * 2.0 ** np.arange(7))
    np.testing.assert_allclose(rows, expected[[2, 5, 6]])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("way", ["listed", "closed over", "read in between"])
def test_nested_loops_see_and_hand_on(s, mode, way):
    """As Theano: the object goes down; what comes out of the inner loop goes up."""

    def double(v):
        return v, {s: v * 2.0}

    def outer(v):
        if way == "listed":
            return jscan.scan(double, None, None, v, n_steps=2)
        if way == "closed over":
            return jscan.scan(lambda: (v, {v: v * 2.0}), n_steps=2)
        before = v.sum()
        rows, updates = jscan.scan(double, None, None, [v], n_steps=2)
        return rows + 0.0 * before, updates

    run = lambda: jscan.scan(outer, None, None, s, n_steps=2, mode=mode)
    rows, updates = run()
    assert rows.tolist() == [[1.5, 3.0], [6.0, 12.0]]
    assert float(updates[s]) == 24.0
    assert float(jscan.grad(lambda: run().outputs.sum(), s)) == 15.0


@pytest.mark.parametrize("mode", MODES)
def test_a_value_that_would_go_stale_in_an_inner_loop_is_refused(s, mode):
    """The outer step uses its argument as an array, the inner one updates it."""

    def outer(v):
        size = jnp.tanh(v)
        rows, updates = jscan.scan(lambda: (v, {s: s * 2.0}), n_steps=2)
        return rows * size, updates

    with pytest.raises(
        ValueError, match=r"(?s)<SharedVariable s: .*> was handed.*s\.value"
    ):
        jscan.scan(outer, None, None, s, n_steps=2, mode=mode)


@pytest.mark.parametrize("mode", MODES)
def test_a_mistake_in_the_step_is_told_as_it_is(s, mode):
    """The second attempt, with the value, does not hide what went wrong first."""

    def mistaken(x, s):
        raise ValueError("not yet")

    with pytest.raises(ValueError, match="not yet") as caught:
        jscan.scan(mistaken, X, non_sequences=s, mode=mode, name="rnn")
    assert sum("scan 'rnn'" in note for note in caught.value.__notes__) == 1
    with pytest.raises(ValueError, match=r"(?s)handed to a JAX function.*s\.value"):
        jscan.scan(
            lambda x, v: (jnp.tanh(v), {v: v + x}), X, non_sequences=s, mode=mode
        )


@pytest.mark.parametrize("mode", MODES)
def test_in_a_tree_beside_arrays(mode):
    tree = jscan.shared({"a": 1.0, "b": jnp.ones(2)}, name="tree")
    rate = jscan.shared(0.5, name="rate")

    def step(x, model):
        tree, rate, scale = model["tree"], model["rate"], model["scale"]
        here = tree.value
        new = {"a": here["a"] * rate.value, "b": here["b"] + x * scale}
        return here["b"] * here["a"], {tree: new, rate: rate + 1.0}

    given = {"tree": tree, "rate": rate, "scale": jnp.asarray(2.0)}
    rows, updates = jscan.scan(step, X[:3], non_sequences=given, mode=mode, strict=True)
    a, b, r = 1.0, np.ones(2), 0.5
    expected = []
    for x in X[:3]:
        expected.append(b * a)
        a, b, r = a * r, b + x * 2.0, r + 1.0
    np.testing.assert_allclose(rows, expected)
    np.testing.assert_allclose(updates[tree]["a"], a)
    np.testing.assert_allclose(updates[rate], r)


@pytest.mark.parametrize("mode", MODES)
def test_as_sequence_or_initial_it_is_its_value_when_the_loop_begins(mode):
    v = jscan.shared(jnp.array([1.0, 2.0, 3.0]), name="v")
    step = lambda x, h, w: (h + x * w[0], {w: w * 2.0})
    rows, updates = jscan.scan(step, v, v[0], v, mode=mode)
    assert rows.tolist() == [1.0 + 1.0, 2.0 + 4.0, 6.0 + 12.0]
    assert updates[v].tolist() == [8.0, 16.0, 24.0]
    first = jscan.shared(3.0, name="first")
    step = lambda h: (h * 2.0, {first: first + h})
    rows, updates = jscan.scan(step, None, first, n_steps=2, mode=mode)
    assert rows.tolist() == [6.0, 12.0]
    assert float(updates[first]) == 3.0 + 3.0 + 6.0


def test_strict_still_refuses_what_is_not_listed(s):
    other = jscan.shared(1.0, name="other")
    with pytest.raises(TypeError, match="captures <SharedVariable other: "):
        jscan.scan(lambda v: v + other, None, None, s, n_steps=2, strict=True)
    with pytest.raises(TypeError, match="captures <SharedVariable s: "):
        jscan.scan(lambda h: h + s, None, s, n_steps=2, strict=True)


def test_a_fresh_value_at_every_call_of_a_function(s):
    run = jscan.function(
        lambda: jscan.scan(lambda v: v * 1.0, None, None, s, n_steps=2)
    )
    assert run().tolist() == [1.5, 1.5]
    s.set_value(4.0)
    assert run().tolist() == [4.0, 4.0]


def test_in_jit_it_is_refused_as_everywhere(s):
    step = lambda x, v: x * v
    with pytest.raises(ValueError, match=r"read inside jax\.jit"):
        jax.jit(lambda x: jscan.scan(step, x, non_sequences=s).outputs)(X)


def test_the_first_step_that_is_not_finite_is_told_with_the_value_there(s):
    step = lambda x, v: (jnp.log(1.0 - x) * v, {v: v + 1.0})
    with pytest.raises(jscan.NonFiniteError) as caught:
        jscan.scan(step, X, non_sequences=s, mode="DEBUG")
    assert caught.value.step == 2
    assert float(caught.value.inputs["non_sequences[0]"]) == 3.5


def test_values_for_jax_are_traced_twice_at_most(s):
    """Once with the variable, once with its value."""
    calls = []

    def step(x, h, w):
        calls.append(type(w))
        return jnp.tanh(jnp.dot(x, w) + h)

    w = jscan.shared(jnp.eye(2), name="w")
    jscan.scan(step, jnp.ones((3, 2)), jnp.zeros(2), w)
    assert len(calls) == 2
    del calls[:]
    jscan.scan(lambda x, h, w: step(x, h, w.value), jnp.ones((3, 2)), jnp.zeros(2), w)
    assert len(calls) == 1


@pytest.mark.parametrize("mode", MODES)
def test_a_gradient_in_the_step_sees_the_variable(mode):
    """Not a constant in its place, which would have no gradient."""
    W = jscan.shared(jnp.array([1.0, -2.0]), name="W")
    rows = jnp.array([[1.0, 2.0], [0.5, 1.0]])

    def descend(product):
        def step(x, w):
            slope = jscan.grad(lambda: product(x, w) ** 2, W)
            return {W: W - 0.1 * slope}

        return jscan.scan(step, rows, non_sequences=W, mode=mode)[1][W]

    expected = np.array([1.0, -2.0])
    for x in np.asarray(rows):
        expected = expected - 0.1 * 2.0 * (x @ expected) * x
    np.testing.assert_allclose(descend(lambda x, w: (x * w).sum()), expected)
    np.testing.assert_allclose(descend(lambda x, w: jnp.dot(x, w.value)), expected)
    with pytest.raises(ValueError, match=r"(?s)handed to a JAX function.*W\.value"):
        descend(jnp.dot)


@pytest.mark.parametrize("mode", MODES)
def test_constructs_that_jax_traces_take_its_value(s, mode):
    """They may not read a variable themselves; the step is given the value then."""

    def step(x, v):
        double = jax.lax.cond(x > 0.0, lambda: v * 2.0, lambda: v * 1.0)
        return double, {s: s + 1.0}

    rows, updates = jscan.scan(step, X, non_sequences=s, mode=mode)
    values = 1.5 + np.arange(5.0)
    np.testing.assert_allclose(rows, np.where(X > 0, 2 * values, values))
    assert float(updates[s]) == 6.5


def test_no_trace_of_the_first_attempt_is_left(s):
    with jax.checking_leaks():
        rows, _ = jscan.scan(through_jax(s), X, 0.2, s)
    np.testing.assert_allclose(rows, python_loop(X, 0.2, 1.5)[0], atol=1e-12)


@pytest.mark.parametrize("mode", MODES)
def test_a_stream_among_them_changes_nothing(mode):
    rng, again = jscan.RandomStreams(2), jscan.RandomStreams(2)
    rows, _ = jscan.scan(
        lambda state: rng.normal(), None, None, [rng.state], n_steps=3, mode=mode
    )
    expected, _ = jscan.scan(lambda: again.normal(), n_steps=3)
    np.testing.assert_array_equal(rows, expected)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("wrap", [jax.jit, jax.checkpoint], ids=["jit", "checkpoint"])
def test_a_step_that_jax_wraps_is_given_values(s, mode, wrap):
    step = wrap(lambda x, v: x * v)
    rows, _ = jscan.scan(step, X, non_sequences=s, mode=mode)
    np.testing.assert_allclose(rows, 1.5 * X)
    cost = lambda: jscan.scan(step, X, non_sequences=s, mode=mode).outputs.sum()
    np.testing.assert_allclose(jscan.grad(cost, s), X.sum())
