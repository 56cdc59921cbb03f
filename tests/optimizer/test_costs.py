"""What does not pay on a CPU stays in the loop, and the report says so."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jscan import explain, optimize
from jscan._jax.names import JAX_VERSION
from jscan._optimizer.costs.machines import machine_for
from support.comparing import assert_close
from support.optimizer.loops import loop_lengths, operations, reasons

pytestmark = [
    pytest.mark.usefixtures("measured_costs"),
    pytest.mark.skipif(
        jax.default_backend() != "cpu", reason="the costs of a CPU are tested"
    ),
]
X = jax.random.normal(jax.random.key(0), (50, 64), "float32")
W = jax.random.normal(jax.random.key(1), (64, 64), "float32") / 8


def test_a_short_map_stays_a_loop():
    """Starting a batch takes longer than the loop; a long one pays."""

    def mapped(x):
        return jax.lax.scan(lambda _, row: (None, jnp.tanh(row)), None, x)[1]

    assert loop_lengths(optimize(mapped), X) == [50]
    assert "us, a batch costs 12 us" in reasons(mapped, X, name="vectorise")
    assert loop_lengths(optimize(mapped), jnp.tile(X, (200, 1))) == []


def likelihood(w, x, y):
    """Of a logistic regression, one row at a time."""

    def step(total, row):
        x, y = row
        return total - jnp.logaddexp(0.0, -y * (x @ w)), None

    return jax.lax.scan(step, jnp.float32(0), (x, y))[0]


def regression(steps):
    return X[0, :3], jnp.tile(X, (120, 1))[:steps, :3], jnp.tile(X[:, 4], 120)[:steps]


def test_a_small_program_stays_in_the_thread_that_calls_it():
    """XLA hands a program of a thousand operations to another one, which sleeps."""
    assert loop_lengths(optimize(likelihood), *regression(257)) == [257]
    assert "us, a batch costs 43 us" in reasons(
        likelihood, *regression(257), name="hoist"
    )
    assert loop_lengths(optimize(likelihood), *regression(6000)) == []


def test_what_another_thread_runs_anyway_may_have_its_batches():
    def beside(*operands):
        return likelihood(*operands), W @ W

    assert loop_lengths(optimize(beside), *regression(257)) == []


@pytest.mark.parametrize("outer", ["scan", "while"])
def test_a_loop_in_a_loop_does_not_hand_over_at_each_step(outer):
    def repeated(w, *rows):
        again = lambda total: total + likelihood(w + total, *rows)
        if outer == "scan":
            step = lambda total, _: (again(total), None)
            return jax.lax.scan(step, jnp.float32(0), None, length=7)[0]
        return jax.lax.while_loop(lambda t: t < 0.0, again, jnp.float32(0))

    lengths = loop_lengths(optimize(repeated), *regression(257))
    assert 257 not in lengths
    got, wanted = optimize(repeated)(*regression(257)), repeated(*regression(257))
    assert_close(got, wanted)


def test_what_functions_cost_depends_on_which_they_are():
    """A sine is not vectorised in a loop, a logistic of wide rows is."""
    x = jnp.tile(X, (10, 4))

    def mapped(function, x):
        return jax.lax.scan(lambda _, row: (None, function(row)), None, x)[1]

    assert loop_lengths(optimize(lambda x: mapped(jnp.sin, x)), x) == []
    assert loop_lengths(optimize(lambda x: mapped(jax.nn.sigmoid, x)), x) == [500]


@pytest.mark.parametrize(
    ("function", "narrow", "wide"),
    [
        (jnp.tanh, 15, 16),
        (jax.nn.sigmoid, 26, 28),
        (lambda row: jnp.log(row + 3.0), 26, 28),
        (jnp.exp, 38, 40),
    ],
    ids=["tanh", "logistic", "log", "exp"],
)
def test_functions_leave_where_the_compiler_writes_them_out(function, narrow, wide):
    """Of few numbers a step, each function from its own number on."""

    def mapped(x):
        return jax.lax.scan(lambda _, row: (None, function(0.5 * row)), None, x)[1]

    for numbers, lengths in ((narrow, []), (wide, [2000])):
        x = jnp.ones((2000, numbers), "float32")
        assert loop_lengths(optimize(mapped), x) == lengths
        assert_close(optimize(mapped)(x), mapped(x))


def test_draws_leave_where_the_compiler_does_not_vectorise_them():
    def drawn(key):
        def step(total, i):
            return total + jax.random.normal(jax.random.fold_in(key, i), (131,)), None

        return jax.lax.scan(step, jnp.zeros(131), jnp.arange(146))[0]

    left = loop_lengths(optimize(drawn), jax.random.key(0))
    assert (146 in left) is (JAX_VERSION >= (0, 11))
    assert_close(optimize(drawn)(jax.random.key(0)), drawn(jax.random.key(0)))


@pytest.mark.parametrize(
    ("function", "steps", "stays"),
    [(jnp.exp, 1000, True), (jnp.exp, 3000, False), (jax.nn.sigmoid, 1000, False)],
    ids=["exp", "exp of many steps", "logistic"],
)
def test_a_function_beside_other_work_gains_less(function, steps, stays):
    """A recurrence reads what is stored, where it had worked it out meanwhile."""

    def recurrence(w, x):
        step = lambda h, row: (0.9 * h + function(w * row), None)
        return jax.lax.scan(step, jnp.zeros_like(w), x)[0]

    w, x = jnp.ones(18, "float32"), jnp.ones((steps, 18), "float32")
    _, inside = operations(optimize(recurrence), w, x)
    assert any(name in inside for name in ("exp", "logistic")) is stays
    assert_close(optimize(recurrence)(w, x), recurrence(w, x))


@pytest.mark.parametrize(
    ("shape", "steps", "leaves"),
    [((), 1000, True), ((4,), 1000, False), ((4,), 4000, True)],
)
def test_draws_of_arrays_start_more_than_those_of_numbers(
    shape, steps, leaves, change_costs
):
    change_costs(batch_start=12_000, drawn_number=0.0, drawn_start=60_000)

    def walk(key):
        def step(at, i):
            at = 0.9 * at + jax.random.normal(
                jax.random.fold_in(key, i), shape, "float32"
            )
            return at, at

        return jax.lax.scan(step, jnp.zeros(shape, "float32"), jnp.arange(steps))[1]

    key = jax.random.key(0)
    _, inside = operations(optimize(walk), key)
    assert ("erf_inv" not in inside) is leaves
    assert_close(optimize(walk)(key), walk(key))


def test_a_sum_of_entries_read_one_by_one_stays():
    """The trace of a matrix: a gather of all entries is slower than reading them."""

    def trace(x):
        step = lambda total, i: (total + x[i, i], None)
        return jax.lax.scan(step, jnp.float32(0), jnp.arange(50))[0]

    assert loop_lengths(optimize(trace), X) == [50]
    assert "adding them in the loop" in reasons(trace, X, name="accumulate")
    assert_close(optimize(trace)(X), trace(X))


def test_bit_shifts_of_the_state_stay():
    """They are as cheap as an addition."""

    def draws(seed):
        def step(state, _):
            state = state ^ (state << np.uint32(13))
            return state, state >> np.uint32(8)

        return jax.lax.scan(step, seed, None, length=100_000)[1]

    _, inside = operations(optimize(draws), jnp.uint32(1))
    assert "shift_right_logical" in inside


def test_outer_products_of_sequences_are_not_stored():
    """Batched, each would be an array of its own in memory."""

    def cell(x):
        def step(state, row):
            state = jnp.tanh(state + jnp.outer(row, row))
            return state, None

        return jax.lax.scan(step, jnp.zeros((64, 64), "float32"), x)[0]

    outside, _ = operations(optimize(cell), X)
    assert "dot_general" not in outside


def test_rows_are_added_to_a_table_in_the_loop():
    """In place, a step costs one row of the gradient's table."""

    def loss(table, rows):
        def step(total, i):
            return total + jax.lax.dynamic_index_in_dim(table, i, 0, False) ** 2, None

        return jax.lax.scan(step, jnp.zeros(64, "float32"), rows)[0].sum()

    rows = jnp.arange(50) % 7
    backward = explain(jax.grad(loss))(X, rows).loops[-1]
    assert "vectorise" not in backward.fired
    gradient = jax.grad(loss)
    assert loop_lengths(optimize(gradient), X, rows) == [50, 50]
    assert_close(optimize(gradient)(X, rows), gradient(X, rows))


@pytest.mark.parametrize(("high", "wide"), [(64, 64), (24, 96), (32, 128)])
def test_a_vector_times_a_small_wide_matrix_stays(high, wide):
    """Where it is most of a short step, as in networks with fused gates (JAX 0.12)."""
    left, back = jnp.tile(W[:high], 2)[:, :wide], jnp.eye(wide, high, dtype="float32")

    def cell(w, x):
        def step(h, row):
            # Three, as one or two small ones stay for another reason.
            read = row @ w + (row * 2) @ w + (row * 3) @ w
            h = jnp.tanh(h @ back @ w + read)
            return h, h

        return jax.lax.scan(step, jnp.zeros((1, wide), "float32"), x)[1]

    longer = jnp.tile(X[:, None, :high], (100, 1, 1))
    outside, inside = operations(optimize(cell), left, longer)
    least, most = machine_for("cpu").whole_dot
    stays = wide > high and least < high * wide <= most
    assert outside.count("dot_general") == (0 if stays else 3)
    assert inside.count("dot_general") == (5 if stays else 2)
    assert_close(optimize(cell)(left, longer), cell(left, longer), 1e-4)


@pytest.mark.parametrize(
    ("high", "wide", "steps", "leaves"),
    [
        (45, 10, 3000, JAX_VERSION < (0, 11)),
        (45, 10, 600, False),  # its threads would wake
        (8, 10, 600, False),
        # The step calls it, and is a function without it; by JAX 0.12 it is one anyway.
        (128, 10, 60, JAX_VERSION < (0, 11)),
        (16, 128, 600, JAX_VERSION < (0, 11)),
    ],
)
def test_a_product_with_a_vector_leaves_where_it_is_slow(high, wide, steps, leaves):
    """Number by number if it is narrow, and by a call if the matrix is large."""

    def cell(w, x):
        step = lambda h, row: ((h := 0.9 * h + jnp.abs(row @ w)), h)
        return jax.lax.scan(step, jnp.zeros(wide, "float32"), x)[1]

    w = jax.random.normal(jax.random.key(2), (high, wide), "float32") / 8
    x = jax.random.normal(jax.random.key(3), (steps, high), "float32")
    _, inside = operations(optimize(cell), w, x)
    assert ("dot_general" not in inside and "reduce_sum" not in inside) == leaves
    assert_close(optimize(cell)(w, x), cell(w, x), 1e-4)


@pytest.mark.parametrize(("function", "steps"), [(jnp.tanh, 1600), (jnp.log, 4000)])
def test_what_wakes_threads_has_to_save_more(function, steps):
    """A logarithm is many operations, so that a batch of it is divided."""
    x = jnp.tile(jnp.abs(X[:, :8]) + 1, (80, 1))

    def mapped(x):
        return jax.lax.scan(lambda _, row: (None, function(row)), None, x)[1]

    assert loop_lengths(optimize(mapped), x[: steps // 4]) == [steps // 4]
    assert loop_lengths(optimize(mapped), x[:steps]) == []


def test_products_of_matrices_leave_as_before():
    """Eight rows at once: a product is a call, and one for all steps is better."""

    def cell(w, x):
        step = lambda h, row: ((h := jnp.tanh(h @ w + row @ w)), h)
        return jax.lax.scan(step, jnp.zeros((8, 64), "float32"), x)[1]

    x = jnp.broadcast_to(X[:, None, :], (50, 8, 64)) * jnp.ones((1, 8, 1), "float32")
    longer = jnp.tile(x, (10, 1, 1))
    outside, inside = operations(optimize(cell), W, longer)
    assert (outside.count("dot_general"), inside.count("dot_general")) == (1, 1)
    few = x[:4]
    _, inside = operations(optimize(cell), W, few)
    assert inside.count("dot_general") == 2
    refusal = reasons(cell, W, few, name="hoist")
    assert "dot_general on sequences stays: over 4 steps it saves" in refusal
    assert "us, a batch costs 12 us" in refusal


def test_an_inner_loop_counts_at_each_of_its_steps():
    """64 loops of 16 steps are worth one loop of 64 rows; 2 of them are not."""

    def nested(x):
        def outer(total, rows):
            step = lambda h, row: (jnp.tanh(h + row), None)
            h = jax.lax.scan(step, jnp.zeros(64, "float32"), rows)[0]
            return total + h, total

        return jax.lax.scan(outer, jnp.zeros(64, "float32"), x)[1]

    x = jnp.tile(X[:16], (64, 1, 1))
    assert loop_lengths(optimize(nested), x) == [16, 64]
    assert loop_lengths(optimize(nested), x[:2]) == [2, 16]
    assert_close(optimize(nested)(x), nested(x))


@pytest.mark.parametrize(("rows", "leaves"), [(32, True), (64, False)])
def test_sums_of_products_with_many_rows_stay(rows, leaves):
    """From 64 rows on a step's product is as fast as a part of a large one."""

    def loss(w, x):
        step = lambda h, row: (jnp.tanh(h @ w + row), None)
        return jax.lax.scan(step, jnp.zeros((rows, 64), "float32"), x)[0].sum()

    x = jnp.ones((200, rows, 64), "float32")
    backward = explain(jax.grad(loss))(W, x).loops[-1]
    assert ("accumulate" in backward.fired) == leaves


@pytest.mark.parametrize(("outputs", "leaves"), [(1, True), (4, False)])
def test_work_stays_where_its_rows_would_make_memory_slow(outputs, leaves):
    """Beyond 32 MiB the system maps the memory of all rows anew at each call."""

    def cell(w, x):
        def step(h, row):
            h = jnp.tanh(h @ w + row @ w)
            return h, tuple(h * k for k in range(2, 2 + outputs))

        return jax.lax.scan(step, jnp.zeros((16, 64), "float32"), x)[1]

    x = jnp.zeros((2048, 16, 64), "float32")  # 8 MiB a stack
    loop = explain(cell)(W, x).loops[0]
    assert ("hoist" in loop.fired) == leaves


def test_a_large_product_with_a_vector_is_a_call_by_the_oldest_alone():
    """What the costs take for granted is what the compiler does."""

    def loop(w, x):
        step = lambda h, row: ((h := jnp.abs(h @ w + row)), h)
        return jax.lax.scan(step, x[0], x)[1]

    w, x = jnp.ones((130, 130), "float32"), jnp.ones((90, 130), "float32")
    text = jax.jit(loop).lower(w, x).compile().as_text() or ""
    called = JAX_VERSION < (0, 11)
    assert ("xla_cpu_small_call" in text) != called
    assert machine_for("cpu").calls_vectors == called


@pytest.mark.parametrize(
    ("high", "wide", "stays"),
    [(30, 20, False), (30, 8, False), (40, 8, True), (40, 20, True), (16, 40, True)],
)
def test_many_rows_are_multiplied_by_a_call(high, wide, stays):
    """As a sum of rows it is slower for long vectors, and for more than 32 columns."""

    def loop(w, x):
        def step(h, row):
            return jnp.tanh(jnp.resize(h @ w, high) + row), None

        return jax.lax.scan(step, x[0], x)[0]

    w, x = jnp.ones((high, wide), "float32") / 99, jnp.ones((90, high), "float32")
    _, inside = operations(optimize(loop), w, x)
    assert ("dot_general" in inside) == stays
