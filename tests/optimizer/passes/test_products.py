"""small_dots, products with weights: put together where one product is faster."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jscan import explain, optimize
from jscan._jax.operations import DotSizes
from jscan._optimizer.costs.machines import machine_for
from support.comparing import assert_close
from support.optimizer.loops import (
    carried_shapes,
    check,
    operations,
    stacked_shapes,
)
from support.optimizer.machines import SHIPPED

KEYS = jax.random.split(jax.random.key(0), 6)
WEIGHTS = tuple(jax.random.normal(key, (16, 16), "float32") / 4 for key in KEYS[:4])
X = jax.random.normal(KEYS[4], (9, 12, 16), "float32")
JOINED = "became one product"


def gated(weights, x):
    """Two gates: the backward step adds two products."""
    read, a, b, _ = weights

    def step(h, x_t):
        h = jnp.tanh(x_t @ read + h @ a) * jax.nn.sigmoid(x_t @ read + h @ b)
        return h, h

    return jax.lax.scan(step, jnp.ones((12, 16), "float32"), x)[1]


def loss(weights, x):
    return (gated(weights, x) ** 2).sum()


def test_a_sum_of_products_becomes_one():
    """Forward and backward step: one product each, of the two gates together."""
    gradient = jax.grad(loss)
    outside, inside = operations(optimize(gradient), WEIGHTS, X)
    assert inside.count("dot_general") == 1 + 2  # forward: 12 rows are not merged
    assert inside.count("concatenate") == 1
    # x @ read once a gate; the sums for both gates in one go: read's from x, those of
    # a and b from h.
    assert outside.count("dot_general") == 2 + 2
    assert JOINED in str(explain(gradient)(WEIGHTS, X))


def test_numbers_agree():
    """Value, gradient and batched forms, the optimizer inside and outside."""
    check(gated, WEIGHTS, X, tolerance=1e-4)


def test_second_derivatives_agree():
    """The derivative of a joined sum's loop is taken before it is joined."""

    def total(scale):
        weights = tuple(scale * w for w in WEIGHTS)
        return loss(weights, X)

    plain = jax.hessian(total)(jnp.float32(0.5))
    assert_close(jax.hessian(optimize(total))(jnp.float32(0.5)), plain, 1e-3)
    assert_close(optimize(jax.hessian(total))(jnp.float32(0.5)), plain, 1e-3)


def test_rows_are_stored_side_by_side():
    """Two stacks of 16 columns become one of 32 where only sums read them."""
    shapes = stacked_shapes(optimize(jax.grad(loss)), WEIGHTS, X)
    assert (9, 12, 32) in shapes


def two_products(weights, x, more=lambda h, parts: ()):
    """A linear step that adds two products of the state, and gives out `more`."""
    _, a, b, _ = weights

    def step(h, x_t):
        parts = (jnp.sin(h), jnp.cos(h))
        new = parts[0] @ a + x_t + parts[1] @ b
        return new, (new, more(h, parts))

    return jax.lax.scan(step, jnp.ones((12, 16), "float32"), x)


def test_other_terms_of_the_sum_stay():
    """Rows of a sequence between the products are added as before."""
    _, inside = operations(optimize(two_products), WEIGHTS, X)
    assert inside.count("dot_general") == 1
    check(two_products, WEIGHTS, X, tolerance=1e-4)


def test_rows_that_are_results_stay_apart():
    """What a program returns is not cut out of wider rows."""

    def program(weights, x):
        return two_products(weights, x, lambda h, parts: parts)

    _, inside = operations(optimize(program), WEIGHTS, X)
    assert inside.count("dot_general") == 1
    shapes = stacked_shapes(optimize(program), WEIGHTS, X)
    assert (9, 12, 32) not in shapes
    check(program, WEIGHTS, X, tolerance=1e-4)


def test_some_of_the_pieces_may_be_summed():
    """A weight that meets one gate alone is summed from that gate's columns."""

    def loss(weights, x):
        read, a, b, c = weights

        def step(h, x_t):
            h = jnp.tanh(x_t @ read + h @ a) * jax.nn.sigmoid(x_t @ c + h @ b)
            return h, None

        return jax.lax.scan(step, jnp.ones((12, 16), "float32"), x)[0].sum()

    def one_gate(weights, x):
        frozen = (*weights[:3], jax.lax.stop_gradient(weights[3]))
        return loss(frozen, x)

    for function in (loss, one_gate):
        gradient = jax.grad(function)
        assert JOINED in str(explain(gradient)(WEIGHTS, X))
        got = jax.jit(optimize(gradient))(WEIGHTS, X)
        assert_close(got, jax.jit(gradient)(WEIGHTS, X), 1e-4)


def lagged(weights, x, reverse=False):
    """Three states; two of them meet matrices, and one hands itself to the next."""
    _, a, b, _ = weights

    def step(state, x_t):
        one, two, scale = state
        new = jnp.tanh(one @ a + two @ b + scale * x_t)
        return (new, one, scale * 0.9), new * two

    start = (x[0, 0], jnp.ones(16, "float32"), jnp.float32(1))
    return jax.lax.scan(step, start, x[:, 0], reverse=reverse)


@pytest.fixture
def small_products_are_joined(change_costs):
    """As products of more numbers are: these would be written as sums."""
    change_costs(carried_dot=0, added_vectors=1, small_columns=0, longest_row=0)


@pytest.mark.usefixtures("small_products_are_joined")
@pytest.mark.parametrize("reverse", [False, True])
def test_states_that_meet_matrices_are_carried_as_one(reverse):
    """Of a sum of products with two states: one carry of both, one product a step."""
    function = lambda weights, x: lagged(weights, x, reverse)
    assert carried_shapes(optimize(function), WEIGHTS, X) == [(), (32,)]
    _, inside = operations(optimize(function), WEIGHTS, X)
    assert (inside.count("dot_general"), inside.count("concatenate")) == (1, 1)
    check(function, WEIGHTS, X, tolerance=1e-4)
    _, a, b, _ = (np.asarray(w, np.float64) for w in WEIGHTS)
    rows = np.asarray(X[:, 0], np.float64)
    one, two, scale, products = rows[0], np.ones(16), 1.0, {}
    for t in reversed(range(9)) if reverse else range(9):
        new = np.tanh(one @ a + two @ b + scale * rows[t])
        products[t] = new * two
        one, two, scale = new, one, scale * 0.9
    ends, result = jax.jit(optimize(function))(WEIGHTS, X)
    assert_close(ends, tuple(map(np.float32, (one, two, scale))), 1e-4)
    assert_close(result, np.stack([products[t] for t in range(9)]).astype("f"), 1e-4)


@pytest.mark.usefixtures("small_products_are_joined")
def test_one_state_that_meets_two_matrices_is_not_carried_twice():
    def program(weights, x):
        _, a, b, _ = weights
        turned = lambda h: h @ a + h @ b
        return jax.lax.scan(lambda h, x_t: (turned(h) + x_t, h), x[0, 0], x[:, 0])

    assert carried_shapes(optimize(program), WEIGHTS, X) == [(16,)]
    check(program, WEIGHTS, X, tolerance=1e-4)


def read_twice(weights, x):
    """One of the products has another reader."""
    _, a, b, _ = weights

    def step(h, x_t):
        first = jnp.sin(h) @ a
        new = first + jnp.cos(h) @ b + x_t
        return new * first.mean(), None

    return jax.lax.scan(step, jnp.ones((12, 16), "float32"), x)[0]


def changing_matrix(weights, x):
    """One of the matrices is a row of a sequence."""
    _, a, b, _ = weights

    def step(h, row):
        x_t, scale = row
        return jnp.sin(h) @ a + jnp.cos(h) @ (scale * b) + x_t, None

    rows = (x, jnp.linspace(0.1, 0.2, len(x), dtype="float32"))
    return jax.lax.scan(step, jnp.ones((12, 16), "float32"), rows)[0]


def other_shapes(weights, x):
    """One product has a broadcast row: the sum is of different shapes."""
    _, a, b, _ = weights

    def step(h, x_t):
        return jnp.sin(h) @ a + jnp.cos(h).mean(0, keepdims=True) @ b + x_t, None

    return jax.lax.scan(step, jnp.ones((12, 16), "float32"), x)[0]


def contracts_rows(weights, x):
    """The products sum over the rows of the state, not over its columns."""
    _, a, b, _ = weights
    a, b = a[:12], b[:12]

    def step(h, x_t):
        contract = (((0,), (0,)), ((), ()))
        first = jax.lax.dot_general(jnp.sin(h), a, contract)
        second = jax.lax.dot_general(jnp.cos(h), b, contract)
        return (first + second)[:12] + x_t, None

    return jax.lax.scan(step, jnp.ones((12, 16), "float32"), x)[0]


@pytest.mark.parametrize(
    "program", [read_twice, changing_matrix, other_shapes, contracts_rows]
)
def test_sums_that_stay(program):
    """What is read elsewhere, changes, or has another shape is left as it is."""
    assert JOINED not in str(explain(program)(WEIGHTS, X))
    check(program, WEIGHTS, X, tolerance=1e-4)


def test_three_products_in_a_chain_and_one_beside_it():
    """The order of a sum does not matter for what is found in it."""

    def program(weights, x):
        a, b, c, d = weights

        def step(h, x_t):
            parts = jnp.sin(h), jnp.cos(h), jnp.tanh(h)
            first = x_t + (parts[0] @ a + parts[1] @ b)
            return first + parts[2] @ c, jnp.tanh(h @ d)

        return jax.lax.scan(step, jnp.ones((12, 16), "float32"), x)

    _, inside = operations(optimize(program), WEIGHTS, X)
    assert inside.count("dot_general") == 1  # h @ d leaves the loop
    check(program, WEIGHTS, X, tolerance=1e-4)


def test_sums_over_time_read_the_narrow_operand_first():
    """``dot(x, dz)``, not ``dot(dz, x)``, where `dz` has more columns."""
    wide = jnp.tile(WEIGHTS[0], (1, 4))

    def loss(weights, x):
        read, recur = weights

        def step(h, x_t):
            gates = x_t @ read + h @ recur
            h = jnp.tanh(gates[:, :16] * gates[:, 16:32] + gates[:, 32:48])
            return h, None

        return jax.lax.scan(step, jnp.ones((12, 16), "float32"), x)[0].sum()

    gradient = jax.grad(loss)
    weights = (wide, wide / 2)
    rewritten = jax.jit(optimize(gradient)).lower(weights, X).as_text()
    sums = [line for line in rewritten.splitlines() if "tensor<108x" in line]
    sums = [line for line in sums if "dot_general" in line and "[0] x [0]" in line]
    assert len(sums) == 2
    assert all("(tensor<108x16xf32>, tensor<108x64xf32>)" in line for line in sums)
    got = jax.jit(optimize(gradient))(weights, X)
    assert_close(got, jax.jit(gradient)(weights, X), 1e-4)


def halves(rows, contracted, columns):
    """Two products that are one of so many columns."""
    return [DotSizes(1, rows, contracted, columns // 2)] * 2


def test_large_products_merge_whatever_their_rows():
    """From the size on at which the compiler uses threads; small ones up to 8 rows."""
    machine = machine_for("cpu")
    assert machine.merges(halves(8, 64, 256), 500)
    assert not machine.merges(halves(12, 16, 48), 500)
    assert not machine.merges(halves(2, 256, 768), 500)
    assert machine.merges(halves(2, 256, 1024), 500)
    assert machine.merges(halves(64, 256, 1024), 500)
    assert not machine_for("tpu").merges(halves(64, 256, 1024), 500)


def test_short_loops_put_no_matrices_side_by_side_for_one_row():
    machine, parts = SHIPPED["cpu"], halves(1, 17, 34)
    assert machine.merges(parts, 64)
    assert not machine.merges(parts, 63)
    assert machine.merges(halves(8, 17, 34), 38)


@pytest.mark.parametrize(
    ("rows", "side", "tiny"), [(8, 16, False), (8, 8, True), (8, 20, True)]
)
def test_products_that_are_sums_stay_so(rows, side, tiny):
    """Two that are sums each are merged where the whole is one, too."""
    parts, machine = halves(rows, side, 2 * side), SHIPPED["cpu"]
    one = replace(machine, merges_tiny=False)
    assert one.merges(parts, 500) is tiny
    assert replace(machine, merges_tiny=True).merges(parts, 500)


@pytest.mark.parametrize(
    ("rows", "side", "steps", "joins"),
    [(1, 80, 64, True), (1, 80, 63, False), (1, 50, 64, False), (2, 50, 20, True)],
)
def test_a_sum_of_products_with_vectors_becomes_one_where_that_pays(
    rows, side, steps, joins
):
    machine, parts = SHIPPED["cpu"], [DotSizes(1, rows, side, side)] * 2
    gains, never = (replace(machine, added_vectors=n) for n in (10_000, 0))
    assert gains.joins(parts, steps, carried=False) is joins
    assert gains.joins(parts, steps, carried=True)
    assert never.joins(parts, steps, carried=False) is (rows > 1)
    assert never.joins(parts, steps, carried=True) is (rows > 1)
