"""save_memory: outputs of which few rows are read are handed out by few steps."""

import jax
import jax.numpy as jnp
import pytest

from jscan import explain, optimize
from support.comparing import assert_close
from support.optimizer.loops import loop_lengths, reasons

A = jnp.linspace(0.5, 0.99, 3000)
X = jnp.sin(jnp.arange(53.0))

SELECTIONS = {
    "last three": lambda ys: ys[-3:],
    "first four": lambda ys: ys[:4],
    "single rows": lambda ys: (ys[5], ys[9:11, 2:7]),
    "every tenth": lambda ys: ys[::10],
    "every seventh from the third": lambda ys: ys[2::7],
    "every tenth, the last of ten": lambda ys: ys[9:50:10],
}


def selected(select, reverse=False, state=True):
    def fun(a, x):
        step = lambda r, v: ((r := r * a + v), jnp.sin(r) * r)
        last, ys = jax.lax.scan(step, jnp.ones_like(a), x, reverse=reverse)
        return (select(ys), last) if state else select(ys)

    return fun


# The state is read in every other one, which decides whether the loop runs on.
@pytest.mark.parametrize(
    ("name", "state"), [(name, i % 2 == 0) for i, name in enumerate(SELECTIONS)]
)
def test_few_rows_are_stored(name, state):
    """Same numbers and derivatives; less than a third of the memory."""
    fun = selected(SELECTIONS[name], state=state)
    before, after = explain(fun)(A, X).temporary_bytes or (0, 0)
    assert before > 53 * 3000 * 4
    assert after < before // 3
    sum_of_squares = lambda f: (
        lambda a, x: sum((leaf**2).sum() for leaf in jax.tree.leaves(f(a, x)))
    )
    plain = jax.jit(lambda a, x: (fun(a, x), jax.grad(sum_of_squares(fun))(a, x)))
    faster = optimize(fun)
    new = jax.jit(lambda a, x: (faster(a, x), jax.grad(sum_of_squares(faster))(a, x)))
    assert_close(new(A, X), plain(A, X), 1e-6)


@pytest.mark.parametrize(
    "name", ["last three", "first four", "single rows", "every tenth"]
)
def test_reversed_loops(name):
    """In a reversed loop the first rows are the last steps."""
    fun = selected(SELECTIONS[name], reverse=True)
    assert max(loop_lengths(optimize(fun), A, X)) < 53
    assert_close(jax.jit(optimize(fun))(A, X), jax.jit(fun)(A, X), 1e-6)


def test_fewer_steps_when_nothing_else_is_read():
    """`ys[:4]` runs four steps."""
    fun = selected(SELECTIONS["first four"], state=False)
    assert loop_lengths(optimize(fun), A, X) == [4]


def test_refusals():
    """Small rows, an output read in full, rows all over, an effect."""
    small = selected(SELECTIONS["last three"])
    assert "bytes of rows, it pays from" in reasons(small, A[:3], X, name="save_memory")
    spread = selected(lambda ys: (ys[0], ys[-1]))
    assert "spread over" in reasons(spread, A, X, name="save_memory")

    def two(a, x):
        step = lambda r, v: ((r := r * a + v), (jnp.sin(r), jnp.cos(r)))
        sines, cosines = jax.lax.scan(step, jnp.ones_like(a), x)[1]
        return sines[-3:], cosines

    assert "read in full" in reasons(two, A, X, name="save_memory")

    def noisy(a, x):
        def step(r, v):
            jax.debug.callback(lambda: None)
            return (r := r * a + v), r

        return jax.lax.scan(step, jnp.ones_like(a), x)[1][-3:]

    assert loop_lengths(optimize(noisy), A, X) == [53]
