"""What rows of functions, their sums and small sums of products cost, on a CPU."""

import jax
import jax.numpy as jnp
import pytest

from jscan import optimize
from jscan._jax.names import JAX_VERSION
from support.comparing import assert_close
from support.optimizer.loops import loop_lengths, operations

pytestmark = [
    pytest.mark.usefixtures("measured_costs"),
    pytest.mark.skipif(
        jax.default_backend() != "cpu", reason="the costs of a CPU are tested"
    ),
]
OLDEST = JAX_VERSION < (0, 11)


def rows(steps, wide):
    return jax.random.normal(jax.random.key(steps + wide), (steps, wide), "float32")


@pytest.mark.parametrize(
    ("steps", "wide", "leave"),
    [(600, 25, False), (10_000, 25, False), (20_000, 8, True)],
)
def test_functions_leave_a_loop_that_stays_where_it_does_not_vectorise_them(
    steps, wide, leave
):
    """In the loop they are vectorised from 24 numbers on; rows would be stored."""

    def exponentials(keys):
        step = lambda state, key: (0.9 * state + jnp.exp(key), None)
        return jax.lax.scan(step, jnp.zeros(wide, "float32"), keys)[0]

    outside, inside = operations(optimize(exponentials), rows(steps, wide))
    assert ("exp" in outside, "exp" in inside) == (leave, not leave)
    x = rows(50, wide)
    assert_close(optimize(exponentials)(x), exponentials(x))


@pytest.mark.parametrize("is_handed_out", [False, True])
def test_rows_that_are_read_and_handed_out_leave_earlier(is_handed_out):
    """They are worked out for each: 0.55 ms a sine of 50 numbers, 0.29 ms at once."""

    def waves(x):
        def step(state, row):
            wave = jnp.sin(row)
            state = 0.9 * state + wave
            return state, (state, wave) if is_handed_out else state

        return jax.lax.scan(step, jnp.zeros(50, "float32"), x)[1]

    x = rows(600, 50)
    _, inside = operations(optimize(waves), x)
    assert ("sin" in inside) is not is_handed_out
    assert_close(optimize(waves)(x), waves(x), 1e-5)


FUNCTIONS = {
    "exp": lambda row: jnp.exp(row).sum(),
    "tanh": lambda row: jnp.tanh(row).sum(),
    "logsumexp": jax.nn.logsumexp,
    "softmax": jax.nn.softmax,
    "normed": lambda row: (row - row.mean()) * jax.lax.rsqrt(row.var() + 1e-5),
}


@pytest.mark.parametrize(
    ("name", "steps", "wide", "leaves"),
    [
        ("exp", 500, 128, False),
        ("exp", 2000, 64, False),
        ("exp", 2000, 48, False),
        ("tanh", 500, 128, False),
        ("logsumexp", 500, 48, OLDEST),
        ("softmax", 2000, 64, True),
        ("normed", 500, 40, OLDEST),
    ],
)
def test_sums_of_functions_leave_where_they_are_slow(name, steps, wide, leaves):
    """One sum is fast in a loop; a softmax is several, which JAX 0.10 calls."""

    def mapped(x):
        step = lambda _, row: (None, FUNCTIONS[name](1.5 * row))
        return jax.lax.scan(step, None, x)[1]

    x = rows(steps, wide)
    assert loop_lengths(optimize(mapped), x) == ([] if leaves else [steps])
    assert_close(optimize(mapped)(x), mapped(x), 1e-5)


def selective(weights, x):
    """A state of 7 x 5 numbers, whose three products with weights are tiny."""

    def step(state, row):
        a, b, c = (row @ w for w in weights)
        state = state * jnp.exp(-jax.nn.softplus(a))[:, None] + jnp.outer(row, b)
        return state, state @ c

    return jax.lax.scan(step, jnp.zeros((7, 5), "float32"), x)[1]


@pytest.mark.parametrize(("steps", "leave"), [(738, OLDEST), (60, False)])
def test_small_sums_leave_a_step_that_makes_too_many_calls(steps, leave):
    """By JAX 0.10: each is too small to gain, all together are half of the step.

    Behind a loop of few steps they take longer to start than they save.
    """
    keys = jax.random.split(jax.random.key(0), 3)
    sizes = (7, 7), (7, 5), (7, 5)
    weights = [
        jax.random.normal(k, s, "float32") / 3 for k, s in zip(keys, sizes, strict=True)
    ]
    gradient = jax.grad(lambda w, x: (selective(w, x) ** 2).sum())
    x = rows(steps, 7)
    sums = lambda f: operations(f, weights, x)[1].count("transpose")
    assert sums(gradient) >= 2
    assert (sums(optimize(gradient)) == 0) is leave
    assert_close(optimize(gradient)(weights, x), gradient(weights, x), 1e-4)


def test_small_sums_beside_a_state_that_becomes_a_constant():
    """What a carry becomes may be no variable."""

    def summed(x):
        def step(carry, row):
            first, total = carry
            return (jnp.float32(0), total + jnp.outer(row, row) * first), None

        return jax.lax.scan(step, (jnp.float32(1), jnp.zeros((7, 7), "float32")), x)[0]

    x = rows(300, 7)
    assert loop_lengths(optimize(summed), x) == [300]
    assert_close(optimize(summed)(x), summed(x))


def test_an_inner_product_is_added_up_in_the_loop():
    """A number a step: rows that it could be made of take longer to store."""

    def cooled(rate, x):
        step = lambda h, row: ((h := h + rate * (jnp.roll(h, 1) - h) + row), None)
        return jax.lax.scan(step, jnp.zeros(x.shape[1:], "float32"), x)[0]

    gradient = jax.grad(lambda rate, x: (cooled(rate, x) ** 2).sum())
    rate, x = jnp.float32(0.3), rows(400, 128)
    outside, inside = operations(optimize(gradient), rate, x)
    assert "dot_general" not in outside
    assert inside.count("reduce_sum") == 1
    assert_close(optimize(gradient)(rate, x), gradient(rate, x), 1e-4)


@pytest.mark.parametrize(
    ("numbers", "units", "sums"),
    [
        (24, 9, False),  # `tanh` would be computed number by number
        (24, 16, OLDEST),  # by 0.12 one vector instruction does its columns
        (24, 24, True),
    ],
)
def test_tiny_products_that_tanh_reads_are_sums_where_that_is_faster(
    numbers, units, sums
):
    """Of 24 numbers sums took 1.45 times as long with 9 units, 1.4 times with 16."""

    def network(w, u, xs):
        step = lambda h, x: (jnp.tanh(x @ w + h @ u), None)
        return jax.lax.scan(step, jnp.zeros(units, "float32"), xs)[0]

    w, u, xs = rows(numbers, units), rows(units, units), rows(60, numbers)
    _, inside = operations(optimize(network), w, u, xs)
    assert ("dot_general" not in inside) == sums
    assert_close(optimize(network)(w, u, xs), network(w, u, xs), 1e-4)


@pytest.mark.parametrize(("steps", "leaves"), [(300, False), (1000, OLDEST)])
def test_a_product_with_few_long_rows_is_a_call_by_the_oldest(steps, leaves):
    def summed(w, xs):
        step = lambda total, x: (0.9 * total + x @ w, None)
        return jax.lax.scan(step, jnp.zeros(4, "float32"), xs)[0]

    outside, _ = operations(optimize(summed), rows(61, 4), rows(steps, 61))
    assert ("dot_general" in outside) == leaves


def forward(initial, transition, likelihoods):
    """The normalised filter of a hidden Markov chain, guarded as in dynamax."""

    def step(state, row):
        total, predicted = state
        most = row.max()
        parts = predicted * jnp.exp(row - most)
        norm = parts.sum()
        norm = jnp.where(norm == 0, 1.0, norm)
        parts = jnp.where(parts == 0, 1e-15, parts) / norm
        return (total + jnp.log(norm) + most, transition.T @ parts), parts

    start = jnp.zeros((), "float32"), initial
    return jax.lax.scan(step, start, likelihoods)


@pytest.mark.parametrize("states", [12, 16, 20])
def test_a_filter_of_few_states_stays_in_its_loop(states):
    """It was 0.5 to 0.7 times as fast: the step makes few calls as it is."""
    chain = jax.nn.softmax(rows(states, states), -1)
    args = chain[0], chain, rows(300, states)
    likelihood = lambda *args: forward(*args)[0][0]
    outside, inside = operations(optimize(likelihood), *args)
    assert "exp" in inside
    assert "exp" not in outside
    assert_close(optimize(forward)(*args), forward(*args), 1e-4)


def test_large_terms_that_scale_rows_are_added_up_in_the_loop():
    """Expected counts of transitions: at once they took 3 times as long by 0.10."""

    def counts(transition, now, then):
        def step(total, row):
            return total + jnp.einsum("i,ij,j->ij", row[0], transition, row[1]), None

        return jax.lax.scan(step, jnp.zeros_like(transition), (now, then))[0]

    args = rows(40, 40), rows(999, 40), rows(1000, 40)[1:]
    assert loop_lengths(optimize(counts), *args) == ([999] if OLDEST else [])
    assert_close(optimize(counts)(*args), counts(*args), 1e-3)


def mapped(function):
    return lambda x: jax.lax.scan(lambda _, a: (None, function(a)), None, x)[1]


LAYER_NORM = lambda a: (a - a.mean()) * jax.lax.rsqrt(a.var() + 1e-5)


@pytest.mark.parametrize(
    "function",
    [
        lambda a: jnp.sqrt((a * a).sum()),
        lambda a: a / jnp.sqrt((a * a).sum()),
        lambda a: jnp.exp(-((a - 1.0) ** 2).sum()),
        lambda a: jnp.tanh(a.sum()),
        lambda a: jnp.sqrt(a @ a),
        lambda a: jnp.sqrt(2.0 * a).sum(),
        lambda a: jnp.sqrt((a[:, None] * a[None]).sum(0)),
        lambda a: jax.nn.softmax(a[:, None] * a[None], -1).sum(0),
        LAYER_NORM,
        jax.nn.softmax,
    ],
    ids=[
        *("norm", "unit", "kernel", "tanh", "product", "roots", "columns"),
        *("softmaxes", "layer norm", "softmax"),
    ],
)
def test_a_step_that_adds_up_three_numbers_does_so_in_registers(function):
    """A batch has a loop for each row: 0.2 to 0.9 times as fast."""
    assert loop_lengths(optimize(mapped(function)), jnp.ones((25600, 3))) == [25600]


def test_many_exponentials_are_worth_the_sum_of_their_row():
    assert loop_lengths(optimize(mapped(jax.nn.softmax)), jnp.ones((9600, 8))) == []


@pytest.mark.parametrize("columns", [8, 33, 128])
def test_sines_that_are_added_up_leave_where_the_compiler_fuses_them(columns):
    """JAX 0.12's compiler does both in one operation, by vector instructions."""
    x = jnp.ones((76800 // columns, columns))
    lengths = loop_lengths(optimize(mapped(lambda a: jnp.sin(2.0 * a).sum())), x)
    assert lengths == ([len(x)] if JAX_VERSION < (0, 11) else [])


def test_sines_beside_what_is_not_fused_with_sums_stay():
    def function(a):
        return jnp.where(a > 0.5, jnp.sin(2.0 * a), a).sum()

    assert loop_lengths(optimize(mapped(function)), jnp.ones((2400, 32))) == [2400]


def test_sums_over_time_of_sines_are_fused_too():
    def summed(x):
        add = lambda total, a: (total + jnp.cos(2.0 * a) * a, None)
        return jax.lax.scan(add, jnp.zeros(33), x)[0]

    x = jnp.linspace(0.0, 1.0, 2400 * 33).reshape(2400, 33)
    assert bool(loop_lengths(optimize(summed), x)) is (JAX_VERSION < (0, 11))
    assert_close(optimize(summed)(x), summed(x))
