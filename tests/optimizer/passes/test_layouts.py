"""small_dots, layouts: constant matrices as vectors are multiplied by them fastest."""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from jscan import explain, optimize
from jscan._jax.names import JAX_VERSION
from jscan._optimizer.costs.layouts import Layout, faster_layout
from support.comparing import assert_close
from support.optimizer.loops import check, lowered
from support.optimizer.machines import SHIPPED, every_machine

pytestmark = pytest.mark.skipif(
    jax.default_backend() != "cpu", reason="the layouts of a CPU are tested"
)
LANES = 8 if JAX_VERSION < (0, 11) else 16
STEPS = 300

# `(matrix, vector) -> vector`, and the axis of the matrix that is added up.
PRODUCTS = {
    "h @ W": (lambda w, h: h @ w, 0),
    "W @ h": (lambda w, h: w @ h, 1),
    "h @ W.T": (lambda w, h: h @ w.T, 1),
    "of one row": (lambda w, h: (h[None] @ w)[0], 0),
    "by a column": (lambda w, h: (w @ h[:, None])[:, 0], 1),
    "by einsum": (lambda w, h: jnp.einsum("ij,i->j", w, h), 0),
    "exactly": (lambda w, h: jnp.dot(h, w, precision="highest"), 0),
}


def matrix(added, columns, axis, dtype="float32"):
    shape = (added, columns) if axis == 0 else (columns, added)
    return jax.random.normal(jax.random.key(columns), shape, dtype) / added**0.5


def recurrence(multiply, added, columns):
    """A loop whose state of so many numbers meets the matrix at each step."""

    def loop(w, x):
        def step(h, row):
            new = jnp.tanh(multiply(w, h))
            return jnp.resize(new, added) + row, new

        return jax.lax.scan(step, x[0] * 0 + 1, x)[1]

    return loop


def multiplied(function, *arguments):
    """The shapes of what the products of a step multiply."""
    traced = jax.make_jaxpr(lowered(function, *arguments))(*arguments)
    shapes = []
    for loop in traced.eqns:
        if loop.primitive.name == "scan":
            step = loop.params["jaxpr"].eqns
            dots = [e for e in step if e.primitive.name == "dot_general"]
            shapes += [{np.shape(v.aval) for v in dot.invars} for dot in dots]
    return shapes


@pytest.mark.parametrize("how", PRODUCTS)
@pytest.mark.parametrize(
    ("added", "columns", "rows", "stored"),
    [
        (40, 43, False, 48),  # filled up
        (40, 48, False, 48),  # whole registers
        (90, 20, True, 20),  # few numbers, of many each
        (24, 100, False, 104 if LANES == 8 else 112),
    ],
)
def test_how_a_matrix_is_stored(how, added, columns, rows, stored):
    multiply, axis = PRODUCTS[how]
    w = matrix(added, columns, axis)
    x = jax.random.normal(jax.random.key(1), (STEPS, added), "float32") / 4
    loop = recurrence(multiply, added, columns)
    (shapes,) = multiplied(loop, w, x)
    expected = (stored, added) if rows else (added, stored)
    assert expected in shapes
    check(loop, w, x, tolerance=1e-4)
    note = "1 matrix stored as a vector is multiplied fastest"
    if how != "h @ W.T":  # a matrix of its own already
        assert (note in str(explain(loop)(w, x))) == (w.shape != expected)


def test_numbers_of_64_bits_fill_half_as_many_columns():
    with jax.enable_x64(True):
        w, x = matrix(40, 43, 0, "float64"), jnp.ones((STEPS, 40), "float64")
        loop = recurrence(PRODUCTS["h @ W"][0], 40, 43)
        (shapes,) = multiplied(loop, w, x)
        assert (40, 44 if LANES == 8 else 48) in shapes
        assert_close(optimize(loop)(w, x), loop(w, x))


LEFT = {
    "few steps": (43, "float32", 3, ()),
    "several rows": (43, "float32", STEPS, (4,)),
    "half precision": (43, "bfloat16", STEPS, ()),
    "one column more": (49 if LANES == 16 else 41, "float32", STEPS, ()),
}


@pytest.mark.parametrize("why", LEFT)
def test_what_is_left_as_it_is(why):
    columns, dtype, steps, rows = LEFT[why]
    w, x = matrix(40, columns, 0, dtype), jnp.ones((steps, *rows, 40), dtype)

    def loop(w, x):
        step = lambda h, row: (jnp.abs(h @ w)[..., :40] + row, None)
        return jax.lax.scan(step, jnp.ones((*rows, 40), dtype), x)[0]

    (shapes,) = multiplied(loop, w, x)
    assert (40, columns) in shapes


def test_a_matrix_that_changes_is_left():
    w, x = matrix(40, 43, 0), jnp.ones((STEPS, 40), "float32")

    def loop(w, x):
        step = lambda s, row: ((jnp.tanh(s[0] @ s[1])[:40] + row, s[1] * 0.99), None)
        return jax.lax.scan(step, (jnp.ones(40, "float32"), w), x)[0]

    (shapes,) = multiplied(loop, w, x)
    assert (40, 43) in shapes
    check(loop, w, x, tolerance=1e-4)


def test_the_memory_budget_has_a_say():
    w, x = matrix(40, 43, 0), jnp.ones((STEPS, 40), "float32")
    loop = recurrence(PRODUCTS["h @ W"][0], 40, 43)
    note = "1 matrix stored"
    assert note in str(explain(loop, memory_budget=40 * 48 * 4)(w, x))
    assert note not in str(explain(loop, memory_budget=40 * 48 * 4 - 1)(w, x))


def test_one_matrix_for_all_that_multiply_by_it():
    w, x = matrix(40, 43, 0), jnp.ones((STEPS, 40), "float32")

    def loop(w, x):
        def step(h, row):
            g = jnp.tanh(h @ w)[:40] + row
            return jnp.tanh(g @ w)[:40], g

        return jax.lax.scan(step, jnp.ones(40, "float32"), x)[1]

    assert "1 matrix stored" in str(explain(loop)(w, x))
    check(loop, w, x, tolerance=1e-4)


def test_columns_that_nobody_reads_hold_no_nan():
    """Infinities meet zeros there; neither results nor derivatives see that."""
    w, x = matrix(40, 43, 0), jnp.ones((STEPS, 40), "float32").at[100, 7].set(jnp.inf)
    loop = recurrence(PRODUCTS["h @ W"][0], 40, 43)
    np.testing.assert_array_equal(
        np.isnan(optimize(loop)(w, x)), np.isnan(np.asarray(loop(w, x)))
    )
    of_end = lambda f: jax.grad(lambda w: f(w, x)[-1].sum())
    np.testing.assert_array_equal(
        np.isnan(optimize(of_end(loop))(w)), np.isnan(np.asarray(of_end(loop)(w)))
    )


LAYOUTS = {
    # layout now, numbers added up, lanes, steps: layout that is faster
    "whole": ((False, 64), 64, 8, 500, None),
    "filled up": ((False, 60), 64, 8, 500, (False, 64)),
    "one more": ((False, 65), 64, 8, 500, None),
    "many more of a small one": ((False, 9), 12, 8, 500, None),
    "few more of a small one": ((False, 14), 14, 8, 500, (False, 16)),
    "narrow": ((False, 16), 64, 8, 500, (True, 16)),
    "narrow as it is": ((True, 16), 64, 8, 500, None),
    "wide": ((True, 100), 64, 8, 500, (False, 104)),
    "square, by rows": ((True, 64), 64, 8, 500, (False, 64)),
    "between": ((True, 48), 64, 8, 500, None),
    "few steps": ((False, 60), 64, 8, 10, None),
    "few steps of a small one": ((False, 9), 9, 16, 40, None),
    "more steps of a small one": ((False, 9), 9, 16, 60, (False, 16)),
    "tiny": ((False, 5), 5, 8, 500, None),
    "a single number": ((False, 1), 200, 8, 500, None),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_which_layout_is_faster(name):
    now, added, lanes, steps, expected = LAYOUTS[name]
    found = faster_layout(Layout(*now), added, lanes, steps)
    assert found == (expected and Layout(*expected))


@pytest.mark.parametrize(
    ("steps", "beside", "stored"),
    [(100, False, False), (4000, False, True), (100, True, True)],
)
def test_a_layout_that_hands_the_program_to_a_thread(steps, beside, stored):
    """With columns of zeros XLA counts a thousand operations of a program."""
    loop = recurrence(lambda w, h: w @ h, 21, 21)
    large = jnp.ones((30, 30))

    def program(w, x):
        return loop(w, x), (large @ large if beside else None)

    w, x = matrix(21, 21, 1), jnp.ones((steps, 21), "float32")
    with every_machine(SHIPPED["cpu"]):
        (shapes,) = multiplied(optimize(program), w, x)
        got = optimize(program)(w, x)
    assert ({(21, 24 if LANES == 8 else 32), (21,)} == shapes) is stored
    assert_close(got, program(w, x))


def test_small_products_that_hand_a_program_over_together():
    """One of three has columns of zeros: with two XLA would count a thousand."""

    def loop(x, *layers):
        def step(h, row):
            for layer in layers:
                h = jnp.sin(h) @ layer
            return h + row, None

        return jax.lax.scan(step, x[0], x)[0]

    layers = (matrix(12, 12, 0) / n for n in (1, 2, 3))
    arguments = jnp.ones((150, 12), "float32"), *layers
    others = {"small_columns": 0, "longest_row": 0, "merged_dot": 0}
    machine = dataclasses.replace(SHIPPED["cpu"], register_bytes=64, **others)
    with every_machine(machine):
        alone = multiplied(optimize(loop), *arguments)
    with every_machine(machine.dispatched()):
        handed_over = multiplied(optimize(loop), *arguments)
    full = {(12, 16), (12,)}
    assert alone.count(full) == 1
    assert handed_over.count(full) == 3


def _mesh(kind):
    names, axes = ("d",), (kind,)
    return jax.make_mesh((2,), names, axis_types=axes, devices=jax.devices()[:2])


@pytest.fixture
def rows():
    """A layer, and two rows of everything, one for each of two devices."""
    w = matrix(40, 43, 0)
    xs = jax.random.normal(jax.random.key(2), (2, STEPS, 40), "float32") / 4
    loop = recurrence(PRODUCTS["h @ W"][0], 40, 43)
    value = lambda w, x: (loop(w, x) ** 2).sum()
    if jax.device_count() < 2:
        pytest.skip("two devices are needed")
    return value, w, xs


def test_within_shard_map_each_device_stores_its_own(rows):
    """The vector varies over the devices, the matrix does not; nor does its slope."""
    value, w, xs = rows

    def parts(optimized):
        def part(w, x):
            one = lambda w: jax.lax.psum(optimized(value)(w, x[0]), "d")
            return jax.value_and_grad(one)(w)

        specs: Any = dict(in_specs=(P(), P("d")), out_specs=P())
        return jax.jit(jax.shard_map(part, mesh=_mesh(AxisType.Auto), **specs))

    assert_close(parts(optimize)(w, xs), parts(lambda f: f)(w, xs), 1e-4)
    text = parts(optimize).lower(w, xs).as_text()
    assert "tensor<40x48xf32>" in text


def _two_lags(w, x):
    def step(s, row):
        h, p = s
        return (jnp.tanh(h @ w[:, :40] + p @ w[:, 3:] + row), h), h

    return jax.lax.scan(step, (x[0], x[1]), x)[1]


def _gates(w, x):
    def step(h, row):
        z = jax.nn.sigmoid(h @ w[:, :40] + row)
        h = z * h + (1 - z) * jnp.tanh((h * row) @ w[:, 3:])
        return h, h

    return jax.lax.scan(step, x[0], x)[1]


@pytest.mark.parametrize("network", [_two_lags, _gates])
def test_after_other_rules_within_shard_map(network):
    """What was put together or transposed before varies over devices as it did."""
    w = matrix(40, 43, 0)
    xs = jax.random.normal(jax.random.key(2), (2, STEPS, 40), "float32") / 4

    def slope(optimized):
        def part(w, x):
            value = optimized(jax.grad(lambda w: (network(w, x[0]) ** 2).sum()))
            return jax.lax.pmean(value(w), "d")

        specs: Any = dict(in_specs=(P(), P("d")), out_specs=P())
        return jax.jit(jax.shard_map(part, mesh=_mesh(AxisType.Auto), **specs))

    assert_close(slope(optimize)(w, xs), slope(lambda f: f)(w, xs), 1e-3)


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_on_a_mesh_it_is_left(rows, kind):
    """Columns that are split over devices do not become others."""
    _, w, xs = rows
    mesh = _mesh(kind)
    with jax.set_mesh(mesh):
        x = jax.device_put(xs[0], NamedSharding(mesh, P()))
        placed = jax.device_put(w[:, :42], NamedSharding(mesh, P(None, "d")))
        step = lambda w, h, row: (jnp.tanh(h @ w).sum() * h + row, None)
        loop = lambda w, x: jax.lax.scan(partial(step, w), x[0], x)[0]
        text = jax.jit(optimize(loop)).lower(placed, x).as_text()
        assert "tensor<40x42xf32>" in text
        assert "tensor<40x48xf32>" not in text
