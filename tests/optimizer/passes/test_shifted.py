"""Rows that are earlier rows of others are not handed out a second time."""

import jax
import jax.numpy as jnp
import pytest

from jscan import optimize
from support.comparing import assert_close
from support.optimizer.loops import check, stacked_shapes

T, WIDE = 25, 3
X = jax.random.normal(jax.random.key(0), (T, WIDE))
A = jnp.asarray(0.7)


def stacks(fun, *args):
    """How many rows a step the loops of a program hand out."""
    length = len(args[-1])
    return sum(shape[:1] == (length,) for shape in stacked_shapes(fun, *args))


def next_value(a, rows, x):
    """A step that reads three lags."""
    return jnp.tanh(a * rows[0] - 0.3 * rows[1] + 0.2 * rows[2] * x)


def chain(a, xs, reverse=False):
    """Three carries that hand their values on; all of them are results."""

    def step(carry, x):
        old, middle, new = carry
        y = next_value(a, (old, middle, new), x)
        return (middle, new, y), (old, middle, new, y)

    first = tuple(jnp.full(WIDE, float(k)) for k in (1, 2, 3))
    return jax.lax.scan(step, first, xs, reverse=reverse)[1]


def window(a, xs, reverse=False, newest_first=False):
    """The same with one array, whose rows are results."""

    def step(rows, x):
        order = rows[::-1] if newest_first else rows
        y = next_value(a, [order[k] for k in range(3)], x)
        new = [y[None], rows[:-1]] if newest_first else [rows[1:], y[None]]
        return jnp.concatenate(new), (*[rows[k] for k in range(3)], y)

    first = jnp.arange(1.0, 4.0)[:, None] * jnp.ones((3, WIDE))
    first = first[::-1] if newest_first else first
    return jax.lax.scan(step, first, xs, reverse=reverse)[1]


FORMS = {
    "chain": chain,
    "window": window,
    "newest first": lambda *a, **k: window(*a, newest_first=True, **k),
}


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_one_row_a_step_gives_all_lags(form, reverse):
    """Four results, one stack; the numbers are the very same."""

    def function(a, xs):
        return FORMS[form](a, xs, reverse=reverse)

    assert stacks(function, A, X) == 4
    assert stacks(optimize(function), A, X) == 1
    check(function, A, X, tolerance=1e-5)


@pytest.mark.parametrize("length", [2, 3, 4])
@pytest.mark.parametrize("form", FORMS)
def test_loops_about_as_short_as_the_lags(form, length):
    """Where only rows from before the loop are seen, or nearly."""
    for reverse in (False, True):
        assert_close(
            jax.jit(optimize(FORMS[form], passes=["save_memory"]))(A, X[:length]),
            FORMS[form](A, X[:length]),
        )
        rows = FORMS[form](A, X[:length], reverse=reverse)
        fast = jax.jit(optimize(lambda a, xs: FORMS[form](a, xs, reverse=reverse)))
        assert_close(fast(A, X[:length]), rows)


@pytest.mark.parametrize("form", FORMS)
def test_derivatives_agree(form):
    """Reverse, forward and second order."""

    def loss(a):
        return sum((rows**2).mean() for rows in FORMS[form](a, X))

    assert_close(optimize(jax.grad(loss))(A), jax.grad(loss)(A), 1e-4)
    assert_close(jax.hessian(optimize(loss))(A), jax.hessian(loss)(A), 1e-3)
    one = (jnp.ones_like(A),)
    assert_close(jax.jvp(optimize(loss), (A,), one), jax.jvp(loss, (A,), one), 1e-4)


def test_lags_of_a_sequence():
    """What a carry hands on may be a row the loop was given."""

    def function(a, xs):
        def step(carry, x):
            h, before = carry
            h = jnp.tanh(a * h + before)
            return (h, x), (h, before)

        return jax.lax.scan(step, (jnp.zeros(WIDE), jnp.ones(WIDE)), xs)[1]

    assert stacks(optimize(function), A, X) == 1
    check(function, A, X)


def test_a_lag_alone_is_handed_out():
    """Nothing is gained by handing out something else in its place."""

    def function(a, xs):
        def step(carry, x):
            before, last = carry
            y = jnp.tanh(a * last - 0.3 * before + x)
            return (last, y), before

        return jax.lax.scan(step, (jnp.zeros(WIDE), jnp.ones(WIDE)), xs)[1]

    assert stacks(optimize(function), A, X) == 1
    check(function, A, X)


def refused(name):
    """Loops that look alike but remember something else."""

    def function(a, xs):
        def step(rows, x):
            y = next_value(a, (rows[0], rows[1], rows[2]), x)
            if name == "scaled":
                new = jnp.concatenate([0.5 * rows[1:], y[None]])
            elif name == "drops two":
                new = jnp.concatenate([rows[2:], y[None], x[None]])
            elif name == "in place":
                new = rows.at[0].set(y)
            elif name == "turned":
                new = jnp.concatenate([rows[1:], y[None]])[::-1]
            else:  # not the newest
                new = jnp.concatenate([rows[:-1], y[None]])
            return new, (rows[0], rows[1], rows[2], y)

        first = jnp.arange(1.0, 4.0)[:, None] * jnp.ones((3, WIDE))
        return jax.lax.scan(step, first, xs)[1]

    return function


@pytest.mark.parametrize(
    "name", ["scaled", "drops two", "in place", "turned", "not the newest"]
)
def test_refused(name):
    """Another kind of window: its rows are handed out."""
    assert stacks(optimize(refused(name)), A, X) == 4
    check(refused(name), A, X)


def test_carries_that_change_places_are_handed_out():
    """Round in a circle there is no newest value."""

    def function(a, xs):
        def step(carry, x):
            one, other, h = carry
            h = jnp.tanh(a * h + one * x)
            return (other, one, h), (one, other, h)

        first = (jnp.ones(WIDE), jnp.zeros(WIDE), jnp.zeros(WIDE))
        return jax.lax.scan(step, first, xs)[1]

    assert stacks(optimize(function), A, X) == 3
    check(function, A, X)


def test_random_keys_and_integers():
    """Rows of any type."""

    def function(seed, xs):
        def step(carry, x):
            before, key = carry
            return (key, jax.random.fold_in(key, x)), (
                jax.random.key_data(before),
                jax.random.bits(key),
            )

        keys = jax.random.key(seed), jax.random.key(seed + 1)
        return jax.lax.scan(step, keys, xs)[1]

    xs = jnp.arange(9)
    assert_close(jax.jit(optimize(function))(3, xs), jax.jit(function)(3, xs))


def test_a_window_of_numbers_that_come_out_of_a_matrix():
    """Of shape (1, 1): what adds a row to the window drops an axis."""

    def rows(xs):
        def step(carry, x):
            last, y = carry
            y = jnp.tanh(y + x + last[0])
            last = jnp.concatenate([last[1:], y.reshape(1)])
            return (last, y), (last[:1], last[1:2])

        return jax.lax.scan(step, (jnp.ones(3), jnp.ones((1, 1))), xs)[1]

    assert_close(optimize(rows)(X[:, :1, None]), rows(X[:, :1, None]))
