"""small_dots, tiny products with vectors: sums of columns, or products by rows."""

import jax
import numpy as np
import pytest

from jscan import optimize
from jscan._jax.names import JAX_VERSION
from support.comparing import assert_close
from support.optimizer.loops import check, lowered

pytestmark = [
    pytest.mark.usefixtures("measured_costs"),
    pytest.mark.skipif(
        jax.default_backend() != "cpu", reason="what is fast on a CPU is tested"
    ),
]
STEPS = 1000
WAYS = {"x @ W": lambda w, x: x @ w, "W @ x": lambda w, x: w @ x}


def summed(multiply):
    """Squared errors of a linear model, row by row."""

    def loop(w, x, y):
        error = lambda row: multiply(w, row[0]) - row[1]
        add = lambda total, row: (total + (error(row) ** 2).sum(), None)
        return jax.lax.scan(add, 0 * x[0, 0], (x, y))[0]

    return loop


def arguments(way, added, columns, steps=STEPS, dtype="float32"):
    keys = jax.random.split(jax.random.key(columns), 3)
    shape = (added, columns) if way == "x @ W" else (columns, added)
    shapes = shape, (steps, added), (steps, columns)
    return [
        jax.random.normal(key, shape, dtype) / added**0.5
        for key, shape in zip(keys, shapes, strict=True)
    ]


def matrices(function, *arguments):
    """The shapes of the matrices that the step multiplies by a vector."""
    traced = jax.make_jaxpr(lowered(function, *arguments))(*arguments)
    (loop,) = (e for e in traced.eqns if e.primitive.name == "scan")
    step = loop.params["jaxpr"].eqns
    dots = [e for e in step if e.primitive.name == "dot_general"]
    return [max((np.shape(v.aval) for v in e.invars), key=np.prod) for e in dots]


def spread(function, *arguments):
    """The shapes of what the step multiplies element by element, if of two axes."""
    traced = jax.make_jaxpr(lowered(function, *arguments))(*arguments)
    (loop,) = (e for e in traced.eqns if e.primitive.name == "scan")
    step = loop.params["jaxpr"].eqns
    products = [e.outvars[0].aval.shape for e in step if e.primitive.name == "mul"]
    return [shape for shape in products if len(shape) == 2]


@pytest.mark.parametrize(
    ("way", "added", "columns"),
    [
        ("x @ W", 24, 3),
        ("x @ W", 30, 3),
        ("W @ x", 24, 3),
        ("W @ x", 16, 7),
        pytest.param(
            *("x @ W", 130, 3),
            marks=pytest.mark.skipif(
                JAX_VERSION < (0, 11), reason="large products are calls there"
            ),
        ),
    ],
)
def test_few_columns_of_many_numbers_are_read_by_rows(way, added, columns):
    operands = arguments(way, added, columns)
    loop = summed(WAYS[way])
    assert matrices(loop, *operands) == [(columns, added)]
    check(loop, *operands, tolerance=1e-4)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("added", "columns"), [(12, 12), (16, 8), (30, 16), (7, 24)])
def test_columns_that_fill_registers_are_added_up_at_once(way, added, columns):
    operands = arguments(way, added, columns, steps=300)
    loop = summed(WAYS[way])
    assert not matrices(loop, *operands)
    assert (added, columns) in spread(loop, *operands)
    check(loop, *operands, tolerance=1e-4)


def test_a_short_loop_stores_no_other_matrix():
    operands = arguments("x @ W", 24, 3, steps=6)
    assert spread(summed(WAYS["x @ W"]), *operands) == [(24, 3)]
    operands = arguments("W @ x", 12, 12, steps=6)
    assert spread(summed(WAYS["W @ x"]), *operands) == [(12, 12)]


def test_a_matrix_of_the_state_stays_as_it_lies():
    def loop(w, x, y):
        def step(s, row):
            w, total = s
            return (0.99 * w, total + ((w @ row[0] - row[1]) ** 2).sum()), None

        return jax.lax.scan(step, (w, 0 * x[0, 0]), (x, y))[0]

    for added, columns in ((12, 12), (24, 3)):
        operands = arguments("W @ x", added, columns)
        shapes = matrices(loop, *operands) + spread(loop, *operands)
        assert (columns, added) in shapes
        assert (added, columns) not in shapes or added == columns
        check(loop, *operands, tolerance=1e-4)


def test_a_state_waits_for_few_additions_only():
    def loop(w, h, x):
        def step(h, row):
            return 0.5 * h + row * (w @ h).sum() / 100, None

        return jax.lax.scan(step, h, x)[0]

    for added, stays in ((24, True), (12, False)):
        w, x, _ = arguments("W @ x", added, 8, steps=300)
        assert matrices(loop, w, x[0], x) == [(8, added)] * stays
        check(loop, w, x[0], x, tolerance=1e-4)


@pytest.mark.parametrize(("added", "columns"), [(24, 3), (12, 12)])
def test_in_64_bits(added, columns):
    with jax.enable_x64(True):
        operands = arguments("W @ x", added, columns, dtype="float64")
        w, x, y = map(np.asarray, operands)
        expected = sum(((w @ a - b) ** 2).sum() for a, b in zip(x, y, strict=True))
        found = jax.jit(optimize(summed(WAYS["W @ x"])))(*operands)
        assert_close(found, expected, 1e-12)
