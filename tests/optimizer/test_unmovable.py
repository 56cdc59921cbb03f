"""What each step has to do by itself, though nothing in its type says so."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jscan
from jscan import explain, optimize
from support.comparing import assert_close
from support.optimizer.loops import loop_lengths

X = jnp.linspace(0.0, 1.0, 40)


def _draws(x):
    """A generator with hidden state, in the output alone and in the state."""
    draw = lambda: lax.rng_uniform(jnp.zeros(()), jnp.ones(()), (3,))
    return lax.scan(lambda c, v: (c + draw() * v, draw()), jnp.zeros(3), x)


def test_draws_without_a_key_differ_from_step_to_step():
    """They read constants alone, but are not constants."""
    (_, rows) = optimize(_draws)(X)
    assert len(np.unique(rows)) == rows.size


@pytest.mark.parametrize("of_state", [False, True])
def test_callbacks_that_take_one_step_only_stay(of_state):
    """Without a `vmap_method` JAX cannot call them for all steps at once."""

    def rows(x):
        sine = lambda v: jax.pure_callback(np.sin, jax.typeof(v), v)
        step = lambda c, v: (c + v, jnp.tanh(sine(c if of_state else v)))
        return lax.scan(step, jnp.zeros(()), x)[1]

    assert_close(optimize(rows)(X), rows(X))


@pytest.mark.parametrize("method", ["sequential", "expand_dims"])
def test_callbacks_in_a_loop_of_a_loop(method):
    """Batched one by one they are a loop again, which the optimizer met without end."""

    def rows(x):
        sine = lambda v: jax.pure_callback(np.sin, jax.typeof(v), v, vmap_method=method)
        inner = lambda a: lax.scan(lambda c, v: (c, jnp.exp(sine(v * a))), 0, X[:3])[1]
        return lax.scan(lambda c, a: (c, inner(a)), 0, x)[1]

    explained = explain(rows)(X)
    fired = {rule for loop in explained.loops for rule in loop.fired}
    assert ("vectorise" in fired) == (method != "sequential")
    assert_close(optimize(rows)(X), rows(X))


@jax.custom_batching.sequential_vmap
def _one_by_one(v):
    return jnp.sin(v)


@jax.custom_batching.custom_vmap
def _mapped(v):
    return jnp.sin(v)


@_mapped.def_vmap
def _(size, batched, v):
    return lax.map(jnp.sin, v), True


LOOPS_AGAIN = {
    "a callback, written out": lambda v: jax.pure_callback(
        np.sin, jax.typeof(v), v, vmap_method="sequential_unrolled"
    ),
    "by sequential_vmap": _one_by_one,
    "by custom_vmap": _mapped,
    "a map": lambda v: lax.map(jnp.sin, jnp.stack([v, v])).sum(),
    "a map, recomputed": jax.checkpoint(lambda v: lax.map(jnp.sin, v[None]).sum()),
}


@pytest.mark.parametrize("function", LOOPS_AGAIN.values(), ids=LOOPS_AGAIN)
def test_what_is_a_loop_once_it_is_batched_comes_to_an_end(function):
    """In a loop of a loop of a loop."""

    def rows(x):
        inner = lambda a: lax.map(lambda v: jnp.exp(function(v * a)), X[:3])
        middle = lambda a: lax.map(inner, X[:4] * a)
        return lax.scan(lambda c, a: (c, middle(a)), 0, x)[1]

    assert_close(optimize(rows)(X), rows(X))


def test_a_loop_as_written_is_looked_into_before_it_is_batched():
    """Its branches would all run."""

    def rows(x):
        branch = lambda v: lax.cond(v > 0.5, jnp.sin, jnp.cos, v)
        inner = lambda v: jscan.map(branch, v * X[:3], mode="FAST_COMPILE")[0]
        return lax.scan(lambda c, v: (c, inner(v)), 0.0, x)[1]

    assert loop_lengths(optimize(rows), X)[:1] == [40]
    assert_close(optimize(rows)(X), rows(X))
