"""regroup: two constants that a step multiplies by in turn are multiplied once."""

import jax
import jax.numpy as jnp
import pytest

from jscan import explain, optimize
from support.comparing import assert_close
from support.optimizer.loops import check, operations

FIRED = "of two constants done once"
WITH = "default+regroup"
KEYS = jax.random.split(jax.random.key(0), 4)
WIDE, SHORT, STEPS = 12, 3, 20
W = jax.random.normal(KEYS[0], (WIDE, WIDE)) / 4
V = jax.random.normal(KEYS[1], (WIDE, WIDE)) / 4
K = jax.random.normal(KEYS[2], (SHORT, WIDE))
STATE = jnp.linspace(-1, 1, WIDE)


def loop(step, start=STATE, steps=STEPS):
    """Rows of a loop whose step is a function of the constants and the state."""

    def run(constants, start):
        def both(s, _):
            new = step(s, *constants)
            return new, new

        return jax.lax.scan(both, start, None, length=steps)[1]

    return run, start


def attend(s, K, W, V):
    return jax.nn.softmax(K @ (s @ W)) @ K @ V


ROWS = jnp.stack([STATE, -STATE])
STEPS_OF = {
    "vector": (attend, STATE),
    "rows": (lambda s, K, W, V: jnp.tanh(s @ W @ K.T) @ K @ V, ROWS),
    "constants on the left": (
        lambda s, K, W, V: jnp.tanh(K @ (W @ s)).repeat(4),
        STATE,
    ),
    "columns": (lambda s, K, W, V: V @ (K.T @ jnp.tanh(K @ (W @ s))), ROWS.T),
    "several axes": (
        lambda s, K, W, V: jnp.tanh(
            jnp.einsum(
                "kab,ab->k",
                K.reshape(3, 3, 4),
                jnp.tensordot(s, W.reshape(12, 3, 4), 1),
            )
        ).repeat(4),
        STATE,
    ),
    "axes in another order": (
        lambda s, K, W, V: jnp.tanh(
            jnp.einsum(
                "kba,ab->k",
                K.reshape(3, 4, 3),
                jnp.tensordot(s, W.reshape(12, 3, 4), 1),
            )
        ).repeat(4),
        STATE,
    ),
}


@pytest.mark.parametrize("name", STEPS_OF)
def test_products(name):
    step, start = STEPS_OF[name]
    run, start = loop(step, start)
    assert FIRED in str(explain(run, passes=WITH)((K, W, V), start))
    check(run, (K, W, V), start, passes=WITH)


def test_work_that_is_left():
    """Of three products of 12 x 12 and of 3 x 12 numbers, two small ones stay."""
    run, start = loop(attend)
    outside, inside = operations(
        optimize(run, passes=["regroup", "hoist"]), (K, W, V), start
    )
    assert (outside.count("dot_general"), inside.count("dot_general")) == (2, 2)


def test_chains_become_one_product():
    run, start = loop(lambda s, K, W, V: jnp.tanh(s @ W @ V @ W @ V))
    inside = operations(optimize(run, passes=["regroup", "hoist"]), (K, W, V), start)[1]
    assert inside.count("dot_general") == 1
    check(run, (K, W, V), start, passes=WITH)


def factored(s, K, W, V):
    return jnp.tanh(s @ K.T @ K)


def read_twice(s, K, W, V):
    between = s @ W
    return jnp.tanh(between + (between @ K.T).sum())


def between_changes(s, K, W, V):
    return jnp.tanh(jnp.tanh(s @ W) @ V)


def of_rows(s, K, W, V):
    """Adds up the state's own axis, not the constant's."""
    return jnp.tanh((s @ W).T @ jnp.eye(2)).T


def rounded(s, K, W, V):
    narrow = lambda a: a.astype(jnp.bfloat16)
    return (narrow(s) @ narrow(W) @ narrow(V)).astype(s.dtype)


def precise(s, K, W, V):
    return jnp.tanh(jnp.dot(s @ W, V, precision="highest"))


STAYS = {
    "factored on purpose": (factored, STATE),
    "read twice": (read_twice, STATE),
    "a function between": (between_changes, STATE),
    "of rows": (of_rows, ROWS),
    "narrow types": (rounded, STATE),
    "another precision": (precise, STATE),
}


@pytest.mark.parametrize("name", STAYS)
def test_what_stays(name):
    step, start = STAYS[name]
    run, start = loop(step, start)
    assert FIRED not in str(explain(run, passes=WITH)((K, W, V), start))


def test_short_loops_stay():
    """Two steps do not pay for the product of the constants."""
    run, start = loop(attend, steps=2)
    assert FIRED not in str(explain(run, passes=WITH)((K, W, V), start))


def test_one_matrix_each_lane():
    """Under `vmap` over the constants the products have an axis more, and stay."""
    run, start = loop(attend)
    many = jax.vmap(run, ((0, None, None), None))
    keys = jnp.stack([K, -K])
    assert FIRED not in str(explain(many, passes=WITH)((keys, W, V), start))
    assert_close(
        jax.jit(optimize(many, passes=WITH))((keys, W, V), start),
        many((keys, W, V), start),
    )


def test_who_does_not_ask_is_told():
    run, start = loop(attend)
    report = explain(run)((K, W, V), start)
    assert FIRED not in str(report)
    assert "regroup: not asked for" in str(report)
    assert "a step does 72 multiplications of 360" in str(report)


def test_a_mesh_is_left_alone():
    """Of what devices hold parts of, the product would have to be exchanged."""
    mesh = jax.make_mesh((2,), ("m",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.NamedSharding(mesh, jax.P("m"))
    run, start = loop(attend)
    constants = jax.device_put(W, split), jax.device_put(V, split)
    ours = jax.jit(optimize(run, passes=WITH))((K, *constants), start)
    assert_close(ours, run((K, W, V), start))
    report = str(explain(run, passes=WITH)((K, *constants), start))
    assert "+ regroup" not in report
    assert "- regroup: not done, devices might have to exchange data" in report
