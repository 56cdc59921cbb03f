"""merge, terms padded with zeros: n rows of an array are one pass, not n."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jscan
from jscan import explain, optimize
from jscan._jax.names import JAX_VERSION
from support.comparing import assert_close
from support.optimizer.loops import check, check_other_derivatives, operations

T, WIDE = 30, 6
X = jax.random.normal(jax.random.key(0), (T, WIDE))
W = jax.random.normal(jax.random.key(1), (5,)) / 5
FIRED = "their parts side by side"


def dense_lags(weights, xs):
    """All of the last rows, each with a weight of its own."""
    lags = len(weights)

    def step(window, x):
        terms = [weights[i] * window[i] for i in range(lags)]
        y = jnp.tanh(sum(terms) + x)
        return jnp.concatenate([window[1:], y[None]]), y

    return jax.lax.scan(step, jnp.zeros((lags, *xs.shape[1:])), xs)[1]


def equations(start, xs):
    """The elements of a small state by name, as equations of motion are written."""

    def step(state, x):
        a, b, c = state[0], state[1], state[2]
        state = state + 0.1 * jnp.stack([b - a, a * (1 - c) - b + x, a * b - c])
        return state, state

    return jax.lax.scan(step, start, xs[:, 0])[1]


def gates(weight, xs):
    """A product whose columns are read in pieces."""

    def step(h, x):
        z = h @ weight + jnp.tile(x, 3)[None]
        a, b, c = z[:, :WIDE], z[:, WIDE : 2 * WIDE], z[:, 2 * WIDE :]
        h = jnp.tanh(a) * jax.nn.sigmoid(b) + h * c
        return h, h

    return jax.lax.scan(step, jnp.ones((4, WIDE)), xs)[1]


CASES = {
    "dense lags": (dense_lags, W),
    "dense lags of numbers": (lambda w, xs: dense_lags(w, xs[:, 0]), W),
    "equations": (equations, jnp.ones(3)),
    "gates": (gates, jax.random.normal(jax.random.key(2), (WIDE, 3 * WIDE)) / 4),
}


def gradient(function):
    return jax.grad(lambda first, xs: (function(first, xs) ** 2).sum())


@pytest.mark.parametrize("name", CASES)
def test_fires_in_the_backward_loop(name):
    """The pads of the pieces go; what is left is one array a sum."""
    function, first = CASES[name]
    slow, fast = gradient(function), optimize(gradient(function))
    before = operations(slow, first, X)[1].count("pad")
    after = operations(fast, first, X)[1].count("pad")
    assert before >= 3
    assert after <= 1
    assert FIRED in str(explain(slow)(first, X))


@pytest.mark.parametrize("name", CASES)
def test_numbers_agree(name):
    """Value, gradient and batched forms, the optimizer inside and outside."""
    function, first = CASES[name]
    check(function, first, X, tolerance=1e-4)


@pytest.mark.parametrize("name", CASES)
def test_other_derivatives_agree(name):
    """Forward mode and second order, the optimizer inside and outside."""
    function, first = CASES[name]

    def loss(scale):
        return (function(scale * first, X) ** 2).mean()

    check_other_derivatives(loss)


def test_one_operation_on_many_numbers_is_done_once():
    """`w[0] * g`, `w[1] * g`, ... become one product of a column and a row."""
    fast = optimize(gradient(dense_lags))
    products = operations(fast, W, X)[1].count("mul")
    more = operations(fast, jnp.tile(W, 2)[:7], X)[1].count("mul")
    assert more - products == 2  # the forward loop's; backward it is one
    _, inside = operations(fast, W, X)
    assert "concatenate" not in inside[inside.index("pad") - 3 :]


def padded(pads, filling=0.0, axes=1):
    """A loop that adds up rows padded as told, to what it carries."""

    def function(_, xs):
        def step(total, x):
            terms = [
                jax.lax.pad(
                    jnp.cos((k + 1.0) * x + total[0]),
                    jnp.asarray(filling),
                    [sides, *[(0, 0, 0)] * (axes - 1)],
                )
                for k, sides in enumerate(pads)
            ]
            total = total * 0.5 + sum(terms[1:], terms[0])
            return total, total

        low, high, inner = pads[0]
        size = low + high + 3 + 2 * inner
        return jax.lax.scan(step, jnp.zeros(size), xs[:, :3])[1]

    return function


@pytest.mark.parametrize(
    ("pads", "left"),
    [
        ([(0, 6, 0), (3, 3, 0), (6, 0, 0)], 0),  # without a gap
        ([(0, 6, 0), (6, 0, 0)], 0),  # a gap between
        ([(1, 5, 0), (5, 1, 0)], 1),  # nothing at the ends
        ([(0, 6, 0), (2, 4, 0), (6, 0, 0)], 1),  # the second overlaps the first
        ([(2, 4, 0), (2, 4, 0), (5, 1, 0), (5, 1, 0)], 2),  # twice the same places
    ],
)
def test_places(pads, left):
    """Each part stands where it stood; overlapping ones are in different arrays."""
    function = padded(pads)
    # `left` counts pads; an array with nothing at its ends needs none.
    assert operations(optimize(function), W, X)[1].count("pad") == left
    check(function, W, X, tolerance=1e-4)


@pytest.mark.parametrize(
    ("pads", "filling"),
    [
        ([(0, 6, 0), (2, 4, 0)], 0.0),  # they overlap: nothing to gain
        ([(0, 6, 0), (6, 0, 0)], 1.0),  # ones all around
        ([(0, 4, 1), (4, 0, 1)], 0.0),  # zeros between the elements
        ([(-1, 7, 0), (7, -1, 0)], 0.0),  # cut, not padded
    ],
)
def test_refused(pads, filling):
    """What is not zeros around whole parts stays as it was."""
    function = padded(pads, filling)
    assert operations(optimize(function), W, X)[1].count("pad") == 2
    assert FIRED not in str(explain(function)(W, X))
    check(function, W, X, tolerance=1e-4)


def test_a_padded_term_that_is_read_elsewhere_stays():
    """It would have to be made all the same."""

    def function(_, xs):
        def step(total, x):
            a, b = jnp.pad(x[:3] + total[0], (0, 3)), jnp.pad(x[3:] * total[5], (3, 0))
            return total * 0.5 + (a + b), a

        return jax.lax.scan(step, jnp.zeros(6), xs)

    assert operations(optimize(function), W, X)[1].count("pad") == 2
    check(function, W, X)


def test_integers_are_exact():
    """Sums that wrap around, of parts that overlap in part."""

    def function(xs):
        def step(total, x):
            parts = [jnp.pad(x * k + total[0], (k, 4 - k)) for k in (0, 3, 1, 4)]
            total = total * 7 + sum(parts[1:], parts[0])
            return total, total

        return jax.lax.scan(step, jnp.zeros(7, xs.dtype), xs)

    xs = jax.random.randint(jax.random.key(3), (T, 3), -(2**30), 2**30)
    assert_close(jax.jit(optimize(function))(xs), jax.jit(function)(xs))
    assert operations(optimize(function), xs)[1].count("pad") < 4


def test_infinities_and_nan_stay_in_their_places():
    """A part that is not finite does not touch the others."""
    function, first = CASES["equations"]
    bad = X.at[20, 0].set(jnp.inf).at[25, 0].set(jnp.nan)
    plain, fast = (f(first, bad) for f in (function, jax.jit(optimize(function))))
    np.testing.assert_array_equal(np.isnan(plain), np.isnan(fast))
    slope = gradient(function)
    np.testing.assert_array_equal(
        np.isnan(slope(first, bad)), np.isnan(jax.jit(optimize(slope))(first, bad))
    )


def test_taps_of_a_scan():
    """Theano's way to write it: the step is given all lags, one by one."""

    def function(weights, xs):
        lags = len(weights)

        def step(x, *rows):
            return jnp.tanh(sum(w * r for w, r in zip(weights, rows, strict=True)) + x)

        initial = {"initial": jnp.zeros((lags, WIDE)), "taps": list(range(-lags, 0))}
        return jscan.scan(step, xs, initial)[0]

    by_taps, by_window = gradient(function), gradient(dense_lags)
    assert_close(jax.jit(by_taps)(W, X), jax.jit(by_window)(W, X), 1e-4)
    assert operations(by_taps, W, X)[1].count("pad") <= 1  # without being asked


def test_blocks_that_overlap_stay_apart():
    """A grid rolled both ways: rows and blocks side by side took longer (0.85x)."""

    def diffused(rate, start):
        def step(grid, _):
            around = jnp.roll(grid, 1, 0) + jnp.roll(grid, -1, 0)
            return grid + rate * (around - 2 * grid) * grid, None

        return jax.lax.scan(step, start, length=20)[0]

    start = jax.random.normal(jax.random.key(3), (8, 8))
    assert FIRED not in str(explain(gradient(diffused))(0.1, start))
    check(diffused, 0.1, start, tolerance=1e-4)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the costs of a CPU")
def test_the_ends_of_a_row_stay_apart_where_that_is_faster(measured_costs):
    """The derivative of `jnp.roll` pads one number at either end."""

    def heat(start):
        def step(u, _):
            return u + 0.2 * (jnp.roll(u, 1) - 2.0 * u + jnp.roll(u, -1)), None

        return (jax.lax.scan(step, start, None, length=T)[0] ** 2).sum()

    start = jnp.linspace(0.0, 1.0, 94)
    report = explain(jax.grad(heat))(start)
    assert (FIRED in str(report)) is (JAX_VERSION < (0, 11))
    assert_close(optimize(jax.grad(heat))(start), jax.grad(heat)(start))
