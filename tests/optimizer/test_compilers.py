"""Batches that a version of XLA computes wrongly, or crashes at, stay loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jscan
from jscan import optimize
from jscan._optimizer.analysis import compilers as _compilers
from jscan._optimizer.analysis.dependence import batchable
from support.optimizer.loops import loop_lengths

ROWS = 40_000
RNG = np.random.default_rng(0)
M = RNG.normal(size=(3, 3)).astype(np.float32)
X = RNG.normal(size=(ROWS, 3)).astype(np.float32)


def energy(row):
    return jnp.sum((M @ row) ** 2)


def energies():
    return ((X.astype(np.float64) @ M.T.astype(np.float64)) ** 2).sum(1)


LOOPS = {
    "optimize": lambda: jax.jit(
        optimize(lambda x: jax.lax.scan(lambda c, row: (c, energy(row)), 0.0, x)[1])
    )(X),
    "scan": lambda: jscan.scan(energy, sequences=X).outputs,
    "map": lambda: jscan.map(energy, X).outputs,
    "matrix last": lambda: jscan.map(lambda row: ((row @ M.T) ** 2).sum(), X).outputs,
    "hoisted": lambda: (
        jscan.scan(lambda row, c: c * 0 + energy(row), X, np.float32(0)).outputs
    ),
}


@pytest.mark.parametrize("name", LOOPS)
def test_many_small_products_are_right(name):
    """Jax issue 39103: 7,228 of these rows are wrong where they are batched."""
    np.testing.assert_allclose(LOOPS[name](), energies(), rtol=1e-3, atol=1e-4)


@pytest.fixture
def version(monkeypatch):
    return lambda *version: monkeypatch.setattr(_compilers, "JAX_VERSION", version)


def equations(fun, *args):
    return jax.make_jaxpr(fun)(*args).jaxpr.eqns


@pytest.mark.parametrize(
    ("rows", "columns", "length", "is_refused"),
    [
        (3, 3, ROWS, True),
        (3, 3, 100, False),
        (2, 3, ROWS, True),
        (64, 64, ROWS, False),
        (64, 8, ROWS, False),
    ],
)
def test_small_products_are_refused_by_version_and_shape(
    version, rows, columns, length, is_refused
):
    (product,) = equations(jnp.matmul, np.ones((rows, columns)), np.ones(columns))
    version(0, 10)
    assert batchable(product, length) is not is_refused
    version(0, 12)
    assert batchable(product, length)


@pytest.mark.parametrize(("rank", "is_refused"), [(2, False), (5, False), (6, True)])
def test_arrays_of_high_rank_are_refused_by_version(version, rank, is_refused):
    """Jax issue 39257: the compiler crashes at rank 7, which a batch would reach."""
    total = next(
        e
        for e in equations(lambda x: (x * 2).sum(0), np.ones((2,) * rank))
        if e.primitive.name == "mul"
    )
    version(0, 10)
    assert batchable(total, 10) is not is_refused
    version(0, 12)
    assert batchable(total, 10)


def test_a_map_over_arrays_of_high_rank_runs():
    observed, table = jnp.ones((6, 2, 3)), jnp.ones((6, 2, 3, 2, 2, 2, 2))

    def likelihood(o, a):
        total = jnp.sum(o[..., None, None, None, None] * a, axis=1)
        return jnp.log(jnp.maximum(total, 1e-12))

    got = jscan.scan(likelihood, sequences=[observed, table]).outputs
    np.testing.assert_allclose(
        got, np.log(3.0) * np.ones((6, 2, 2, 2, 2, 2)), rtol=1e-6
    )
    if _compilers.JAX_VERSION < (0, 12):
        assert loop_lengths(
            lambda *args: jscan.scan(likelihood, sequences=list(args)).outputs,
            observed,
            table,
        ) == [6]


def test_the_gradient_by_a_weight_of_few_rows_still_leaves_its_loop(version):
    """A product of 8 rows is none of the small ones, however many numbers it has."""
    few, wide = np.ones((8, 128)), np.ones((8, 128))
    (product,) = equations(
        lambda a, b: jax.lax.dot_general(a, b, (((0,), (0,)), ((), ()))), few, wide
    )
    version(0, 10)
    assert batchable(product, ROWS)
