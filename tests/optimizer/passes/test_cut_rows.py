"""hoist: rows that a step cuts up are cut for all steps at once."""

import jax
import jax.numpy as jnp
import pytest

from jscan import explain, optimize
from support.comparing import assert_close
from support.optimizer.loops import (
    check,
    loop_lengths,
    operations,
    reasons,
    row_parts,
    row_shapes,
)

ROWS = jax.random.normal(jax.random.key(0), (40, 3, 8), "float32")
U = jax.random.normal(jax.random.key(1), (2, 8), "float32")
CUT = "are cut into"


@pytest.fixture(autouse=True)
def parts_pay(change_costs):
    """Parts of six and more elements are cut before the loop, on every version."""
    change_costs(cut_rows=6, whole_rows=0)


def cell(rows, u):
    """Four gates, of which the part that the inputs give was computed beforehand."""
    return row_parts(lambda row, h: jnp.split(row + h @ u, 4, -1), rows)


def direct(rows, u):
    """The same, cutting the row itself."""

    def parts(row, h):
        product = h @ u
        cut = lambda value, k: value[..., 2 * k : 2 * k + 2]
        return [cut(row, k) + cut(product, k) for k in range(4)]

    return row_parts(parts, rows)


@pytest.mark.parametrize("fun", [cell, direct])
def test_rows_are_cut_before_the_loop(fun):
    """Four stacks of parts are read, and the wide one is not."""
    assert row_shapes(optimize(fun), ROWS, U) == [(40, 3, 2)] * 4
    outside, inside = operations(optimize(fun), ROWS, U)
    assert (outside.count("slice"), inside.count("slice")) == (4, 4)  # 4 of `h @ u`
    assert CUT in str(explain(fun)(ROWS, U))
    check(fun, ROWS, U)


def test_higher_derivatives_agree():
    """In both orders; the value and gradients are `check`'s."""
    loss = lambda f: lambda u: jnp.sum(jnp.sin(f(ROWS, u)))
    plain = jax.jit(jax.hessian(loss(cell)))(U)
    assert_close(jax.jit(optimize(jax.hessian(loss(cell))))(U), plain, 1e-4)
    assert_close(jax.jit(jax.hessian(loss(optimize(cell))))(U), plain, 1e-4)
    tangent = lambda f: jax.jvp(lambda u: f(ROWS, u), (U,), (jnp.cos(U),))
    assert_close(tangent(optimize(cell)), tangent(cell))


def test_a_reversed_loop_reads_its_parts_in_the_same_order():
    fun = lambda rows, u: row_parts(
        lambda row, h: jnp.split(row + h @ u, 4, -1), rows, reverse=True
    )
    assert row_shapes(optimize(fun), ROWS, U) == [(40, 3, 2)] * 4
    check(fun, ROWS, U)


def test_parts_may_overlap_or_leave_some_out():
    def fun(rows, u):
        parts = lambda row, h: [row[..., k : k + 2] + h * u[0, k] for k in (0, 1, 4, 5)]
        return row_parts(parts, rows)

    assert row_shapes(optimize(fun), ROWS, U) == [(40, 3, 2)] * 4
    check(fun, ROWS, U)


def read_whole_as_well(rows, u):
    """The row is summed beside being cut."""
    parts = lambda row, h: [p + row.sum() for p in jnp.split(row + h @ u, 4, -1)]
    return row_parts(parts, rows)


def part_in_a_product(rows, u):
    """One part goes into a product, for which XLA copies it in any case."""

    def parts(row, h):
        first, second, third, fourth = jnp.split(row, 4, -1)
        return [first + h, second + h, third + h, fourth @ (h.T @ h) + u[0, 0]]

    return row_parts(parts, rows)


def strided(rows, u):
    """Every second element is not a part side by side."""
    parts = lambda row, h: [row[..., k : k + 3 : 2] + h * u[0, 0] for k in range(4)]
    return row_parts(parts, rows)


def cheap(rows, u):
    """The copies would take longer than arithmetic that is not vectorised."""

    def step(h, row):
        h = h * row[:, :4] * u[0, 0] + row[:, 4:]
        return h, h

    return jax.lax.scan(step, jnp.zeros((3, 4), "float32"), rows)[1]


@pytest.mark.parametrize("fun", [read_whole_as_well, strided, cheap])
def test_rows_that_are_read_otherwise_stay(fun):
    assert row_shapes(optimize(fun), ROWS, U)[0] == (40, 3, 8)
    assert CUT not in str(explain(fun)(ROWS, U))


def test_a_part_that_a_product_reads_keeps_the_row():
    assert CUT not in str(explain(part_in_a_product)(ROWS, U))


def test_small_parts_stay():
    """Two elements each: a step reads them as fast in place."""
    rows = ROWS[:, :1]
    assert row_shapes(optimize(cell), rows, U) == [(40, 1, 8)]


def test_few_steps_stay():
    assert row_shapes(optimize(cell), ROWS[:31], U) == [(31, 3, 8)]


def test_refused_over_the_memory_budget():
    """All parts take as much as the rows: 40 * 24 * 4 bytes."""
    fits = 40 * 24 * 4
    assert row_shapes(optimize(cell, memory_budget=fits), ROWS, U) == [(40, 3, 2)] * 4
    little = fits - 1
    assert row_shapes(optimize(cell, memory_budget=little), ROWS, U) == [(40, 3, 8)]
    told = reasons(cell, ROWS, U, name="hoist", memory_budget=little)
    assert f"their parts would take {fits} bytes" in told


def test_a_rematerialised_loop_stores_no_parts():
    """What `jax.checkpoint` was asked not to store is not stored by us either."""

    def fun(rows, u):
        parts = lambda row, h: [jnp.tanh(p) for p in jnp.split(row + h @ u, 4, -1)]
        return row_parts(jax.checkpoint(parts, prevent_cse=False), rows)

    gradient = jax.grad(lambda rows: fun(rows, U).sum())
    told = reasons(gradient, ROWS, name="hoist")
    assert "rows are cut in the step" in told
    assert "jax.checkpoint" in told
    check(fun, ROWS, U)


def test_off_with_its_pass():
    plain = optimize(cell, passes=["merge", "unroll"])
    assert row_shapes(plain, ROWS, U) == [(40, 3, 8)]
    assert loop_lengths(plain, ROWS, U) == [40]
