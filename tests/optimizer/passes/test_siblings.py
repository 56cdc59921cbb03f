"""merge, across loops: loops that do not need each other run as one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import io_callback

from jscan import explain, optimize
from support.comparing import assert_close
from support.optimizer.loops import check, loop_lengths, operations, stacked_shapes

X = jax.random.normal(jax.random.key(0), (9, 4))
W = jax.random.normal(jax.random.key(1), (4, 4)) / 4


def network(w, x):
    """Made anew by each call, as in a user's model: its step is another function."""

    def step(h, x_t):
        h = jnp.tanh(h @ w + x_t)
        return h, h

    return jax.lax.scan(step, jnp.zeros(4), x * 2)[1]


def decay(rate, x, **options):
    """A small loop: one number is carried."""
    step = lambda c, v: ((c := c * rate + v), c)
    return jax.lax.scan(step, 0.0, x[:, 0], **options)[1]


def peak(x, **options):
    """Another small loop."""
    step = lambda c, v: ((c := jnp.maximum(c, v)), c)
    return jax.lax.scan(step, -jnp.inf, x[:, 0], **options)[1]


def loops(fun, *args, **options):
    return len(loop_lengths(optimize(fun, **options), *args))


def notes(fun, *args):
    """What the report says about merging, as one text a loop."""
    return [
        " ".join(n.text for n in loop.notes if n.pass_name == "merge")
        for loop in explain(fun)(*args).loops
    ]


def test_one_loop_written_twice_runs_once():
    """A forward pass in the value and in a diagnostic: one product a step."""

    def value_and_diagnostic(w, x):
        return (network(w, x)[-1] ** 2).sum(), network(w, x).mean(axis=0)

    assert loops(value_and_diagnostic, W, X) == 1
    _, inside = operations(optimize(value_and_diagnostic), W, X)
    assert inside.count("dot_general") == 1
    # Each use is reduced by itself: the last row and the sum are carried, no rows.
    assert set(stacked_shapes(optimize(value_and_diagnostic), W, X)) == {(4,)}
    check(value_and_diagnostic, W, X)


def test_a_gradient_of_two_copies_has_one_forward_loop():
    """Four loops become three, the optimizer inside or outside of the gradient."""

    def loss(w, x):
        return (network(w, x) ** 2).sum() + jnp.sin(network(w, x)).sum()

    assert len(loop_lengths(jax.grad(loss), W, X)) == 4
    # On some versions the small backward loops join too.
    assert loops(jax.grad(loss), W, X) in (2, 3)
    assert len(loop_lengths(jax.grad(optimize(loss)), W, X)) in (2, 3)
    check(loss, W, X)


def test_copies_of_loops_that_read_each_other():
    """Two layers twice: the second layers are found to be the same as well."""

    def deep(w, x):
        return network(w, network(w, x))

    both = lambda w, x: (deep(w, x)[-1], deep(w, x).sum(axis=0), deep(w, x))
    assert loops(both, W, X) == 2
    check(both, W, X)


def test_the_same_state_with_other_outputs():
    """A loop that carries what another carries joins it, whatever it computes."""

    def both(w, x):
        def step(h, x_t):
            h = jnp.tanh(h @ w + x_t)
            return h, jnp.exp(h) + x_t

        return network(w, x), jax.lax.scan(step, jnp.zeros(4), x * 2)[1]

    assert loops(both, W, X) == 1
    check(both, W, X)


def test_small_loops_run_as_one():
    """Several statistics over the same data; one of them reads only its last state."""

    def statistics(rate, x):
        total = jax.lax.scan(lambda c, v: (c + v * v, None), 0.0, decay(rate, x))[0]
        return decay(rate, x), peak(x), decay(rate * 2, x).max(), total

    rate = X[0, 0]
    assert loops(statistics, rate, X) == 1
    *joined, total = notes(statistics, rate, X)
    assert len(joined) == 4
    assert all("merged with another loop of 9 steps" in text for text in joined)
    assert "one needs the result of the other" in total
    check(statistics, rate, X)


def test_backwards():
    """Two loops in the same direction join, whichever it is."""
    both = lambda x: (decay(0.5, x, reverse=True), peak(x, reverse=True))
    assert loops(both, X) == 1
    check(both, X)


def test_names_stand_in_the_report():
    """Both loops are listed, the second with nothing left."""

    def named(x):
        with jax.named_scope("decay"):
            a = decay(0.5, x)
        with jax.named_scope("peak"):
            return a, peak(x)

    report = explain(named)(X)
    assert "merged with 'peak', whose work its steps do too" in str(report["decay"])
    assert "merged with 'decay'" in str(report["peak"])
    assert report["peak"].after.steps == 0


def dependent(x):
    """The second loop needs the first through an equation between them."""
    return peak(jnp.exp(-decay(0.5, x))[:, None])


def printing(x):
    def step(c, v):
        jax.debug.callback(lambda _: None, c)
        return c + v, None

    return decay(0.5, x), jax.lax.scan(step, 0.0, x[:, 0])[0]


def reading_a_callback(x):
    first = decay(0.5, x)
    shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
    return first, peak(io_callback(np.asarray, shape, x, ordered=True))


def large(x):
    big = jnp.ones((500, 4))
    other = lambda c, v: ((c := jnp.tanh(c @ big.T @ big) + v), c)
    return network(W, x), jax.lax.scan(other, jnp.ones(4), x)[1]


def wide(x):
    both = jnp.tile(x, (1, 200))
    step = lambda c, v: ((c := jnp.sin(c) + v), None)
    other = lambda c, v: ((c := jnp.cos(c) + v), None)
    start = jnp.zeros(800)
    return jax.lax.scan(step, start, both)[0], jax.lax.scan(other, start, both)[0]


def some_rows(x):
    return decay(0.5, x)[::3], peak(x)


def stateless(x):
    return decay(0.5, x), jax.lax.scan(lambda c, v: (c, jnp.sin(v)), (), x)[1]


@pytest.mark.parametrize(
    ("fun", "reason"),
    [
        (dependent, "one needs the result of the other"),
        (lambda x: (decay(0.5, x), peak(x, reverse=True)), "opposite directions"),
        (lambda x: (decay(0.5, x), peak(x, unroll=3)), "unrolled differently"),
        (printing, "a step has an effect"),
        (reading_a_callback, "an effect stands between them"),
        (large, "a step does dot_general, which outweighs"),
        (wide, "bytes, one loop pays up to"),
        (some_rows, "only some rows of one of them are read"),
        (stateless, "one of them has no state"),
    ],
    ids=[
        *("dependent", "directions", "unrolled", "printing", "a callback between"),
        *("large", "wide", "some rows", "stateless"),
    ],
)
def test_refusals(fun, reason):
    """Loops that cannot, or should not, be one stay two, and the report says why."""
    options = {"passes": ["merge"]}
    assert loops(fun, X, **options) == 2
    assert reason in " ".join(notes(fun, X))
    assert_close(jax.jit(optimize(fun))(X), jax.jit(fun)(X))


def test_other_lengths_and_switched_off():
    """Loops of other lengths are no siblings; without `merge` nothing is joined."""
    both = lambda x: (decay(0.5, x), peak(x[1:]))
    assert loops(both, X) == 2
    assert "stays apart" not in str(explain(both)(X))
    assert loops(lambda x: (decay(0.5, x), peak(x)), X, passes=["unroll"]) == 2


def test_a_cycle_is_not_made():
    """Of two possible pairs, one makes the other impossible: each needs the other."""

    def crossed(x):
        first, second = decay(0.5, x), decay(0.7, x)
        return peak(first[:, None]), decay(0.9, second[:, None])

    assert loops(crossed, X) == 2
    check(crossed, X)


def test_derivative_rules_are_compared():
    """Steps with the same value and different derivatives are not the same."""

    def with_slope(slope):
        @jax.custom_jvp
        def function(x):
            return jnp.sin(x)

        function.defjvp(lambda p, t: (jnp.sin(p[0]), slope * t[0]))
        step = lambda c, v: ((c := function(c) + v @ W), c)
        return lambda x: jax.lax.scan(step, jnp.zeros(4), x)[1].sum()

    one, two = with_slope(1.0), with_slope(2.0)
    both = lambda x: one(x) + two(x)
    got = jax.grad(optimize(both))(X)
    assert_close(got, jax.grad(both)(X))


def test_inside_a_loop():
    """Siblings in the body of an outer loop join as well."""

    def outer(w, x):
        def step(c, _):
            rows = lambda: jax.lax.scan(
                lambda h, v: ((h := jnp.tanh(h @ w + v)), h), c, x * c.mean()
            )[1]
            return c + rows()[-1] + rows().sum(axis=0), None

        return jax.lax.scan(step, jnp.ones(4), length=3)[0]

    assert loop_lengths(optimize(outer), W, X) == [3, 9]
    check(outer, W, X)
