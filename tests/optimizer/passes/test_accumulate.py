"""accumulate: carries that are only added to become one sum after the loop."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jscan import explain, optimize
from support.comparing import assert_close
from support.optimizer.loops import (
    carried_shapes,
    check,
    loop_lengths,
    operations,
    reasons,
)

KEYS = jax.random.split(jax.random.key(0), 4)
W = jax.random.normal(KEYS[0], (64, 64)) / 8
U = jax.random.normal(KEYS[1], (64, 64)) / 8
X = jax.random.normal(KEYS[2], (9, 4, 64))


def rnn(weights, x):
    w, u = weights

    def step(h, x_t):
        h = jnp.tanh(x_t @ w + h @ u)
        return h, h

    return jax.lax.scan(step, jnp.zeros((4, 64), x.dtype), x)[1]


def loss(weights, x):
    return (rnn(weights, x) ** 2).sum()


def test_weight_gradients_leave_the_backward_loop():
    """Of the four products of a backward step one stays: the state's."""
    _, plain = operations(jax.grad(loss), (W, U), X)
    outside, inside = operations(optimize(jax.grad(loss)), (W, U), X)
    assert plain.count("dot_general") == 5
    # Forward: h @ u. Backward: g @ u.T.
    assert inside.count("dot_general") == 2
    assert outside.count("dot_general") == 3


def test_numbers_agree():
    """Value, gradient and batched forms, the optimizer inside and outside."""
    check(rnn, (W, U), X, tolerance=1e-4)


def test_fires_only_where_told():
    """Without the pass the sums stay."""
    passes = ["hoist", "sink", "merge"]
    _, inside = operations(optimize(jax.grad(loss), passes=passes), (W, U), X)
    assert inside.count("dot_general") == 4


def test_initial_value_and_reverse_are_kept():
    """A sum that starts from something, in a loop that runs backwards."""

    def total(start, x):
        def step(c, x_t):
            return c + jnp.outer(x_t[:2], x_t[2:]), None

        return jax.lax.scan(step, start, x, reverse=True)[0]

    start = jnp.full((128, 128), 3.0)
    assert_close(optimize(total)(start, X), total(start, X))
    _, inside = operations(optimize(total), start, X)
    assert inside == []


@pytest.mark.parametrize(
    "rows", [np.array([2, 0, 2, 2, 5]), np.array([7, -1, 9, 3, 3])]
)
def test_reading_rows_of_a_table_gives_one_scatter(rows):
    """The gradient of `table[i]` writes rows once, out of bounds ones clamped."""

    def loss_of(table, indices):
        def step(h, i):
            h = jnp.tanh(0.5 * h + jax.lax.dynamic_index_in_dim(table, i, 0, False))
            return h, h

        return (jax.lax.scan(step, jnp.zeros(3), indices)[1] ** 2).sum()

    table, indices = jnp.arange(24.0).reshape(8, 3) / 9, jnp.asarray(rows)
    outside, inside = operations(optimize(jax.grad(loss_of)), table, indices)
    assert "dynamic_update_slice" not in inside
    assert any(name.startswith("scatter") for name in outside)
    expected = jax.grad(loss_of)(table, indices)
    assert_close(jax.jit(optimize(jax.grad(loss_of)))(table, indices), expected)


def test_integer_sums_stay():
    """An integer carry is never taken out."""

    def total(x):
        return jax.lax.scan(lambda c, v: (c + v[0] * v[1], c), jnp.int32(0), x)

    x = jnp.arange(12, dtype=jnp.int32).reshape(6, 2)
    assert_close(optimize(total)(x), total(x))
    assert "accumulate" not in explain(total)(x).loops[0].fired


def test_a_sum_read_in_the_loop_stays():
    """A carry whose value at a step matters is not a sum alone."""

    def total(x):
        def step(c, x_t):
            c = c + jnp.outer(x_t[0], x_t[1])
            return c, c[0, 0]

        return jax.lax.scan(step, jnp.zeros((64, 64)), x)

    assert "accumulate" not in explain(total)(X).loops[0].fired
    assert_close(optimize(total)(X), total(X))


def test_refused_over_the_memory_budget():
    """The report names the budget."""
    text = reasons(jax.grad(loss), (W, U), X, name="accumulate", memory_budget=1000)
    assert "memory budget of 1000 bytes" in text
    small = optimize(jax.grad(loss), memory_budget=1000)
    expected = jax.grad(loss)((W, U), X)
    assert_close(jax.jit(small)((W, U), X), expected, 1e-4)


def test_infinities_are_kept():
    """A term with an infinite factor: scaling does not go through the sum."""

    def total(k, x):
        def step(c, x_t):
            return c + jnp.outer(x_t, x_t) * k, None

        return jax.lax.scan(step, jnp.zeros((2, 2)), x)[0]

    x = jnp.asarray([[1.0, -1.0], [0.0, 2.0], [jnp.nan, 1.0]])
    for k in (jnp.inf, 0.0, -2.0):
        assert_close(optimize(total)(k, x), total(k, x))


def test_gradient_of_a_rematerialised_step():
    """What was to be computed again is not stored, for weight gradients neither."""

    def loss_of(u, x):
        @jax.checkpoint
        def step(h, x_t):
            h = jnp.tanh(x_t + h @ u)
            return h, h

        return (jax.lax.scan(step, jnp.zeros((4, 64)), x)[1] ** 2).sum()

    told = reasons(jax.grad(loss_of), U, X, name="accumulate")
    assert "jax.checkpoint" in told
    assert explain(jax.grad(loss_of))(U, X).loops[-1].after.held_bytes == 0
    expected = jax.jit(jax.grad(loss_of))(U, X)
    assert_close(jax.jit(optimize(jax.grad(loss_of)))(U, X), expected, 1e-4)


def test_weights_joined_before_the_loop_and_split_behind_it():
    """The gradient of gates whose weights are concatenated ends in a split."""

    def loss_of(gates, x):
        def step(h, x_t):
            a, b = jnp.split(h @ jnp.concatenate(gates, 1), 2, 1)
            h = jnp.tanh(a) * jax.nn.sigmoid(b) + x_t
            return h, h

        return (jax.lax.scan(step, jnp.zeros((4, 64)), x)[1] ** 2).sum()

    backward = explain(jax.grad(loss_of))([W, U], X).loops[-1]
    assert "accumulate" in backward.fired
    expected = jax.jit(jax.grad(loss_of))([W, U], X)
    assert_close(jax.jit(optimize(jax.grad(loss_of)))([W, U], X), expected, 1e-4)


def test_the_sum_of_outer_products_with_a_constant_is_one_contraction():
    """The constant is repeated, instead of an outer product for each step."""

    def total(v, x):
        def step(c, row):
            return c + jax.lax.dot_general(jnp.tanh(row), v, (((), ()), ((), ()))), None

        return jax.lax.scan(step, jnp.zeros((64, 64), x.dtype), x)[0]

    x = jnp.tile(X[0], (5, 1))
    program = jax.make_jaxpr(optimize(total))(W[0], x)
    sizes = [v.aval.size for e in program.eqns for v in e.outvars]
    assert max(sizes) < 20 * 64 * 64
    assert loop_lengths(optimize(total), W[0], x) == []
    assert_close(optimize(total)(W[0], x), total(W[0], x), 1e-4)


def scaled(weights, xs):
    """A state times a number a term: the slopes of both are inner products."""

    def step(h, x):
        h = jnp.tanh(weights[0] * h + weights[1] * x)
        return h, h

    return jax.lax.scan(step, jnp.zeros(xs.shape[1:]), xs)[1]


def of_numbers(weights, xs):
    """Eight numbers weighed: their slopes are parts of one sum."""

    def step(lags, x):
        y = jnp.tanh(sum(weights[k] * lag for k, lag in enumerate(lags)) + x)
        return (*lags[1:], y), y

    return jax.lax.scan(step, (jnp.zeros(()),) * 8, xs)[1]


def test_inner_products_stay(small_loops_pay):
    """Of a state and what comes back, a number each: rows take longer to store."""
    xs = jax.random.normal(KEYS[2], (20, 64)) / 2
    weights = jnp.array([0.5, 0.3])
    gradient = jax.grad(lambda w, xs: (scaled(w, xs) ** 2).sum())
    outside, inside = operations(optimize(gradient), weights, xs)
    assert inside.count("reduce_sum") == 2
    assert "dot_general" not in outside
    check(scaled, weights, xs, tolerance=1e-4)


def test_inner_products_leave_beside_sums_that_do(small_loops_pay):
    """What both read is stored for the matrix anyway."""

    def step(weights, h, x):
        h = jnp.tanh(x + weights[0] @ h + weights[1] * h)
        return h, h

    def scanned(weights, xs):
        one = functools.partial(step, weights)
        return jax.lax.scan(one, jnp.zeros(xs.shape[1:]), xs)[1]

    xs = jax.random.normal(KEYS[2], (20, 64)) / 2
    weights = jax.random.normal(KEYS[3], (64, 64)) / 16, jnp.array(0.5)
    gradient = jax.grad(lambda w, xs: (scanned(w, xs) ** 2).sum())
    outside, inside = operations(optimize(gradient), weights, xs)
    assert "reduce_sum" not in inside
    assert outside.count("dot_general") == 2
    check(scanned, weights, xs, tolerance=1e-4)


def test_many_products_with_few_rows_leave():
    """Eight parts of one sum want one more row a step: the slope."""
    weights, xs = jnp.full(8, 0.1), X[:, 0, :3].reshape(-1)
    gradient = jax.grad(lambda w, xs: (of_numbers(w, xs) ** 2).sum())
    _, plain = operations(gradient, weights, xs)
    _, inside = operations(optimize(gradient), weights, xs)
    # The derivatives of reading eight weights are pads, put together for one sum.
    assert plain.count("pad") == 8
    assert "pad" not in inside
    assert "concatenate" not in inside
    check(of_numbers, weights, xs, tolerance=1e-4)


def test_few_products_stay():
    """Two numbers' slopes are added up in the loop: rows would cost more."""
    gradient = jax.grad(lambda w, xs: (scaled(w, xs) ** 2).sum())
    weights, xs = jnp.array([0.5, 0.3]), X[:, 0, 0]
    refusal = reasons(gradient, weights, xs, name="accumulate")
    assert "costs more than adding them in the loop" in refusal
    check(scaled, weights, xs, tolerance=1e-4)


def likelihood(weights, x, reverse=False):
    """What is subtracted is a product of the state, and a logarithm of it."""
    w, u = weights

    def step(carry, x_t):
        h, total = carry
        h = jnp.tanh(x_t + h @ u)
        return (h, total - jax.nn.logsumexp(h @ w, axis=-1).sum()), h[0]

    start = jnp.zeros(x.shape[1:]), jnp.ones(())
    (_, total), rows = jax.lax.scan(step, start, x, reverse=reverse)
    return total, rows


@pytest.mark.parametrize("reverse", [False, True])
def test_work_that_a_sum_alone_needs_leaves_with_it(reverse):
    """A step is left with the product of the state; the sum may subtract."""
    function = lambda weights, x: likelihood(weights, x, reverse)
    assert carried_shapes(optimize(function), (W, U), X) == [(4, 64)]
    outside, inside = operations(optimize(function), (W, U), X)
    assert inside.count("dot_general") == 1
    assert not {"exp", "log"} & set(inside)
    assert {"dot_general", "exp", "log"} <= set(outside)
    check(function, (W, U), X, tolerance=1e-4)
    w, u, x = (np.asarray(a, np.float64) for a in (W, U, X))
    h, total, rows = np.zeros((4, 64)), 1.0, {}
    for t in reversed(range(9)) if reverse else range(9):
        h = np.tanh(x[t] + h @ u)
        total -= np.log(np.exp(h @ w).sum(-1)).sum()
        rows[t] = h[0]
    expected = np.asarray(total), np.stack([rows[t] for t in range(9)])
    assert_close(jax.jit(optimize(function))((W, U), X), expected, 1e-4)


def test_a_sum_that_is_subtracted_from_something_else_stays():
    """`x - total` is no sum, and `total - total` none either."""

    def alternating(x):
        step = lambda total, row: (jnp.exp(row @ W) - total, None)
        return jax.lax.scan(step, jnp.zeros((4, 64)), x)[0]

    def nothing(x):
        step = lambda total, row: (total - total, jnp.exp(row @ W))
        return jax.lax.scan(step, jnp.zeros(()), x)

    for function in (alternating, nothing):
        assert "accumulate" not in explain(function)(X).loops[0].fired
        check(function, X, tolerance=1e-4)


def branch(h):
    return jax.lax.cond(h[0, 0] > 0, jnp.sin, jnp.cos, h @ W).sum()


def printed(h):
    y = (h @ W).sum()
    jax.debug.callback(lambda value: None, y, ordered=True)
    return y


@pytest.mark.parametrize("term", [branch, printed])
def test_work_that_must_not_be_batched_stays_with_its_sum(term):
    def summed(x):
        step = lambda c, x_t: (((h := jnp.tanh(x_t + c[0])), c[1] - term(h)), None)
        return jax.lax.scan(step, (jnp.zeros((4, 64)), jnp.zeros(())), x)[0]

    assert carried_shapes(optimize(summed), X) == [(4, 64), ()]
    _, inside = operations(optimize(summed), X)
    assert "dot_general" in inside
    assert_close(jax.jit(optimize(summed))(X), jax.jit(summed)(X))


def test_work_of_a_sum_stays_over_the_memory_budget():
    """The states that it reads would have to be stored."""
    fits = X.nbytes
    function = lambda weights, x: likelihood(weights, x)[0]
    assert carried_shapes(optimize(function, memory_budget=fits), (W, U), X) == [
        (4, 64)
    ]
    small = optimize(function, memory_budget=fits - 1)
    assert carried_shapes(small, (W, U), X) == [(4, 64), ()]
