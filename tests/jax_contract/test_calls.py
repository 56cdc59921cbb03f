"""A call that says so reaches XLA as a call, and gives what its equations give."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jscan._jax.calls import call_of
from jscan._jax.equations import with_body
from jscan._jax.jaxprs import open_jaxpr, run_jaxpr, variable_like

X = jnp.linspace(0.1, 0.9, 4, dtype=jnp.float32)


def work(x, y):
    a = jnp.sin(x) * y
    return a.sum() + jnp.cos(y), jnp.concatenate([a, x]), x


def called(x, y):
    """`work`, whose first two operations are called, and `x` handed through."""
    closed = jax.make_jaxpr(work)(x, y)
    opened, _ = open_jaxpr(closed)
    first, second, *rest = opened.eqns
    results = [second.outvars[0], opened.invars[0]]
    renamed = [variable_like(v) for v in results]
    call = call_of([first, second], results, renamed)
    names = dict(zip(results, renamed, strict=True))
    read = lambda atoms: [names.get(a, a) for a in atoms]
    rest = [e.replace(invars=read(e.invars)) for e in rest]
    return with_body(closed, [call, *rest], read(opened.outvars))


@pytest.mark.any_jax
def test_it_gives_what_its_equations_give():
    new = called(X, 2.0 * X)
    for got, wanted in zip(run_jaxpr(new, X, 2.0 * X), work(X, 2.0 * X), strict=True):
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.any_jax
def test_the_compiler_keeps_the_call():
    new = called(X, 2.0 * X)
    text = jax.jit(lambda x, y: run_jaxpr(new, x, y)).lower(X, X).compile().as_text()
    calls = re.findall(r" call\(.*inlineable=\"false\"", text or "")
    assert len(calls) == 1


@pytest.mark.any_jax
def test_what_is_called_says_nothing_itself():
    """Else what it calls would stay calls, and not be fused."""
    new = called(X, 2.0 * X)
    text = jax.jit(lambda x, y: run_jaxpr(new, x, y)).lower(X, X).as_text()
    assert text.count("inlineable") == 1
