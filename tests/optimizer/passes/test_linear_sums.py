"""accumulate: linear functions are taken of a sum, not at each step."""

import jax
import jax.numpy as jnp
import pytest

from jscan import explain, optimize
from support.comparing import assert_close
from support.optimizer.loops import carried_shapes, check, operations

FIRED = "taken of a sum, not in each step"
KEYS = jax.random.split(jax.random.key(0), 4)
WIDE, KEPT, STEPS = 8, 4, 9
U = jax.random.normal(KEYS[0], (WIDE, WIDE)) / 2
W = jax.random.normal(KEYS[1], (WIDE, WIDE)) / 2
K = jax.random.normal(KEYS[2], (KEPT, WIDE))
START = jnp.linspace(-1, 1, WIDE)


def loop(context):
    """Rows of a loop whose step makes something of weights alone, among others."""

    def run(weights, start):
        def step(s, _):
            new = jnp.tanh(context(s, *weights))
            return new, new

        return jax.lax.scan(step, start, None, length=STEPS)[1]

    return run


def attend(s, U, W, K):
    """Additive attention: `K @ U` is the same at each step, `K` is read elsewhere."""
    weights = jax.nn.softmax(jnp.tanh(K @ U + (s @ W)[None]).sum(1))
    return weights @ K + s


MADE = {
    "attention": attend,
    "on the right": lambda s, U, W, K: s + ((U @ W) * s[None]).sum(1),
    "transposed": lambda s, U, W, K: s @ (K @ U).T @ K,
    "moved about": lambda s, U, W, K: s + ((W @ U)[::-1].reshape(4, 16) * s[0]).sum(),
    "twice": lambda s, U, W, K: s @ (U @ W) + (W @ U) @ s,
    "of a sum with rows": lambda s, U, W, K: s + jnp.outer(s, s) @ (W @ U) @ s,
    "softmax": lambda s, U, W, K: (s @ jax.nn.softmax(U, 1)) * jnp.exp(s),
    "scaled": lambda s, U, W, K: s + (U / jnp.sqrt((U**2).sum(1, keepdims=True))) @ s,
    "log softmax": lambda s, U, W, K: jax.nn.logsumexp(
        s[:, None] + jax.nn.log_softmax(U, 1), 0
    ),
    "in turn": lambda s, U, W, K: s * jnp.sin(s @ (U @ W @ U)),
}


def gradient(run):
    return jax.grad(lambda w, s: (run(w, s) ** 2).sum())


@pytest.mark.parametrize("name", MADE)
def test_gradients(name):
    run = loop(MADE[name])
    check(run, (U, W, K), START)
    assert FIRED in str(explain(gradient(run))((U, W, K), START))


def test_work_that_is_left():
    """The gradient of a product of weights is no product in the step."""
    run = loop(lambda s, U, W, K: s * (U @ W)[0])
    plain = operations(gradient(run), (U, W, K), START)[1]
    inside = operations(optimize(gradient(run)), (U, W, K), START)[1]
    assert plain.count("dot_general") > 0
    assert inside.count("dot_general") == 0


@pytest.mark.parametrize("transform", [jax.hessian, jax.vmap], ids=["hessian", "vmap"])
def test_under_transformations(transform):
    run = loop(attend)
    if transform is jax.hessian:
        small = lambda w: (run((w, W, K), START) ** 2).sum()
        assert_close(jax.jit(optimize(jax.hessian(small)))(U), jax.hessian(small)(U))
        return
    starts = jnp.stack([START, -START])
    lanes = jax.vmap(gradient(run), (None, 0))
    new, plain = jax.jit(optimize(lanes)), jax.jit(lanes)
    assert_close(new((U, W, K), starts), plain((U, W, K), starts))


def test_in_shard_map():
    mesh = jax.make_mesh((2,), ("m",), axis_types=(jax.sharding.AxisType.Auto,))
    run = loop(attend)
    lanes = jax.vmap(gradient(run), (None, 0))
    spec = jax.P("m")
    how = {"mesh": mesh, "in_specs": (jax.P(), spec), "out_specs": spec}
    starts = jnp.stack([START, -START])
    ours, plain = (
        jax.jit(jax.shard_map(f, **how))((U, W, K), starts)
        for f in (optimize(lanes), lanes)
    )
    assert_close(ours, plain)


def added(term, rows=False):
    """A loop with a sum of what is given, and a state that is no sum."""

    def run(start):
        def step(carry, _):
            s, total = carry
            new = jnp.tanh(s @ W)
            total = total + term(s, total)
            return (new, total), total if rows else None

        return jax.lax.scan(step, (start, jnp.zeros(WIDE)), None, length=STEPS)

    return run


def test_forward():
    run = added(lambda s, _: U @ s)
    assert FIRED in str(explain(run)(START))
    assert_close(jax.jit(optimize(run))(START), run(START))


def test_what_is_added_up_itself_is_added_up_once():
    """`s + U @ s` is a function of the sum of `s`, which takes one carry."""

    def run(start, total):
        def step(carry, _):
            s, total = carry
            return (jnp.tanh(s @ W), total + s + U @ s), None

        return jax.lax.scan(step, (start, total), None, length=STEPS)

    check(run, START, 3 * START)
    assert FIRED in str(explain(run)(START, 3 * START))
    assert carried_shapes(optimize(run), START, 3 * START) == [(WIDE,)] * 2
    chain = gradient(loop(MADE["log softmax"]))
    sums = carried_shapes(optimize(chain), (U, W, K), START)
    assert sums.count((WIDE, WIDE)) == 1


@pytest.mark.usefixtures("measured_costs")  # so that sums stay in their loop
def test_functions_of_one_value_share_its_sum():
    """Two terms of one sum, and one of another: one carry of what they are made of."""

    def run(start):
        def step(carry, _):
            s, one, two = carry
            return (jnp.tanh(s @ W), one + U @ s + s @ U, two + (U - W) @ s), None

        zeros = jnp.zeros(WIDE)
        return jax.lax.scan(step, (start, zeros, 2 + zeros), None, length=STEPS)

    check(run, START)
    assert FIRED in str(explain(run)(START))
    assert carried_shapes(optimize(run), START) == [(WIDE,)] * 2


STAYS = {
    "rows are read": added(lambda s, _: U @ s, rows=True),
    "the sum is read": added(lambda s, total: U @ s * total.sum()),
    "not linear": added(lambda s, _: jnp.tanh(U @ s)),
    "both change": added(lambda s, _: jnp.outer(s, s) @ s),
    "added twice": added(lambda s, _: (t := U @ s) + t),
}


@pytest.mark.parametrize("name", STAYS)
def test_what_stays(name):
    run = STAYS[name]
    assert FIRED not in str(explain(run)(START))
    assert_close(jax.jit(optimize(run))(START), run(START))


def test_a_sum_of_more_than_the_product_gives_stays():
    """It would add up 4,000 numbers at each step in the place of 4."""
    wide = jnp.ones((1, 4000))

    def run(start):
        def step(carry, _):
            s, total = carry
            return (jnp.tanh(s), total + wide @ s), None

        return jax.lax.scan(step, (start, jnp.zeros(1)), None, length=STEPS)

    start = jnp.linspace(-1, 2, 4000)
    assert FIRED not in str(explain(run)(start))
    assert_close(jax.jit(optimize(run))(start), run(start))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_narrow_types_stay(dtype):
    """Sums of half the width overflow before they are scaled: 20 times 4,000."""
    scale, wide = jnp.eye(8, dtype=dtype) / 100, jnp.full(8, 4000, dtype)

    def run(start):
        step = lambda c, _: ((c[0][::-1], c[1] + scale @ c[0]), None)
        return jax.lax.scan(step, (start, start * 0), None, length=20)[0][1]

    assert (FIRED in str(explain(run)(wide))) == (dtype == "float32")
    assert_close(jax.jit(optimize(run))(wide), run(wide))


@pytest.mark.parametrize("bad", [jnp.inf, -jnp.inf, jnp.nan, 0.0])
def test_what_is_not_finite_stays_so(bad):
    """Of a constant, or of a step: numbers stay numbers, and the others are none."""
    scale = jnp.ones((8, 8)).at[2, 3].set(bad)
    signs = jnp.linspace(-1, 1, 8).at[3].set(1.0)

    def run(start, worst):
        def step(carry, x):
            s, total = carry
            s = jnp.sin(s) * x
            return (s, total + (scale / bad) @ (scale * s[None]) @ signs), None

        xs = jnp.ones(6).at[4].set(worst)
        return jax.lax.scan(step, (start, jnp.zeros(8)), xs)[0][1]

    for worst in (1.0, -jnp.inf, jnp.nan):
        plain, ours = run(signs, worst), jax.jit(optimize(run))(signs, worst)
        assert (jnp.isfinite(plain) == jnp.isfinite(ours)).all()


def test_whole_numbers_stay():
    def run(start):
        def step(carry, _):
            s, total = carry
            return (s * 3 % 7, total + jnp.arange(16).reshape(4, 4) @ s), None

        return jax.lax.scan(step, (start, jnp.zeros(4, int)), None, length=STEPS)

    start = jnp.arange(4)
    assert FIRED not in str(explain(run)(start))
    assert_close(jax.jit(optimize(run))(start), run(start))
