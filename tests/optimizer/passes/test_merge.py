"""merge: nothing is carried, read or computed twice, or in vain."""

import jax
import jax.numpy as jnp

from jscan import explain, optimize
from support.comparing import assert_close
from support.optimizer.loops import check, operations, stacked_shapes

X = jax.random.normal(jax.random.key(4), (6, 3))


def fired(fun, *args):
    return " ".join(n.text for n in explain(fun)(*args).loops[0].notes if n.fired)


def test_constant_carry():
    """The backward loop of a sum carries a derivative that never changes."""

    def total(w, x):
        step = lambda c, v: (c + jnp.sin(w * v), None)
        return jax.lax.scan(step, jnp.zeros(3), x)[0].sum()

    report = explain(jax.grad(total))(X[0], X)
    assert "1 carry that never changes" in str(report)
    check(total, X[0], X)


def test_dead_carries_feeding_each_other():
    """Two carries that only read each other go together."""

    def loop(x):
        step = lambda c, v: ((c[0] + v, c[2] * 2, c[1] + 1), c[0])
        return jax.lax.scan(step, (jnp.zeros(3), X[0], X[1]), x)[1]

    assert "2 carries that nothing reads" in fired(loop, X)
    assert len(stacked_shapes(optimize(loop), X)) == 2
    check(loop, X)


def test_equal_carries_and_sequences():
    """The same start and update, the same array passed twice."""

    def loop(a, x):
        def step(c, v):
            new = jnp.tanh(c[0] + c[1] + v[0] * v[1])
            return (new, new), new

        return jax.lax.scan(step, (a, a), (x, x))

    text = fired(loop, X[0], X)
    assert "1 sequence passed twice" in text
    assert "1 carry equal to another" in text
    check(loop, X[0], X)


def test_swapped_carries_stay():
    """Swapping state between two carries is not a duplicate."""

    def loop(a, x):
        step = lambda c, v: ((c[1], c[0] + v), c[0])
        return jax.lax.scan(step, (a, a * 2), x)

    check(loop, X[0], X)


def test_counter_makes_indexed_reads_sequence_work():
    """`x[i] @ w` with a carried `i` is done for all steps at once."""
    w = jnp.ones((3, 3)) / 3

    def loop(w, x):
        body = lambda i, a: jnp.tanh(a + x[i] @ w)
        return jax.lax.fori_loop(0, 6, body, jnp.zeros(3))

    _, inside = operations(optimize(loop), w, X)
    assert "dot_general" not in inside
    check(loop, w, X)


def test_counter_wraps_as_the_carry_did():
    """Integer overflow is that of the loop, the last value included."""

    def loop(start):
        step = lambda i, _: (i + 2_000_000_000, i)
        return jax.lax.scan(step, start, length=5, reverse=True)

    start = jnp.int32(7)
    assert_close(optimize(loop)(start), loop(start))


def test_literals_and_repeated_outputs():
    """Literals as outputs and carries, one value returned twice, inputs as outputs."""

    def loop(a, x):
        step = lambda c, v: ((c[0] + v, jnp.float32(1.0)), (v, v, a, 2.0, c[0], c[0]))
        start = (jnp.zeros(3), jnp.float32(0.0))
        (total, _), rows = jax.lax.scan(step, start, x)
        return total, rows

    plain = loop(X[0], X)
    assert_close(jax.jit(optimize(loop))(X[0], X), plain)
