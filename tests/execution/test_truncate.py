"""`truncate_gradient`: Theano's figures, and how many steps the backward loop runs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jscan
from support.comparing import assert_close
from support.stops import count_steps, executed_sum, temporary_bytes

X = jnp.arange(1.0, 6.0)


def state(x, h, w, k, **options):
    return jscan.scan(
        lambda a, h, w: h * w + a, x, h, w, truncate_gradient=k, **options
    )


# The worked figures of Theano 0.9: x = 1..5, h0 = 2, w = .5, cost = sum of the rows.
FULL = [1.9375, 1.875, 1.75, 1.5, 1]
SUMS = {
    1: ([0, 0, 0, 0, 1], 0, 6.25),
    2: ([0, 0, 0, 1.5, 1], 0, 13),
    3: ([0, 0, 1.75, 1.5, 1], 0, 18.25),
    5: (FULL, 0.96875, 25.875),
    10: (FULL, 0.96875, 25.875),
    -1: (FULL, 0.96875, 25.875),
}


def slopes(cost, *args):
    return [np.asarray(g).tolist() for g in jax.grad(cost, (0, 1, 2))(*args)]


@pytest.mark.parametrize("k", SUMS)
@pytest.mark.parametrize("stops", [False, True], ids=["scan", "until"])
def test_sum_of_a_state(k, stops):
    """A loop that could stop, and does not, has the same figures."""

    def step(a, h, w):
        return (h * w + a, jscan.until(a > 9)) if stops else h * w + a

    def cost(x, h, w):
        return jscan.scan(step, x, h, w, truncate_gradient=k).outputs.sum()

    assert slopes(cost, X, 2.0, 0.5) == list(SUMS[k])


@pytest.mark.parametrize(
    ("k", "options", "pick", "expected"),
    [
        (2, {}, lambda o: o[-1], ([0, 0, 0, 0.5, 1], 0, 8.5)),
        (3, {}, lambda o: o[2], ([0, 0, 1, 0, 0], 0, 3)),
        (2, {}, lambda o: o[0], ([0, 0, 0, 0, 0], 0, 0)),
        (2, {"go_backwards": True}, jnp.sum, ([1, 1.5, 0, 0, 0], 0, 15)),
        (2, {"n_steps": 4}, jnp.sum, ([0, 0, 1.5, 1, 0], 0, 9)),
        (2, {"checkpoint": 2}, jnp.sum, ([0, 0, 0, 1.5, 1], 0, 13)),
    ],
    ids=["last row", "row 2", "an early row", "backwards", "n_steps", "checkpoint"],
)
def test_other_costs_and_options(k, options, pick, expected):
    cost = lambda x, h, w: pick(state(x, h, w, k, **options).outputs)
    assert slopes(jax.jit(cost), X, 2.0, 0.5) == list(expected)


def test_map_outputs_are_cut_too():
    def cost(x, w):
        return jscan.map(lambda a, w: a * a * w, x, w, truncate_gradient=2)[0].sum()

    by_x, by_w = jax.grad(cost, (0, 1))(X, 0.5)
    assert by_x.tolist() == [0, 0, 0, 4, 5]
    assert float(by_w) == 41


@pytest.mark.parametrize("stops", [False, True], ids=["scan", "until"])
def test_initial_rows_that_a_kept_step_reads(stops):
    """Tap -3 of step 2, the first kept one, reads the last initial row."""

    def step(a, one, three, w):
        new = one * w + three * (w + 1) + a
        return (new, jscan.until(a > 9)) if stops else new

    def cost(x, z, w):
        return jscan.scan(
            step, x, dict(initial=z, taps=[-1, -3]), w, truncate_gradient=3
        ).outputs.sum()

    assert slopes(cost, X, jnp.array([1.0, 2.0, 3.0]), 0.5)[1] == [0, 0, 2.625]


def test_long_windows_are_cut_at_the_right_row():
    """A window kept as one array: some of its rows are initial ones, some produced."""

    def cost(x, z):
        return jscan.scan(
            lambda a, far: a * far,
            x,
            dict(initial=z, taps=[-7]),
            truncate_gradient=7,
        ).outputs.sum()

    x, z = jnp.arange(1.0, 11.0), jnp.arange(2.0, 9.0)
    by_z = jax.grad(cost, 1)(x, z)
    # Steps 3 to 9 are kept; 3 to 6 read rows 3 to 6, the others what was produced.
    assert by_z.tolist() == [0, 0, 0, 4, 5, 6, 7]


def test_until_counts_from_the_executed_end():
    def cost(x, h, w):
        return executed_sum(
            jscan.scan(
                lambda a, h, w: (h * w + a, jscan.until(a >= 4)),
                x,
                h,
                w,
                truncate_gradient=2,
            )
        )

    x = jnp.arange(1.0, 7.0)
    assert slopes(cost, x, 0.0, 0.5)[0] == [0, 0, 1.5, 1, 0, 0]
    lanes = jax.vmap(jax.grad(cost), (0, None, None))(jnp.stack([x, x[::-1]]), 0.0, 0.5)
    assert lanes.tolist() == [[0, 0, 1.5, 1, 0, 0], [1, 0, 0, 0, 0, 0]]


@pytest.mark.parametrize("stops", [False, True], ids=["scan", "until"])
def test_forward_mode_and_second_order_follow_the_same_cut(stops):
    def rows(x, h, w):
        def step(a, h, w):
            new = jnp.sin(h * w + a)
            return (new, jscan.until(a > 3.5)) if stops else new

        return executed_sum(jscan.scan(step, x, h, w, truncate_gradient=2))

    args = X, jnp.asarray(0.3), jnp.asarray(0.5)
    executed = 4 if stops else 5

    def by_hand(x, h, w):
        """The last two steps alone; everything before is a number."""
        total, past = jnp.zeros(()), jax.lax.stop_gradient(h)
        for step in range(executed):
            kept = step >= executed - 2
            now, weight = (x[step], w) if kept else jax.lax.stop_gradient((x[step], w))
            past = jnp.sin(past * weight + now)
            total = total + past
        return total

    for derive in (jax.jacrev, jax.jacfwd):
        actual = jax.jit(derive(rows, (0, 1, 2)))(*args)
        expected = jax.jit(derive(by_hand, (0, 1, 2)))(*args)
        assert_close(actual, expected)
    assert_close(
        jax.jit(jax.hessian(rows, (0, 2)))(*args),
        jax.jit(jax.hessian(by_hand, (0, 2)))(*args),
    )


@pytest.mark.parametrize("stops", [False, True], ids=["scan", "until"])
def test_updated_variables_are_cut_with_the_rest(stops):
    def cost(x, start):
        total = jscan.shared(0.0)
        total.stored = start  # a value to be differentiated

        def step(a):
            outputs = a * total.value, {total: total.value + a}
            return (*outputs, jscan.until(a > 9)) if stops else outputs

        return jscan.scan(step, x, truncate_gradient=2).outputs.sum()

    by_x, by_start = jax.grad(cost, (0, 1))(X, jnp.asarray(2.0))
    # Row i is x[i] * (2 + x[0] + ... + x[i-1]); only rows 3 and 4 count.
    assert by_x.tolist() == [0, 0, 0, 8 + 5, 12]
    assert float(by_start) == 0


@pytest.mark.parametrize("stops", [False, True], ids=["scan", "until"])
def test_the_backward_loop_runs_and_stores_k_steps(stops):
    """Everything the gradient adds has k rows: seen in the jaxpr of a long loop."""
    n_steps, kept = 512, 8

    def cost(w, k=kept):
        def step(h, w):
            new = jnp.tanh(h * w)
            return (new, jscan.until(new[0] > 9)) if stops else new

        return (
            jscan.scan(
                step, None, jnp.ones(64), w, n_steps=n_steps, truncate_gradient=k
            )
            .outputs[-1]
            .sum()
        )

    plain = count_steps(jax.make_jaxpr(cost)(0.5))
    both = count_steps(jax.make_jaxpr(jax.grad(cost))(0.5))
    long = [length for length in both if length != kept]
    assert long == [length for length in plain if length != kept]
    assert both.count(kept) >= 2
    cut, whole = (
        jax.jit(jax.grad(lambda w, k=k: cost(w, k))).lower(0.5).compile()
        for k in (kept, -1)
    )
    stored = [temporary_bytes(compiled) for compiled in (cut, whole)]
    assert stored[0] < 0.6 * stored[1]


def test_debug_mode_cuts_alike():
    def cost(x, mode):
        return jscan.scan(
            lambda a, h: (0.5 * h + a, jscan.until(a >= 4)),
            x,
            jnp.zeros(()),
            truncate_gradient=2,
            mode=mode,
        ).outputs[3]

    x = jnp.arange(1.0, 7.0)
    for mode in ("DEBUG", None):
        assert jax.grad(cost)(x, mode).tolist() == [0, 0, 0.5, 1, 0, 0]


@pytest.mark.parametrize("k", [0, -2])
def test_other_numbers_are_errors(k):
    with pytest.raises(ValueError, match=r"truncate_gradient.*at least 1"):
        state(X, 0.0, 0.5, k)
