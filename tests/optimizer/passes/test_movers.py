"""Slices behind what only moves axes are seen as slices of the loop's rows."""

import jax
import jax.numpy as jnp
import pytest

from jscan import optimize
from support.comparing import assert_close
from support.optimizer.loops import check, loop_lengths, stacked_shapes

X = jnp.sin(jnp.arange(20 * 3 * 4.0)).reshape(20, 3, 4)


def rows(x, reverse=False):
    step = lambda h, v: ((h := jnp.tanh(h * 0.5 + v)), h)
    return jax.lax.scan(step, jnp.zeros(x.shape[1:]), x, reverse=reverse)[1]


LAST = {
    "batch major": lambda ys: ys.swapaxes(0, 1)[:, -1],
    "time last": lambda ys: jnp.moveaxis(ys, 0, -1)[..., -1],
    "and a slice of features": lambda ys: ys.swapaxes(0, 1)[:, -1, 1:3],
    "twice moved": lambda ys: ys.swapaxes(0, 1)[None].transpose(2, 0, 1, 3)[-1],
    "one axis of time and batch": lambda ys: ys.reshape(60, 4)[-1],
    "read twice": lambda ys: (ys.swapaxes(0, 1)[:, -1], ys.swapaxes(1, 2)[-1]),
}


@pytest.mark.parametrize("name", LAST)
def test_the_last_row_is_carried(name):
    """No rows are stacked; numbers, derivatives and batches agree."""
    fun = lambda x: LAST[name](rows(x))
    assert (20, 3, 4) in stacked_shapes(fun, X)
    assert (20, 3, 4) not in stacked_shapes(optimize(fun), X)
    if name in ("time last", "twice moved"):
        check(fun, X)
    else:
        assert_close(jax.jit(optimize(fun))(X), jax.jit(fun)(X))


@pytest.mark.parametrize(
    "move",
    [
        lambda ys: ys.reshape(20, 4)[-1],
        lambda ys: ys.squeeze(1)[-1],
        lambda ys: ys.reshape(1, 20, 1, 4)[:, -1],
        lambda ys: ys[:, None, 0][-1],
    ],
    ids=["reshape", "squeeze", "more axes", "a new axis"],
)
def test_axes_of_length_one(move):
    """Taking them away or adding some only moves axes, however it is written."""
    fun = lambda x: move(rows(x))
    assert (20, 1, 4) not in stacked_shapes(optimize(fun), X[:, :1])
    assert_close(jax.jit(optimize(fun))(X[:, :1]), jax.jit(fun)(X[:, :1]))


@pytest.mark.parametrize("reverse", [False, True])
def test_windows_and_strides(reverse):
    """`[:, -3:]` and `[:, ::k]` of batch-major rows, and of reversed loops."""
    wide = jnp.sin(jnp.arange(53 * 2 * 800.0)).reshape(53, 2, 800)
    state = jnp.cos(jnp.arange(1600.0)).reshape(2, 800)

    def every(select):
        def fun(x):
            step = lambda h, v: ((h := jnp.tanh(h * 0.5 + v)), h * v)
            last, ys = jax.lax.scan(step, state, x, reverse=reverse)
            return select(ys.swapaxes(0, 1)), last

        return fun

    first = slice(None, 3) if reverse else slice(-3, None)
    for cut in (first, slice(None, None, 10), slice(2, None, 7), slice(9, 50, 10)):
        fun = every(lambda ys, cut=cut: ys[:, cut])
        assert (53, 2, 800) not in stacked_shapes(optimize(fun), wide)
        assert_close(jax.jit(optimize(fun))(wide), jax.jit(fun)(wide))


def test_gradient_of_every_kth_row_of_a_reversed_loop():
    """The loop of loops runs backwards in both of its loops."""
    wide = jnp.sin(jnp.arange(50 * 3000.0)).reshape(50, 3000)
    loss = lambda f: lambda x: (f(x) ** 3).sum()
    fun = lambda x: rows(x, reverse=True)[1::8]
    assert max(loop_lengths(optimize(fun), wide)) < 50
    faster = jax.jit(jax.grad(loss(optimize(fun))))
    assert_close(faster(wide), jax.jit(jax.grad(loss(fun)))(wide))


REFUSED = {
    "rows are read in full": lambda ys: (ys.swapaxes(0, 1)[:, -1], ys.swapaxes(0, 1)),
    "time and batch are mixed": lambda ys: ys.reshape(60, 4)[-4:],
    "features are split": lambda ys: ys.reshape(20, 3, 2, 2)[-1],
    "a new axis is broadcast": lambda ys: jnp.broadcast_to(ys, (2, 20, 3, 4))[:, -1],
    "the index is not known": lambda ys: ys.swapaxes(0, 1)[:, jnp.argmax(ys[:, 0, 0])],
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_more_than_move_axes_is_left_alone(name):
    """All rows are stacked, and the result is the same."""
    fun = lambda x: REFUSED[name](rows(x))
    assert (20, 3, 4) in stacked_shapes(optimize(fun), X)
    assert_close(jax.jit(optimize(fun))(X), jax.jit(fun)(X))
