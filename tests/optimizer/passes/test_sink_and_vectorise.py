"""sink and vectorise: work that ties no steps together is done for all at once."""

import jax
import jax.numpy as jnp

from jscan import explain, optimize
from support.comparing import assert_close
from support.optimizer.loops import check, loop_lengths, operations, reasons

KEYS = jax.random.split(jax.random.key(2), 3)
X = jax.random.normal(KEYS[0], (10, 3, 8))
V = jax.random.normal(KEYS[1], (8, 5))


def readout(v, x):
    def step(h, x_t):
        h = 0.5 * h + x_t
        return h, jnp.log1p(jnp.exp(h @ v))

    return jax.lax.scan(step, jnp.zeros((3, 8)), x)[1]


def test_readout_leaves_the_loop():
    """The product and what follows it run once, on stacked states."""
    outside, inside = operations(optimize(readout), V, X)
    assert outside.count("dot_general") == 1
    assert not {"dot_general", "exp", "log1p"} & set(inside)
    check(readout, V, X)


def test_sink_refuses_to_stack_much_for_little():
    """One number a step is not worth a stack of the whole state."""

    def small(v, x):
        step = lambda h, x_t: ((h := 0.5 * h + x_t), h[0] @ v[:, 0])
        return jax.lax.scan(step, jnp.zeros((3, 8)), x)[1]

    assert "would stack" in reasons(small, V, X, name="sink")
    _, inside = operations(optimize(small, passes=["sink"]), V, X)
    assert "dot_general" in inside
    assert_close(optimize(small)(V, X), small(V, X))


def test_sink_keeps_effects_in_the_loop():
    """What a print reads stays, and it prints once a step in order."""
    seen = []

    def noisy(v, x):
        def step(h, x_t):
            h = 0.5 * h + x_t
            y = jnp.exp(h @ v)
            jax.debug.callback(lambda a: seen.append(float(a)), h[0, 0], ordered=True)
            return h, y

        return jax.lax.scan(step, jnp.zeros((3, 8)), x)[1]

    expected = jax.jit(noisy)(V, X)
    jax.effects_barrier()
    before = list(seen)
    seen.clear()
    result = jax.jit(optimize(noisy))(V, X)
    jax.effects_barrier()
    assert seen == before
    assert len(seen) == 10
    assert_close(result, expected)


def test_map_loop_disappears():
    """No state: one batched computation, no loop."""

    def mapped(v, x):
        return jax.lax.scan(lambda _, x_t: (None, jnp.tanh(x_t @ v)), None, x)[1]

    assert loop_lengths(optimize(mapped), V, X) == []
    check(mapped, V, X)


def test_map_in_chunks_under_the_budget():
    """Ten steps of intermediates do not fit: chunks of steps, and a remainder."""

    def mapped(v, x):
        step = lambda _, x_t: (None, jnp.cumsum(x_t @ v, axis=0).sum())
        return jax.lax.scan(step, None, x)[1]

    one_step = 2 * 15 * V.dtype.itemsize
    budget = 4 * one_step
    small = optimize(mapped, memory_budget=budget)
    assert loop_lengths(small, V, X)[0] == 2
    assert_close(jax.jit(small)(V, X), mapped(V, X))
    # A chunked loop is not chunked again.
    assert loop_lengths(optimize(small, memory_budget=budget), V, X)[0] == 2
    assert "two steps of 240 bytes do not fit" in reasons(
        mapped, V, X, name="vectorise", memory_budget=one_step
    )


def test_map_with_an_effect_or_a_cond_stays():
    """The reasons say which."""

    def noisy(x):
        def step(_, x_t):
            jax.debug.callback(lambda: None)
            return None, x_t.sum()

        return jax.lax.scan(step, None, x)[1]

    def branching(x):
        step = lambda _, x_t: (None, jax.lax.cond(x_t[0, 0] > 0, jnp.exp, jnp.sin, x_t))
        return jax.lax.scan(step, None, x)[1]

    assert "effect" in reasons(noisy, X, name="vectorise")
    assert "cond" in reasons(branching, X, name="vectorise")
    assert loop_lengths(optimize(branching), X) == [10]


def test_inner_loops_are_rewritten_too():
    """A map of loops becomes one loop of batches, whose own products are hoisted."""

    def nested(v, x):
        def outer(_, x_t):
            step = lambda h, row: ((h := jnp.tanh(h + row @ v)), None)
            return None, jax.lax.scan(step, jnp.zeros(5), x_t)[0]

        return jax.lax.scan(outer, None, x)[1]

    assert loop_lengths(optimize(nested), V, X) == [3]
    _, inside = operations(optimize(nested), V, X)
    assert "dot_general" not in inside
    check(nested, V, X)
    assert len(explain(nested)(V, X).loops) == 2
