"""`jscan.grad` and `jscan.value_and_grad`: derivatives in shared variables."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jscan


@pytest.fixture
def W() -> jscan.SharedVariable:
    return jscan.shared(jnp.array([1.0, 2.0]), name="W")


@pytest.fixture
def b() -> jscan.SharedVariable:
    return jscan.shared({"bias": 3.0}, name="b")


def test_result_matches_wrt(W, b):
    def cost():
        return (W * W).sum() * b.value["bias"]

    assert jscan.grad(cost, W).tolist() == [6.0, 12.0]
    by_list = jscan.grad(cost, [b, W])
    assert by_list[0] == {"bias": 5.0}
    by_name = jscan.grad(cost, {"weights": W, "rest": (b,)})
    assert by_name["weights"].tolist() == [6.0, 12.0]
    assert by_name["rest"][0]["bias"] == 5.0
    value, slope = jscan.value_and_grad(cost, W)
    assert (value, slope.tolist()) == (15.0, [6.0, 12.0])


def test_agrees_with_jax_through_a_loop(W):
    x = jnp.array([0.3, -0.2, 0.5, 0.1])

    def loop(w):
        rows, _ = jscan.scan(lambda a, h: jnp.tanh(h * w[0] + a * w[1]), x, 0.0)
        return (rows**2).sum()

    def in_closure():
        rows, _ = jscan.scan(lambda a, h: jnp.tanh(h * W[0] + a * W[1]), x, 0.0)
        return (rows**2).sum()

    expected = jax.grad(loop)(W.value)
    np.testing.assert_allclose(jscan.grad(in_closure, W), expected, 1e-12)
    compiled = jscan.function(lambda: jscan.grad(in_closure, W))
    np.testing.assert_allclose(compiled(), expected, 1e-12)


def test_variable_that_the_cost_does_not_use_gets_zeros(W, b):
    with pytest.warns(UserWarning, match="never reads <SharedVariable b>"):
        slopes = jscan.grad(lambda: (W * W).sum(), [W, b])
    assert slopes[1] == {"bias": 0.0}


def test_parts_of_a_variable_taken_outside_are_constants_and_it_is_said():
    """As in a public recurrent network; the gradient is that of PyTensor 3.3.8."""
    theta = jscan.shared(jnp.arange(6.0) / 10, name="theta")
    parts = lambda: (theta[:4].reshape((2, 2)), theta[4:])

    def loss(W, h0):
        rows, _ = jscan.scan(
            lambda x, h: jnp.tanh(x + h @ W), jnp.ones((3, 2)), outputs_info=[h0]
        )
        return (rows**2).sum()

    outside = parts()
    with pytest.warns(UserWarning, match=r"reads <.*theta>.*theta\[:4\]") as caught:
        assert not jscan.grad(lambda: loss(*outside), theta).any()
    assert [warning.filename for warning in caught] == [__file__]
    np.testing.assert_allclose(
        jscan.grad(lambda: loss(*parts()), theta),
        [1.1057, 0.9662, 1.2055, 1.0593, 0.0594, 0.2966],
        atol=5e-5,
    )


@pytest.mark.parametrize("mode", [None, "FAST_COMPILE", "DEBUG"])
def test_a_read_anywhere_in_the_cost_is_a_read(W, mode):
    """In a step, in an inner one, in a function, or as an argument: no warning."""
    inner = lambda w: jscan.scan(
        lambda: (W * w).sum(), n_steps=2, mode=mode
    ).outputs.sum()
    costs = [
        lambda: jscan.map(inner, jnp.ones(2), mode=mode).outputs.sum(),
        lambda: jscan.function(lambda: (W * W).sum(), mode=mode)(),
        lambda: jscan.scan(lambda w: w.sum(), None, None, W, n_steps=2, mode=mode)[
            0
        ].sum(),
        lambda: jscan.scan(lambda w: w, W, mode=mode).outputs.sum(),
    ]
    for cost in costs:
        assert (jscan.grad(cost, W) != 0).all()


def test_auxiliary_values_may_be_updates(W):
    c = jscan.shared(0, name="c")

    def cost():
        rows, updates = jscan.scan(lambda w: (w * w, {c: c + 1}), W)
        return rows.sum(), updates

    (value, updates), slope = jscan.value_and_grad(cost, W, has_aux=True)
    assert (value, updates[c], slope.tolist()) == (5.0, 2, [2.0, 4.0])
    d = jscan.shared(0, name="d")
    plain = jscan.grad(lambda: (W[0], {c: c + 1, d: d + 2}), W, has_aux=True)[1]
    assert [plain[c], plain[d]] == [1, 2]
    slope, updates = jscan.grad(cost, W, has_aux=True)
    assert (updates[c], slope.tolist()) == (2, [2.0, 4.0])


def test_nested_and_inside_a_step(W):
    def slope():
        return jscan.grad(lambda: (W * W * W).sum(), W)

    assert jscan.grad(lambda: slope().sum(), W).tolist() == [6.0, 12.0]
    rows, _ = jscan.scan(lambda x: slope() * x, jnp.array([1.0, 2.0]))
    assert rows.tolist() == [[3.0, 12.0], [6.0, 24.0]]


def test_training_inside_one_scan(W):
    # Gradient descent on (w - target)^2: the error shrinks by 0.8 a step.
    target = jnp.array([5.0, -1.0])

    def step():
        cost, slope = jscan.value_and_grad(lambda: ((W - target) ** 2).sum(), W)
        return cost, {W: W - 0.1 * slope}

    costs, updates = jscan.scan(step, n_steps=6)
    np.testing.assert_allclose(costs, 25.0 * 0.64 ** np.arange(6), 1e-12)
    np.testing.assert_allclose(updates[W], target - 0.8**6 * np.array([4.0, -3.0]))


def test_one_sample_of_a_draw_inside_and_outside_of_the_cost(W):
    rng = jscan.RandomStreams(2)

    @jscan.function
    def f():
        noise = rng.normal(avg=W)
        return noise.value, jscan.grad(lambda: (noise.value**2).sum(), W)

    sample, slope = f()
    np.testing.assert_allclose(slope, 2 * sample, 1e-12)
    noise = rng.normal(avg=W)
    slope = jscan.grad(lambda: (noise.value**2).sum(), W)
    np.testing.assert_allclose(slope, 2 * noise.value, 1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda W: jscan.grad(lambda: W * 2.0, W),
            r"cost: needed a scalar; got float64",
        ),
        (lambda W: jscan.grad(lambda: [W[0]], W), "needed a scalar; got list"),
        (lambda W: jscan.grad(lambda: None, W), "needed a scalar; got NoneType"),
        (lambda W: jscan.grad(lambda: 1, W), "real floating-point number"),
        (lambda W: jscan.grad(lambda: W[0], W.value), "needed shared variables"),
        (lambda W: jscan.grad(lambda: W[0], []), "at least one"),
        (lambda W: jscan.grad(lambda: W[0], [W, W]), "<SharedVariable W> twice"),
        (lambda W: jscan.grad(lambda: W[0], W, has_aux=True), r"\(scalar, aux\)"),
        (
            lambda W: jscan.grad(lambda: W[0], jscan.shared(1, name="n")),
            r"<SharedVariable n>.*got int64",
        ),
    ],
    ids=[
        "vector",
        "list",
        "none",
        "integer cost",
        "array",
        "nothing",
        "twice",
        "no aux",
        "integer variable",
    ],
)
def test_bad_use(call, message, W):
    with pytest.raises((TypeError, ValueError), match=message):
        call(W)


def test_updates_of_a_function_inside_a_cost_are_refused(W):
    add = jscan.function(lambda: (W[0], {W: W + 1.0}))
    with pytest.raises(TypeError, match=r"(?s)<SharedVariable W>.*call from a cost"):
        jscan.grad(lambda: add(), W)
