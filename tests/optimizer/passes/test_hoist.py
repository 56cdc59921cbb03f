"""hoist: work that does not depend on the state leaves the loop."""

import jax
import jax.numpy as jnp
import pytest

from jscan import explain, optimize
from jscan._jax.names import primitives
from support.comparing import assert_close
from support.optimizer.loops import check, operations, reasons, row_parts

KEYS = jax.random.split(jax.random.key(1), 4)
X = jax.random.normal(KEYS[0], (7, 3, 8))
W = jax.random.normal(KEYS[1], (8, 16)) / 4
U = jax.random.normal(KEYS[2], (4, 16)) / 4
GATES = W[:, :8], U[:2, :8]


def test_input_product_is_batched():
    """`x_t @ W` is done once for all steps; `h @ U` stays."""

    def cell(weights, x):
        w, u = weights
        step = lambda h, x_t: ((h := jnp.tanh(x_t @ w[:, :4] + h @ u[:, :4])), h)
        return jax.lax.scan(step, jnp.zeros((3, 4)), x)[1]

    outside, inside = operations(optimize(cell, passes=["hoist"]), (W, U), X)
    assert (outside.count("dot_general"), inside.count("dot_general")) == (1, 1)
    check(cell, (W, U), X)


def gated(weights, x):
    """Four gates of one product, cut apart; with their biases, if there are any."""
    w, u, *bias = weights
    joined = lambda x_t, h: sum(bias, x_t @ w + h @ u)
    return row_parts(lambda x_t, h: jnp.split(joined(x_t, h), 4, -1), x)


@pytest.fixture
def rows_in_parts(change_costs):
    """A machine that reads no row whole, which a CPU does with JAX 0.12."""
    change_costs(whole_rows=0)


PUSHED = "slices pushed"


@pytest.mark.usefixtures("rows_in_parts")
def test_no_slices_are_said_to_be_pushed_where_there_are_none():
    def cell(w, x):
        step = lambda h, x_t: ((h := jnp.tanh(x_t @ w + h)), h)
        return jax.lax.scan(step, jnp.zeros((3, 16)), x)[1]

    assert PUSHED not in str(explain(cell, passes=["hoist"])(W, X))
    assert PUSHED in str(explain(gated, passes=["hoist"])(GATES, X))


@pytest.mark.usefixtures("rows_in_parts")
def test_slices_are_pushed_to_the_weights():
    """A split of gates becomes four products before the loop, one inside."""
    outside, inside = operations(optimize(gated, passes=["hoist"]), GATES, X)
    assert outside.count("dot_general") == 4
    assert inside.count("dot_general") == 1
    check(gated, GATES, X)


@pytest.mark.usefixtures("rows_in_parts")
def test_an_empty_piece_of_one_number_stays_empty():
    def cell(w, x):
        def step(h, x_t):
            one = x_t[:1, 0] + h
            return h * 0.9, (jnp.pad(one[1:], (0, 2)), x_t @ w + h[0])

        return jax.lax.scan(step, jnp.ones(1), x)[1]

    check(cell, W, X)


def test_product_of_a_concatenation_is_taken_apart():
    """`concatenate([x, h]) @ W` is the sum of a sequence and a state product."""

    def cell(w, x):
        def step(h, x_t):
            h = jnp.tanh(jnp.concatenate([x_t, h], -1) @ w)
            return h, h

        return jax.lax.scan(step, jnp.zeros((3, 4)), x)[1]

    w = jax.random.normal(KEYS[3], (12, 4)) / 4
    outside, inside = operations(optimize(cell), w, X)
    assert outside.count("dot_general") == 1
    assert "concatenate" not in inside
    check(cell, w, X)


@pytest.mark.usefixtures("measured_costs")
@pytest.mark.parametrize("joined", [True, False])
@pytest.mark.parametrize(("inputs", "leaves"), [(16, False), (400, True)])
def test_a_small_product_stays_beside_that_of_the_state(inputs, leaves, joined):
    """The call stays that does both, and a step has three rows more to read."""

    def cell(w, u, x):
        def step(state, row):
            h, c = state
            both = jnp.concatenate([row, h]) @ jnp.concatenate([w, u])
            i, f, g, o = jnp.split(both if joined else row @ w + h @ u, 4)
            c = jnp.tanh(f) * c + jnp.tanh(i) * g
            return (jnp.tanh(o) * c, c), c

        return jax.lax.scan(step, (jnp.zeros(32, "float32"),) * 2, x)[1]

    w, u = (jnp.ones((n, 128), "float32") / 99 for n in (inputs, 32))
    report = str(explain(cell)(w, u, jnp.ones((300, inputs), "float32")))
    assert ("+ hoist.sequences: dot_general" in report) == leaves


def test_work_on_constants_is_done_once():
    """A transform of the weights inside the step runs before the loop."""

    def cell(u, x):
        step = lambda h, x_t: ((h := jnp.tanh(h * jnp.exp(u).sum() + x_t)), h)
        return jax.lax.scan(step, jnp.zeros((3, 8)), x)[1]

    _, inside = operations(optimize(cell, passes=["hoist"]), U, X)
    assert "exp" not in inside
    check(cell, U / 9, X)


def test_a_cond_on_sequences_stays():
    """Batched, it would run the branch a step does not take."""

    def cell(x):
        def step(h, x_t):
            y = jax.lax.cond(x_t[0, 0] > 0, jnp.exp, jnp.sin, x_t)
            return h * 0.5 + y, None

        return jax.lax.scan(step, jnp.zeros((3, 8)), x)[0]

    _, inside = operations(optimize(cell), X)
    assert "cond" in inside
    assert "branches that a step does not take" in reasons(cell, X, name="hoist")
    assert_close(optimize(cell)(X), cell(X))


def test_cheap_work_stays():
    """A bias or a scaling costs less in the loop than one more row in memory."""

    def cell(b, x):
        step = lambda h, x_t: ((h := jnp.tanh(h + 2.0 * x_t + b)), h)
        return jax.lax.scan(step, jnp.zeros((3, 8)), x)[1]

    _, inside = operations(optimize(cell), jnp.ones(8).reshape(1, 8), X)
    assert inside.count("mul") == 1


def test_refused_over_the_memory_budget():
    """The reason gives both numbers."""
    text = reasons(gated, GATES, X, name="hoist", memory_budget=100)
    assert "over the memory budget of 100" in text
    assert_close(jax.jit(optimize(gated, memory_budget=100))(GATES, X), gated(GATES, X))


@pytest.mark.parametrize("implementation", ["threefry2x32", "rbg"])
def test_random_numbers_are_unchanged(implementation):
    """Also for the generators whose batched draws differ."""
    keys = jax.random.split(jax.random.key(3, impl=implementation), 6)

    def walk(keys):
        step = lambda c, k: (c + jax.random.normal(k, (2,)), c)
        return jax.lax.scan(step, jnp.zeros(2), keys)

    def draws(keys):
        step = lambda c, k: (c, jax.random.normal(k, (2,)))
        return jax.lax.scan(step, jnp.zeros(2), keys)

    assert_close(jax.jit(optimize(walk))(keys), jax.jit(walk)(keys))
    assert_close(jax.jit(optimize(draws))(keys), jax.jit(draws)(keys))


def test_numbers_of_an_array_are_read_in_the_step():
    """Each would be one more thing to carry along; what is computed of them leaves."""

    def autoregression(weights, noise):
        def step(lags, e):
            fresh = sum(weights[k] * lag for k, lag in enumerate(lags))
            fresh = fresh + jnp.exp(weights[0]) * e
            return (fresh, *lags[:-1]), fresh

        return jax.lax.scan(step, (0.0,) * 4, noise)[1]

    weights, noise = jnp.array([0.4, 0.2, 0.1, 0.1]), jnp.arange(20.0) / 10
    outside, inside = operations(
        optimize(autoregression, passes=["hoist"]), weights, noise
    )
    assert inside.count("slice") == 4
    assert "exp" not in inside
    assert outside.count("exp") == 1
    check(autoregression, weights, noise)


@pytest.mark.usefixtures("rows_in_parts")
def test_parts_of_a_bias_are_read_in_the_step():
    """A kernel each before the loop would be compiled to save nothing in it."""
    weights = (*GATES, jnp.arange(8.0)[None] / 8)
    outside, inside = operations(optimize(gated, passes=["hoist"]), weights, X)
    assert outside.count("slice") == 4  # of the weights
    assert inside.count("slice") == 8  # of the product with the state, and of the bias
    check(gated, weights, X)


def part_in_a_product(w, x):
    """A product reads the part: XLA would copy it at each step."""
    step = lambda h, x_t: ((h := jnp.tanh(x_t + h @ w[:4])), h)
    return jax.lax.scan(step, jnp.zeros((3, 4)), x)[1]


def part_in_a_product_and_a_sum(w, x):
    """One reader of the part is a product, another is arithmetic."""

    def step(carry, x_t):
        h, scale = carry
        part = w[:4]
        h = jnp.tanh(x_t + h @ part + h @ jnp.cos(part * scale))
        return (h, scale * 0.5), h

    return jax.lax.scan(step, (jnp.zeros((3, 4)), 1.0), x)[1]


def part_without_a_product(w, x):
    """A step of arithmetic alone may be one function, which a cut can end."""
    step = lambda h, x_t: ((h := jnp.sin(x_t + h * w[1:2])), h)
    return jax.lax.scan(step, jnp.zeros((3, 4)), x)[1]


def part_that_is_a_row(w, x):
    """The rows of a result are stacked of the part itself."""

    def step(h, x_t):
        part = w[4:5]
        return jnp.tanh(x_t + h @ w[:4] + part), part

    return jax.lax.scan(step, jnp.zeros((3, 4)), x)


@pytest.mark.parametrize(
    "loop",
    [
        part_in_a_product,
        part_in_a_product_and_a_sum,
        part_without_a_product,
        part_that_is_a_row,
    ],
)
def test_parts_stay_outside_where_reading_them_again_could_cost(loop):
    w = jax.random.normal(KEYS[3], (8, 4)) / 4
    outside, inside = operations(
        optimize(loop, passes=["hoist", "merge"]), w, X[..., :4]
    )
    assert "slice" not in inside
    assert "slice" in outside
    check(loop, w, X[..., :4])


def test_report_names_what_needs_the_state():
    """What would pay, were it not for the state, is a refusal with its reason."""

    def cell(w, x):
        step = lambda h, x_t: ((h := jnp.tanh(x_t @ w[:4] + h @ w[4:])), h)
        return jax.lax.scan(step, jnp.zeros((3, 4)), x)[1]

    w = jax.random.normal(KEYS[3], (8, 4)) / 4
    told = reasons(cell, w, X[..., :4], name="hoist")
    assert "needs the state of the step before: dot_general, tanh" in told


def test_sequence_work_on_constants_that_were_not_hoisted():
    """`hoist.sequences` alone does what it reads of constants, too."""

    def summed(w, x):
        step = lambda c, row: (c + (jnp.exp(w) * row) @ jnp.outer(w, w), None)
        return jax.lax.scan(step, x[0], x)[0]

    w, x = jnp.linspace(0.1, 1.0, 4), jnp.linspace(-1.0, 1.0, 24).reshape(6, 4)
    alone = ["hoist.sequences"]
    assert explain(summed, passes=alone)(w, x).loops[0].fired == ("hoist",)
    check(summed, w, x, passes=alone)


@pytest.mark.parametrize("side", ["left", "right", "both"])
def test_a_transposed_constant_is_no_new_matrix(side):
    """The compiler multiplies by it as it lies, up to twice as fast."""

    def turned(w, x):
        def step(h, x_t):
            left = w.T @ h if side in ("left", "both") else h
            right = h @ w.T if side in ("right", "both") else h
            h = jnp.tanh(left + right + x_t)
            return h, h

        return jax.lax.scan(step, jnp.zeros(8), x)[1]

    w, x = W[:, :8], X[:, 0]
    outside, inside = operations(optimize(turned, passes="hoist"), w, x)
    assert "transpose" not in (*outside, *inside)
    check(turned, w, x)


def test_a_transposed_constant_that_is_read_otherwise_stays_one():
    def turned(w, x):
        step = lambda h, x_t: (h := jnp.tanh(w.T @ h + w.T[0] + x_t), h)
        return jax.lax.scan(step, jnp.zeros(8), x)[1]

    check(turned, W[:, :8], X[:, 0])


@pytest.mark.parametrize("permutation", [(0, 1), (1, 0)])
def test_what_only_looks_transposed_is_multiplied_as_it_is(permutation):
    """JAX leaves out a transposition that changes nothing, unless it is bound."""

    def turned(w, x):
        def step(h, x_t):
            matrix = primitives.transpose_p.bind(w, permutation=permutation)
            h = jnp.tanh(matrix @ h + x_t)
            return h, h

        return jax.lax.scan(step, jnp.zeros(8), x)[1]

    check(turned, W[:, :8], X[:, 0])
