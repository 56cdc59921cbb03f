"""Batches that a version of XLA computes wrongly, or crashes at, stay loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jscan
from jscan import explain, optimize
from jscan._optimizer.analysis import compilers as _compilers
from jscan._optimizer.analysis.dependence import batchable
from support.comparing import assert_close
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


WITH_NAN = RNG.normal(size=(1000, 64)).astype(np.float32)
WITH_NAN[::3, 5] = np.nan
WITH_NAN.setflags(write=False)


def _normal(row, maximum):
    weights = jnp.exp(row - maximum)
    return weights / weights.sum(-1, keepdims=True)


STEPS = {
    "maximum": lambda row: row.max(),
    "minimum": lambda row: row.min(),
    "of a jitted function": jax.jit(lambda row: row.max()),
    "checkpointed": jax.checkpoint(lambda row: row.max()),
    "in a scatter": lambda row: jnp.zeros(9, "float32").at[jnp.arange(64) % 9].max(row),
    "subtracted": lambda row: row - row.max(),
    "exponentials": lambda row: jnp.exp(row - row.max()),
    "beside a softmax": lambda row: (row.max(), jax.nn.softmax(row)),
    "mean of relu": lambda row: jax.nn.relu(row).mean(),
    "relu": jax.nn.relu,
    "mean of half relu": lambda row: jax.nn.relu(row.astype("bfloat16")).mean(),
    "sum of the largest so far": lambda row: jax.lax.cummax(row, reverse=True).sum(),
    "of windows": lambda row: jax.lax.reduce_window(
        row.reshape(8, 8), -jnp.inf, jax.lax.max, (2, 2), (2, 2), "VALID"
    ),
    "by a function": lambda row: jax.lax.reduce(
        row, jnp.float32(jnp.inf), jax.lax.min, (0,)
    ),
    "clipped": lambda row: jnp.clip(row, -1, 1).sum(),
    "softmax": jax.nn.softmax,
    "softmax by another's maximum": lambda row: _normal(row[32:], row[:32].max()),
    "softmax along another axis": lambda row: _normal(
        row.reshape(8, 8), row.reshape(8, 8).max(0)[None]
    ),
    "log softmax": jax.nn.log_softmax,
    "logsumexp": jax.nn.logsumexp,
    "an inner loop": lambda row: jax.lax.scan(
        lambda c, _: ((c[:, None] + c[None] * 0.1).max(1), None), row[:8], length=5
    )[0],
    "double": lambda row: row.astype("float64").max(),
    "half": lambda row: row.astype("bfloat16").max(),
    "whole": lambda row: row.astype("int32").max(),
}
FORMS = {
    "vectorised": lambda step, x: jax.lax.map(step, x),
    "hoisted": lambda step, x: jax.lax.scan(
        lambda c, row: (c * 0.9, (jax.tree.map(jnp.mean, step(row)), c)), 0.0, x
    )[1][0],
    "sunk": lambda step, x: jax.lax.scan(
        lambda c, row: (jnp.cos(c), step(row + 0 * c)), jnp.float32(1), x
    )[1],
    "mean of all": lambda step, x: jax.tree.map(jnp.sum, jax.lax.map(step, x)),
    "in a batch": lambda step, x: jax.vmap(lambda x: jax.lax.map(step, x))(x[None]),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("step", STEPS)
def test_extremes_of_many_rows_keep_nan(step, form):
    """XLA's CPU compiler drops NaN from extremes of 4,096 numbers and more."""
    function = lambda x: FORMS[form](STEPS[step], x)
    with np.errstate(invalid="ignore"):
        expected = jax.jit(function)(WITH_NAN)
        got = jax.jit(optimize(function))(WITH_NAN)
    assert_close(got, expected)
    fired = {rule for loop in explain(function)(WITH_NAN).loops for rule in loop.fired}
    if form != "sunk":  # where a small result of a large state stays in the loop
        assert fired & {"vectorise", "hoist"}


@pytest.mark.parametrize(
    "read", [lambda r: r, lambda r: r.mean(1)], ids=["all", "mean"]
)
@pytest.mark.parametrize("op", [jnp.maximum, jnp.minimum])
def test_running_extremes_keep_nan(op, read):
    def function(x):
        start = jnp.zeros(64, "float32")
        return read(jax.lax.scan(lambda c, v: (op(c, v),) * 2, start, x)[1])

    faster = optimize(function, passes="default+associate")
    assert_close(jax.jit(faster)(WITH_NAN), jax.jit(function)(WITH_NAN))
    report = explain(function, passes="default+associate")(WITH_NAN)
    assert report.loops[0].fired == ("associate",)
