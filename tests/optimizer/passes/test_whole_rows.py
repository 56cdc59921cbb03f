"""hoist: a row is read as a whole before a step works on it."""

import jax
import jax.numpy as jnp
import pytest

from jscan import explain, optimize
from jscan._jax.names import JAX_VERSION
from support.comparing import assert_close
from support.optimizer.loops import check, operations, row_parts, row_shapes
from support.optimizer.machines import SHIPPED

ROWS = jax.random.normal(jax.random.key(0), (40, 3, 8), "float32")
LONE = ROWS[:, 0]
U = jax.random.normal(jax.random.key(1), (2, 8), "float32")
W = jax.random.normal(jax.random.key(2), (8, 8), "float32") / 4
WHOLE = "read whole"


@pytest.fixture(autouse=True)
def whole_rows_pay(change_costs):
    """Rows and parts of six and more elements are read whole, on every version."""
    change_costs(cut_rows=0, whole_rows=6)


def _scan(step, xs):
    def both(h, x):
        new = step(h, x)
        return new, new

    first = jax.tree.leaves(xs)[0]
    return jax.lax.scan(both, jnp.zeros(first.shape[1:], first.dtype), xs)[1]


def cell(rows, u):
    """Gates of several rows cut out of a sum with a row of the stack."""
    return row_parts(lambda row, h: jnp.split(row + h @ u, 4, -1), rows)


def fused(x, weights):
    """The same, its product with the inputs in the step as written."""
    w, u = weights
    return row_parts(lambda row, h: jnp.split(row @ w + h @ u, 4, -1), x)


def tanh(xs, w):
    """One function with a tanh."""
    return _scan(lambda h, x: jnp.tanh(h * w[0, 0] + x) * 0.5 + x, xs)


def two_rows(xs, w):
    """Of two sequences: whatever a native loop with a tanh reads is read whole."""
    step = lambda h, x: jnp.tanh(h * w[0, 0]) + x[0] * x[1]
    return _scan(step, (xs, xs + 1))


def network(xs, w):
    """A product with one row is part of the function."""
    return _scan(lambda h, x: jnp.tanh(h @ w + x), xs)


def barriers(fun, *args):
    only = optimize(fun, passes=["hoist", "merge"])  # products stay products
    return operations(only, *args)[1].count("optimization_barrier")


@pytest.mark.parametrize(
    ("fun", "args"),
    [
        (cell, (ROWS, U)),
        (fused, (ROWS, (W, U))),
        (network, (LONE, W)),
        (tanh, (LONE, W)),
        (two_rows, (ROWS, W)),
    ],
)
def test_rows_are_read_whole(fun, args):
    assert barriers(fun, *args) == 1
    assert WHOLE in str(explain(fun, passes=["hoist", "merge"])(*args))
    check(fun, *args)


@pytest.mark.parametrize(
    ("fun", "args"), [(fused, (ROWS, (W, U))), (network, (LONE, W))]
)
def test_higher_derivatives_agree(fun, args):
    xs, weights = args
    loss = lambda f: lambda weights: jnp.sum(jnp.sin(f(xs, weights)))
    plain = jax.jit(jax.hessian(loss(fun)))(weights)
    assert_close(jax.jit(optimize(jax.hessian(loss(fun))))(weights), plain, 1e-4)
    assert_close(jax.jit(jax.hessian(loss(optimize(fun))))(weights), plain, 1e-4)
    change = jax.tree.map(jnp.cos, weights)
    tangent = lambda f: jax.jvp(lambda w: f(xs, w), (weights,), (change,))
    assert_close(tangent(optimize(fun)), tangent(fun))


def test_a_product_of_inputs_leaves_in_one_piece():
    """Its gates are not taken apart: the row is read whole, and then cut."""
    hoisted = optimize(fused, passes=["hoist", "merge"])
    outside, inside = operations(hoisted, ROWS, (W, U))
    assert (outside.count("dot_general"), inside.count("dot_general")) == (1, 1)
    assert row_shapes(optimize(fused), ROWS, (W, U)) == [(40, 3, 8)]


def test_optimizing_twice_reads_a_row_whole_once():
    assert barriers(optimize(cell, passes=["hoist", "merge"]), ROWS, U) == 1


def without_tanh(xs, w):
    """Other functions lose by it in a native loop."""
    return _scan(lambda h, x: jax.nn.sigmoid(h * w[0]) + x, xs)


def matrix_product(xs, w):
    """A product of several rows is a kernel, and reading an uncut row costs nothing."""
    return _scan(lambda h, x: jnp.tanh(h @ w + x), xs)


def cheap_gates(rows, u):
    """Cheap arithmetic beside slices takes less time than a copy of the row."""

    def step(h, row):
        first, second = jnp.split(row + h @ u[:, :8], 2, -1)
        h = (jnp.maximum(first, 0.0) + second)[:, :2]
        return h, h

    return jax.lax.scan(step, jnp.zeros((3, 2), "float32"), rows)[1]


def with_a_sort(xs, w):
    """Whether such a loop is one function is not known."""
    return _scan(lambda h, x: jnp.tanh(jnp.sort(h) + x), xs)


@pytest.mark.parametrize(
    ("fun", "args"),
    [
        (without_tanh, (LONE, W)),
        (matrix_product, (ROWS, W)),
        (cheap_gates, (ROWS, U)),
        (with_a_sort, (LONE, W)),
        (network, (LONE[:, :5], W[:5, :5])),  # small
        (cell, (ROWS[:, :2], U)),  # parts of four
    ],
)
def test_other_rows_are_read_where_they_are_used(fun, args):
    assert barriers(fun, *args) == 0
    assert WHOLE not in str(explain(fun, passes=["hoist", "merge"])(*args))


@pytest.mark.skipif(
    jax.default_backend() != "cpu", reason="what XLA's CPU compiler does is tested"
)
def test_the_compiler_keeps_the_barrier_where_it_is_counted_on():
    """JAX 0.10 drops it before it fuses: `costs/machines.py` must know which does."""

    def two(x):
        first = jax.lax.optimization_barrier(jnp.sin(x) + 1)
        return jnp.cos(first) * 2

    text = jax.jit(two).lower(LONE).compile().as_text() or ""
    kernels = text[text.index("ENTRY") :].count(" fusion(")
    if SHIPPED["cpu"].whole_rows:
        assert kernels == 2
    elif JAX_VERSION < (0, 11):  # 0.11 keeps it as well, and gains by it less often
        assert kernels == 1
