"""A step that is held by one equation is, written out, the step that was traced."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from jscan._jax.equations import with_body
from jscan._jax.jaxprs import open_jaxpr
from jscan._jax.written import expanded, run_written

X = jnp.linspace(0.1, 0.9, 4, dtype=jnp.float32)
ONE = np.float32(1.0)


def cell(h, x, w):
    return jnp.tanh(h * w + x), h * 2, w


def nothing(h, x, w):
    return h, x, w


def spread(h, x, w):
    once = jax.lax.broadcast_in_dim(h * w, h.shape, tuple(range(h.ndim)))
    return jax.lax.mul(jax.lax.broadcast_in_dim(ONE, h.shape, ()), once), once, x


def branches(h, x, w):
    return jax.lax.cond(jnp.sum(x) > 1, jnp.sin, jnp.cos, h), jax.nn.silu(h), w


STEPS = {"cell": cell, "nothing": nothing, "spread": spread, "branches": branches}
SIZES = {"numbers": (), "vectors": (3,)}
WEIGHTS = {"captured": jnp.float32(0.5), "number": ONE}


def loop(step, given, weight, size, length=4):
    """A loop of a step, traced or given as it is written."""
    types = [jnp.zeros(size, jnp.float32)] * 2 + [weight]
    written = open_jaxpr(jax.make_jaxpr(step)(*types))[0]

    def body(h, x):
        values = given(step, written, [h, x, weight])
        return values[0], tuple(values[1:])

    start = jnp.full(size, 0.3, jnp.float32)
    xs = jnp.ones((length, *size), jnp.float32)
    return lambda: jax.lax.scan(body, start, xs)


def traced(step, _, values):
    return step(*values)


def held(_, written, values):
    return run_written(written, values)


def written_out(closed):
    body, _ = open_jaxpr(closed)
    return with_body(closed, expanded(body.eqns), body.outvars)


def text(closed):
    return jax.jit(jax.extend.core.jaxpr_as_fun(closed)).lower().as_text()


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("step", STEPS)
def test_it_is_the_traced_step(step, size, weight):
    how = STEPS[step], WEIGHTS[weight], SIZES[size]
    given = lambda way: jax.make_jaxpr(loop(how[0], way, *how[1:]))()
    plain, short = given(traced), given(held)
    assert text(written_out(short)) == text(plain)
    holds = "remat2" in str(short)
    assert holds == (step != "nothing")  # what is handed on is not held
    assert "remat2" not in str(written_out(short))
    # Left as it is, it computes the same.
    for one, other in zip(
        jax.tree.leaves(loop(how[0], held, *how[1:])()),
        jax.tree.leaves(loop(how[0], traced, *how[1:])()),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)


def test_what_is_in_a_loop_inside_is_written_out_too():
    inner = lambda way: loop(cell, way, WEIGHTS["captured"], (3,))
    outer = lambda way: (
        lambda: jax.lax.scan(
            lambda h, _: (h + inner(way)()[0], None), X[:3], None, length=2
        )
    )
    short = jax.make_jaxpr(outer(held))()
    assert "remat2" in str(short)
    assert text(written_out(short)) == text(jax.make_jaxpr(outer(traced))())


def test_a_step_with_an_effect_is_traced():
    def speaks(h, x, w):
        jax.debug.print("{}", h)
        return cell(h, x, w)

    assert "remat2" not in str(jax.make_jaxpr(loop(speaks, held, ONE, ()))())


def test_on_a_mesh_it_is_traced():
    """There types name the axes on which a value varies, which JAX works out."""
    mesh = jax.make_mesh((2,), ("d",), axis_types=(AxisType.Auto,))

    def own(x):
        step = open_jaxpr(jax.make_jaxpr(jnp.sin)(X[0]))[0]
        body = lambda h, row: (run_written(step, [row])[0] + h, None)
        return jax.lax.scan(body, x.sum(), x)[0][None]

    run = jax.shard_map(own, mesh=mesh, in_specs=P("d"), out_specs=P("d"))
    assert "remat2" not in str(jax.make_jaxpr(run)(X))
    halves = [half.sum() + jnp.sin(half).sum() for half in (X[:2], X[2:])]
    np.testing.assert_allclose(run(X), halves, rtol=1e-6)
