"""small_dots and unroll: the last passes, for the CPU's compiler."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jscan import explain, optimize
from jscan._optimizer import rewrite
from support.comparing import assert_close
from support.optimizer.loops import check, operations, reasons

A = jnp.eye(4) * 0.9 + jnp.eye(4, k=1) * 0.1
X = jax.random.normal(jax.random.key(5), (80,))


def kalman(a, x):
    def step(state, x_t):
        m, p = state
        p = a @ p @ a.T + 0.1 * jnp.eye(4)
        gain = p[:, 0] / (p[0, 0] + 1)
        m = a @ m
        m = m + gain * (x_t - m[0])
        return (m, p - gain[:, None] * p[0][None, :]), m[0]

    return jax.lax.scan(step, (jnp.zeros(4), jnp.eye(4)), x)[1]


def test_tiny_products_are_written_out():
    """Matrix times matrix, and a matrix times a vector."""
    _, plain = operations(kalman, A, X)
    _, inside = operations(optimize(kalman), A, X)
    assert plain.count("dot_general") == 3
    assert inside.count("dot_general") == 0
    check(kalman, A, X, tolerance=1e-4)


def test_written_out_product_equals_the_product():
    """Batch axes, several contracted axes, any order: against NumPy."""
    left, right = np.random.default_rng(0).normal(size=(2, 2, 3, 4))

    def loop(x, y):
        def step(c, _):
            return jax.lax.dot_general(
                x * c.sum(), y, (((2, 1), (2, 1)), ((0,), (0,)))
            )[:, None] + 0 * c, None

        return jax.lax.scan(step, jnp.ones((2, 1)), length=2)[0]

    once = np.einsum("bij,bij->b", left, right)
    expected = (once * (once * 2).sum())[:, None]
    np.testing.assert_allclose(optimize(loop)(left, right), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("steps", "rows", "stored"), [(9, 2, True), (5, 2, False), (9, 1, False)]
)
def test_transposed_weights_are_stored_once(steps, rows, stored):
    """A backward step reads `u.T`, whose transpose XLA does not hoist.

    In a short loop, or for one row a step, storing it takes longer than it saves.
    """
    u = jnp.eye(32) / 2

    def loss(u, x):
        step = lambda h, x_t: ((h := jnp.tanh(h @ u + x_t)), h)
        return (jax.lax.scan(step, jnp.zeros((rows, 32)), x)[1] ** 2).sum()

    x = jnp.ones((steps, rows, 32))
    report = explain(jax.grad(loss))(u, x)
    assert ("transposed matri" in str(report.loops[-1])) == stored
    assert_close(jax.jit(optimize(jax.grad(loss)))(u, x), jax.grad(loss)(u, x))


def test_products_with_one_left_operand_are_merged():
    """Three gates of a small state are one product inside the loop."""
    u = [jnp.eye(20) / k for k in (2, 3, 4)]

    def cell(u, x):
        def step(h, x_t):
            h = jnp.tanh(h @ u[0] + x_t) * jax.nn.sigmoid(h @ u[1]) + h @ u[2]
            return h, h

        return jax.lax.scan(step, jnp.ones((8, 20)), x)[1]

    x = jnp.ones((5, 8, 20))
    _, inside = operations(optimize(cell), u, x)
    assert inside.count("dot_general") == 1
    check(cell, u, x)


def test_products_of_different_types_stay_two():
    """One product cannot give rows of 32 bits and of 16; it used to fail trying."""
    u = jnp.eye(16, dtype=jnp.bfloat16)

    def cell(u, x):
        def step(h, x_t):
            wide = jnp.dot(h, u, preferred_element_type=jnp.float32)
            h = jnp.tanh(wide).astype(h.dtype) + h @ (2 * u) + x_t
            return h, wide

        return jax.lax.scan(step, jnp.ones((8, 16), u.dtype), x)[1]

    x = jnp.ones((5, 8, 16), u.dtype)
    _, inside = operations(optimize(cell), u, x)
    assert inside.count("dot_general") == 2
    assert "failed" not in str(explain(cell)(u, x))
    assert_close(optimize(cell)(u, x), cell(u, x))


def test_cpu_rules_stay_off_elsewhere():
    """On another platform none of the CPU's rules is applied."""
    closed = jax.make_jaxpr(kalman)(A, X)
    rewritten = rewrite(closed, platform="tpu")
    loops = [e for e in rewritten.jaxpr.eqns if e.primitive.name == "scan"]
    body = loops[0].params["jaxpr"].jaxpr
    assert sum(e.primitive.name == "dot_general" for e in body.eqns) == 3
    assert loops[0].params["unroll"] == 1


def unroll_of(fun, *args, **keywords):
    closed = rewrite(jax.make_jaxpr(fun)(*args), platform="cpu", **keywords)
    return [e.params["unroll"] for e in closed.jaxpr.eqns if e.primitive.name == "scan"]


def recurrence(a, x):
    step = lambda c, x_t: ((c := a * c + x_t), c)
    return jax.lax.scan(step, jnp.zeros((), x.dtype), x)[1]


def test_tiny_steps_are_unrolled():
    """By a factor that fits what a step touches."""
    a = X[0] * 0.5
    assert unroll_of(recurrence, a, X) == [8]
    assert unroll_of(recurrence, a, X[:20]) == [1]
    check(recurrence, a, X)


def test_a_chosen_unroll_is_kept():
    """What the user chose is not changed."""

    def loop(x):
        step = lambda c, x_t: ((c := 0.5 * c + x_t), c)
        return jax.lax.scan(step, jnp.zeros((), x.dtype), x, unroll=2)[1]

    assert unroll_of(loop, X) == [2]


def test_larger_steps_are_repeated_less_often():
    """Eight times, four times for more numbers, and short arrays count in bytes."""

    def lags(xs, weights):
        def step(past, x):
            new = x + sum(w * p for w, p in zip(weights, past, strict=True))
            return (new, *past[:-1]), new

        start = (jnp.zeros(xs.shape[1:], xs.dtype),) * len(weights)
        return jax.lax.scan(step, start, xs)[1]

    xs, short = jnp.ones(80, jnp.float32), jnp.ones((80, 2), jnp.float32)
    assert unroll_of(functools.partial(lags, weights=(0.5,)), xs) == [8]
    assert unroll_of(functools.partial(lags, weights=(0.2,) * 5), xs) == [4]
    assert unroll_of(functools.partial(lags, weights=(0.5,)), short) == [4]
    assert unroll_of(functools.partial(lags, weights=(0.2,) * 5), short) == [4]
    wide = jnp.ones((80, 4), jnp.float32)
    assert unroll_of(functools.partial(lags, weights=(0.2,) * 5), wide) == [1]
    for size in (1, 5):
        check(functools.partial(lags, weights=(0.2,) * size), xs)


def test_numbers_of_a_constant_array_do_not_count():
    """A step that indexes its weights is as tiny as one that holds them."""

    def indexed(weights, xs):
        def step(past, x):
            new = x + weights[0] * past[0] + weights[1] * past[1]
            return (new, past[0]), new

        return jax.lax.scan(step, (jnp.float32(0),) * 2, xs)[1]

    weights, xs = jnp.float32([0.5, 0.2]), jnp.ones(84, jnp.float32)
    assert unroll_of(indexed, weights, xs)[0] > 1
    check(indexed, weights, xs)


def _one_step_of(make):
    def loop(xs):
        step = lambda c, x: ((c := make(c, x)), c)
        return jax.lax.scan(step, jnp.zeros(xs.shape[1:], xs.dtype), xs)[1]

    return loop


def _many_rows(xs):
    def step(state, rows):
        states = [state := 0.5 * state + row for row in rows]
        return state, states

    start = jnp.zeros((), xs.dtype)
    return jax.lax.scan(step, start, [jnp.roll(xs, n) for n in range(5)])[1]


@pytest.mark.parametrize(
    ("loop", "shape", "reason"),
    [
        (_one_step_of(lambda c, x: c + x), (80, 64), "bytes, several pay up to"),
        (_one_step_of(lambda c, x: c + x.sum() * c.max()), (80, 4), "more than"),
        (_one_step_of(lambda c, x: jnp.tanh(c + x)), (80,), "tanh, which outweighs"),
        (_one_step_of(lambda c, x: c + x), (63,), "63 steps are too few"),
        (_many_rows, (80,), "10 rows, 4 steps more than 32"),
    ],
)
def test_unroll_says_why_not(loop, shape, reason):
    """A large step, one that is more than arithmetic, a slow one, few, many rows."""
    assert reason in reasons(loop, jnp.ones(shape), name="unroll")
    assert unroll_of(loop, jnp.ones(shape)) == [1]


def _cell(rows, wide):
    """A network's step: the state times a matrix, and a nonlinear function of it."""

    def loop(matrix, xs):
        step = lambda h, x: ((h := jnp.tanh(h @ matrix + x)), h)
        return jax.lax.scan(step, jnp.zeros((rows, wide), xs.dtype), xs)[1]

    matrix = 0.3 * jax.random.normal(jax.random.key(1), (wide, wide))
    return loop, (matrix, jax.random.normal(jax.random.key(2), (6, rows, wide)))


@pytest.mark.parametrize(
    ("rows", "wide", "products", "barriers"),
    [
        (8, 8, 0, 0),
        (8, 16, 0, 1),
        (4, 24, 0, 1),
        (8, 24, 1, 0),
        (1, 24, 0, 0),
        (1, 25, 1, 0),
    ],
)
def test_larger_products_are_summed_behind_a_barrier(rows, wide, products, barriers):
    """What reads the sum may not do it again; larger ones stay."""
    loop, arguments = _cell(rows, wide)
    _, inside = operations(optimize(loop), *arguments)
    assert inside.count("dot_general") == products
    assert inside.count("optimization_barrier") == barriers
    check(loop, *arguments)


@pytest.mark.parametrize(
    ("high", "wide", "axis", "stays"),
    [(5, 7, 0, 0), (24, 25, 0, 0), (25, 25, 0, 1), (12, 15, 1, 0), (12, 16, 1, 1)],
)
def test_a_matrix_times_a_vector(high, wide, axis, stays):
    """Rows that are added up may be longer than rows that are each a sum."""
    matrix = jax.random.normal(jax.random.key(3), (high, wide)) / 5

    def loop(matrix, start):
        def step(v, _):
            numbers = jnp.sin(v[: matrix.shape[axis]])
            product = jnp.tensordot(matrix, numbers, ((axis,), (0,)))
            return v + jnp.resize(product, v.shape), product

        return jax.lax.scan(step, start, None, length=5)

    start = jnp.linspace(-1.0, 1.0, high + wide)
    _, inside = operations(optimize(loop), matrix, start)
    assert inside.count("dot_general") == stays
    check(loop, matrix, start)


def test_beside_a_larger_product_one_with_a_vector_stays():
    """The step is no one function then, and a call is as fast as a sum."""
    large, small = jnp.eye(40) / 2, jnp.ones((8, 8)) / 9

    def loop(matrices, start):
        def step(v, _):
            v = jnp.tanh(v @ matrices[0])
            return v, v[:8] @ matrices[1]

        return jax.lax.scan(step, start, None, length=5)

    start = jnp.linspace(-1.0, 1.0, 40)
    _, inside = operations(optimize(loop, passes=["small_dots"]), (large, small), start)
    assert inside.count("dot_general") == 2
    check(loop, (large, small), start)


def test_steps_that_are_left_over_cost_more_than_short_loops_gain():
    """They run by themselves: a factor that leaves none, or a long loop."""
    numbers = functools.partial(unroll_of, recurrence, X[0] * 0.5)
    whole = (80, 8), (84, 4), (85, 5), (91, 7), (201, 3)
    for steps, factor in (*whole, (83, 1), (997, 1), (1001, 8), (1004, 8)):
        assert numbers(jnp.ones(steps)) == [factor], steps
    left = "iterations of 8 leave 3 of 83 steps, which several threads would run"
    assert left in reasons(recurrence, X[0], jnp.ones(83), name="unroll")
    for steps in (84, 85, 91):
        check(recurrence, X[0] * 0.5, jnp.ones(steps))


def test_steps_of_many_arrays_leave_none_over():
    """A thread is woken for more than eight operations beside each other."""

    def loop(w, ys):
        def step(state, y):
            a, b, total = state
            off = y - w[0] * a - w[1] * b
            return (y, off, total + off**2), (off, a * b, a + b, off - a)

        return jax.lax.scan(step, (w[0], w[1], w[2]), ys)

    w = jnp.array([0.3, -0.2, 0.1], jnp.float32)
    for steps, factor in ((300, 4), (301, 1), (303, 3), (307, 1)):
        ys = jnp.linspace(-1.0, 1.0, steps, dtype=jnp.float32)
        assert unroll_of(loop, w, ys) == [factor], steps
    check(loop, w, jnp.linspace(-1.0, 1.0, 303, dtype=jnp.float32))


def test_short_arrays_are_repeated_where_much_is_done_with_them():
    """Nine operations on pairs are; a few on six, and nine on rows of four, are not."""

    def cross(xs):
        def step(state, x):
            a, b = state
            a, b = 0.9 * a + 0.1 * b, 0.9 * b - 0.1 * a + x
            return (a, b), a * b

        return jax.lax.scan(step, (xs[0], xs[0]), xs)[1]

    few = _one_step_of(lambda c, x: 0.9 * c + x)
    for loop, size, factor in ((cross, 2, 4), (few, 6, 1), (cross, 4, 1)):
        xs = jnp.ones((80, size), jnp.float32)
        assert unroll_of(loop, xs) == [factor], size
        check(loop, xs)


@pytest.mark.parametrize(
    ("high", "wide", "others", "stored"),
    [
        (64, 30, 0, True),
        (30, 64, 0, False),  # long rows
        (48, 48, 0, False),  # not more results than numbers in a row
        (256, 128, 0, False),
        (20, 28, 0, True),  # so small that it is written as a sum
        (48, 48, 1, True),  # to be put together with the other
    ],
)
def test_long_rows_are_multiplied_as_they_lie(high, wide, others, stored):
    """A vector times a transposed matrix, on which both versions agree."""

    def loop(x, *w):
        def step(h, row):
            rows = (((0,), (1,)), ((), ()))
            new = [jax.lax.dot_general(h[:wide], m, rows) for m in w]
            return jnp.tanh(jnp.resize(sum(new), h.size) + row), None

        return jax.lax.scan(step, x[0], x)[0]

    w = [jnp.ones((high, wide), jnp.float32) / n for n in range(9, 10 + others)]
    x = jnp.ones((300, max(high, wide)), jnp.float32)
    assert ("transposed matri" in str(explain(loop)(x, *w))) == stored


def _stays(step, size):
    """Whether the products of a step with a square matrix are left as they are."""
    w = jax.random.normal(jax.random.key(0), (size, size), "float32") / size**0.5
    x = jnp.ones((40, size), "float32")

    def loop(w, x):
        return jax.lax.scan(lambda h, row: (step(w, h, row),) * 2, x[0], x)[1]

    _, inside = operations(optimize(loop), w, x)
    assert_close(optimize(loop)(w, x), loop(w, x), 1e-4)
    return "dot_general" in inside


def _gates(w, h, x):
    z = jax.nn.sigmoid(h @ w + x)
    return z * h + (1 - z) * jnp.tanh((h * x) @ w)


APART = {
    "one instruction for all": (lambda w, h, x: jnp.tanh(h @ w + x), 8, False),
    "and a rest": (lambda w, h, x: jnp.tanh(h @ w + x), 12, True),
    "and a long rest": (lambda w, h, x: jnp.tanh(h @ w + x), 20, False),
    "another function": (lambda w, h, x: jax.nn.sigmoid(h @ w + x), 12, False),
    "few of it": (lambda w, h, x: jax.nn.sigmoid(h @ w + x), 6, True),
    "few, and no function": (lambda w, h, x: 0.5 * (h @ w) + x, 6, False),
    "a function beside it": (lambda w, h, x: (h @ w) * jnp.tanh(h + x), 12, True),
    "number by number": (lambda w, h, x: jnp.sin(h @ w + x), 20, True),
    "functions that meet": (_gates, 20, True),
    "sums that are added": (
        lambda w, h, x: jnp.tanh(h @ w + (h * x) @ w),
        20,
        False,
    ),
    "one after the other": (
        lambda w, h, x: jnp.tanh(jnp.tanh(h @ w) @ w + x),
        20,
        False,
    ),
    "reduced": (lambda w, h, x: (e := jnp.exp(x) * (h @ w)) / e.sum(), 12, False),
    "more than fits into registers": (lambda w, h, x: jnp.abs(h @ w + x), 33, True),
}


@pytest.mark.parametrize("name", APART)
def test_a_product_beside_functions(name):
    """What reads a sum is computed number by number, unless it is one instruction."""
    step, size, stays = APART[name]
    assert _stays(step, size) == stays


def test_rows_that_are_worked_out_again_are_so_four_times_at_most():
    """The compiler starts each row of an iteration where the iteration starts."""

    def falls(handed, xs):
        def step(state, x):
            level, peak, worst = state
            peak = jnp.maximum(peak, level := level + 0.9 * x)
            state = level, peak, jnp.maximum(worst, peak - level)
            return state, state[handed] if handed else None

        return jax.lax.scan(step, (jnp.zeros((), xs.dtype),) * 3, xs)

    inner, ends = functools.partial(falls, 2), functools.partial(falls, 0)
    xs, odd = (jnp.sin(jnp.arange(n, dtype="float32")) for n in (80, 847))
    assert unroll_of(inner, xs) == [4]
    assert unroll_of(inner, odd) == [1]  # 847 are 7 times 121
    assert unroll_of(ends, xs) == [8]
    assert unroll_of(ends, odd) == [7]
    check(inner, xs)
