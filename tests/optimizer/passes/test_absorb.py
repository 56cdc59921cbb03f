"""save_memory: cheap rows are made in the step that reads them."""

import jax
import jax.numpy as jnp
import pytest

from jscan import explain, optimize
from support.optimizer.loops import check, operations

X = jax.random.normal(jax.random.key(0), (20, 4))
MADE = "made in the step that reads them"


def path(rows, reverse=False, start=None):
    """A loop that only its sequence matters for."""
    start = jnp.zeros(rows.shape[1:], rows.dtype) if start is None else start
    step = lambda c, x: ((c := jnp.sin(c + x)), c)
    return jax.lax.scan(step, start, rows, reverse=reverse)[1]


def report(fun, *args):
    return str(explain(fun)(*args))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    ("make", "operation"),
    [
        (lambda x: 2.0 * x, "mul"),
        (lambda x: x + x, "add"),
        (lambda x: jax.lax.select(x > 0, x, -x), "select_n"),
        (lambda x: (1.0 - x) * (1.0 + x), "sub"),
        (lambda x: x * jnp.full(x.shape, 3.0), "mul"),
    ],
    ids=["scaled", "doubled", "selected", "polynomial", "times one number"],
)
def test_cheap_rows_are_made_in_the_step(make, operation, reverse):
    """A multiple, a choice, a difference read twice, an array of one number."""
    fun = lambda x: path(make(x), reverse)
    outside, inside = operations(optimize(fun), X)
    assert operation in inside
    assert operation not in outside
    assert MADE in report(fun, X)
    check(fun, X)


def test_a_number_of_the_program_is_a_constant_of_the_step():
    """A factor that is traced, and one that a derivative is taken of."""
    fun = lambda scale, x: path(scale * x)
    scale = jnp.asarray(0.7, X.dtype)
    assert MADE in report(fun, scale, X)
    check(fun, scale, X)


def test_narrow_rows_are_widened_in_the_step():
    """Half as many bytes are read."""
    fun = lambda x: path(x.astype(X.dtype))
    narrow = X.astype("float32")
    assert MADE in report(fun, narrow)
    _, inside = operations(optimize(fun), narrow)
    assert "convert_element_type" in inside
    check(fun, narrow, tolerance=1e-5)


def test_chains_share_what_they_read():
    """Two sequences made of one array: it is read once."""

    def fun(x):
        step = lambda c, rows: ((c := jnp.sin(c * rows[0] + rows[1])), c)
        return jax.lax.scan(step, jnp.zeros(4, X.dtype), (2.0 * x, 1.0 - x))[1]

    assert "2 rows a step" in report(fun, X)
    check(fun, X)


def two_loops(x):
    """Both read the rows."""
    rows = 2.0 * x
    return path(rows) + path(rows[:, ::-1], start=jnp.ones(4, X.dtype)) + path(rows)


def returned(x):
    """The rows are a result."""
    rows = 2.0 * x
    return path(rows), rows


OTHERS = {
    "an exponential is not cheap": lambda x: path(jnp.exp(x)),
    "nor is a division": lambda x: path(1.0 / (x + 9.0)),
    "two arrays would be read for one": lambda x: path(x * x[::-1]),
    "rows are added up": lambda x: path(jnp.cumsum(x, 0)),
    "a row of its own is repeated": lambda x: path(jnp.tile(x[:1], (20, 1))),
    "another operation reads them": two_loops,
    "they are a result": returned,
}


@pytest.mark.parametrize("fun", OTHERS.values(), ids=OTHERS)
def test_other_rows_are_made_before(fun):
    """What is not cheap, or not for one loop alone, stays where it is."""
    assert MADE not in report(fun, X)
    check(fun, X)
