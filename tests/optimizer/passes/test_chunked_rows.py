"""save_memory: of a loop in chunks, rows that are not read take no memory."""

import jax
import jax.numpy as jnp
import pytest

import jscan
from jscan import explain, optimize
from support.comparing import assert_close
from support.stops import temporary_bytes

WIDE = 4
W = jax.random.normal(jax.random.key(0), (WIDE, WIDE)) / 2

READS = {
    "last": lambda ys: ys[-1],
    "first": lambda ys: ys[0],
    "middle": lambda ys: ys[9],
    "three in one chunk": lambda ys: ys[-3:],
    "over chunks": lambda ys: ys[-8:],
    "strided": lambda ys: ys[::9],
    "two rows": lambda ys: ys[-1] * ys[2],
    "last and all": lambda ys: ys[-1] + ys.sum(0),
    "batch-major": lambda ys: ys.swapaxes(0, 1)[:, -1],
    "part of the last": lambda ys: ys[-1, 1:],
    "as a row": lambda ys: jnp.concatenate([ys, ys])[-1:],
}
CHUNKS = [(28, 7), (31, 7), (30, "sqrt"), (100, "recursive"), (75, "recursive")]


def rows(w, xs, checkpoint=None, **options):
    """The state and a map output, side by side."""

    def step(x, h, w):
        new = jnp.tanh(h @ w + x)
        return [new, new * x]

    info = [jnp.ones(WIDE), None]
    (h, y), _ = jscan.scan(step, xs, info, w, checkpoint=checkpoint, **options)
    return jnp.concatenate([h, y], 1)


def by_hand(w, xs):
    def step(h, x):
        new = jnp.tanh(h @ w + x)
        return new, jnp.concatenate([new, new * x])

    return jax.lax.scan(step, jnp.ones(WIDE), xs)[1]


def loss(read, loop, **options):
    return lambda w, xs: (read(loop(w, xs, **options)) ** 2).sum()


def sequence(length):
    return jax.random.normal(jax.random.key(1), (length, WIDE))


def compare(read, length, checkpoint, transform=lambda f: f):
    """Value and gradients beside those of a loop without chunks."""
    both = lambda f: transform(jax.value_and_grad(f, (0, 1)))
    chunked = loss(read, rows, checkpoint=checkpoint)
    xs, expected = sequence(length), both(loss(read, by_hand))
    assert_close(jax.jit(optimize(both(chunked)))(W, xs), expected(W, xs))
    return xs, both, chunked, expected


@pytest.mark.parametrize("read", READS)
def test_reads(read):
    compare(READS[read], 31, 7)


@pytest.mark.parametrize(("length", "checkpoint"), CHUNKS)
def test_chunks(length, checkpoint):
    xs, both, chunked, expected = compare(READS["last"], length, checkpoint)
    assert_close(jax.jit(both(optimize(chunked)))(W, xs), expected(W, xs))


def test_batches_and_second_derivatives():
    batched = lambda f: jax.vmap(f, (None, 0))
    xs = jnp.stack([sequence(31), -sequence(31)])
    both = lambda f: batched(jax.value_and_grad(f))
    chunked = loss(READS["last"], rows, checkpoint=7)
    expected = both(loss(READS["last"], by_hand))(W, xs)
    assert_close(jax.jit(optimize(both(chunked)))(W, xs), expected)
    curved = lambda f: jax.jvp(jax.grad(f), (W, xs[0]), (W, xs[1]))
    expected = curved(loss(READS["last"], by_hand))
    assert_close(jax.jit(optimize(lambda: curved(chunked)))(), expected)


# ------------------------------------------------------------------------------ memory

T, UNITS = 4096, 64
WEIGHT = jnp.eye(UNITS) / 2


def cell(h, w):
    return jnp.tanh(h @ w + 0.1)


def two_levels(w):
    """The least there is: the state before each of 64 chunks, and one chunk's steps."""
    inner = lambda h: jax.lax.scan(lambda h, _: (cell(h, w), None), h, length=64)[0]
    outer = lambda h, _: (jax.checkpoint(inner)(h), None)
    return (jax.lax.scan(outer, jnp.ones(UNITS), length=T // 64)[0] ** 2).sum()


def long_loop(w, checkpoint, read=READS["last"]):
    start = jnp.ones(UNITS)
    ys, _ = jscan.scan(cell, None, start, w, n_steps=T, checkpoint=checkpoint)
    return (read(ys) ** 2).sum()


def reduced(w, checkpoint):
    step, start = lambda _, h, w: cell(h, w), jnp.ones(UNITS)
    last, _ = jscan.reduce(step, jnp.zeros(T), start, w, checkpoint=checkpoint)
    return (last**2).sum()


def nested_by_hand(w):
    """Rows stacked by two loops of JAX and put side by side."""

    def step(h, _):
        return (new := cell(h, w)), new

    inner = lambda h: jax.lax.scan(step, h, length=64)
    outer = lambda h, _: jax.checkpoint(inner)(h)
    ys = jax.lax.scan(outer, jnp.ones(UNITS), length=T // 64)[1]
    return (ys.reshape(T, UNITS)[-1] ** 2).sum()


def in_function(w, checkpoint):
    weight = jscan.shared(w)
    cost = lambda: long_loop(weight.value, checkpoint)
    train = jscan.function(lambda: {weight: weight - jscan.grad(cost, weight)})
    return temporary_bytes(train.lower().compile())


def temporary(fun, *args):
    return temporary_bytes(jax.jit(fun).lower(*args).compile())


def test_memory_of_the_last_row():
    """Beside the least there is, and beside the rows that nobody reads."""
    least, all_rows = temporary(jax.grad(two_levels), WEIGHT), T * WEIGHT[0].nbytes
    root = lambda w: long_loop(w, "sqrt")
    ways = {
        "gradient": optimize(jax.grad(root)),
        "of a loop that was optimized": jax.grad(optimize(root)),
        "by hand": optimize(jax.grad(nested_by_hand)),
        "reduce": jax.grad(lambda w: reduced(w, "sqrt")),
    }
    taken = {name: temporary(way, WEIGHT) for name, way in ways.items()}
    taken["function"] = in_function(WEIGHT, "sqrt")
    assert all(size < 2 * least for size in taken.values()), (taken, least)
    assert 2 * least < all_rows / 4
    # What it takes where the whole program is not seen, and where all rows are read.
    assert temporary(jax.grad(root), WEIGHT) > all_rows
    whole = lambda w: long_loop(w, "sqrt", read=lambda ys: ys)
    assert temporary(optimize(jax.grad(whole)), WEIGHT) > all_rows


def test_memory_of_many_levels():
    recursive = optimize(jax.grad(lambda w: long_loop(w, "recursive")))
    deep = jax.grad(lambda w: reduced(w, "recursive"))
    assert temporary(recursive, WEIGHT) < 1.5 * temporary(deep, WEIGHT)
    assert temporary(deep, WEIGHT) < temporary(jax.grad(two_levels), WEIGHT)


def test_the_report_says_so():
    text = str(explain(jax.grad(lambda w: long_loop(w, 64)))(WEIGHT))
    assert "1 sequence of one row padded in the step" in text
    assert "only the last of 64 rows of float64[64] is kept" in text
