"""reductions: a long row is reduced slice by slice, and gives what it gave before."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jscan import explain, optimize
from jscan._jax.names import JAX_VERSION
from support.comparing import assert_close
from support.optimizer.loops import check, check_other_derivatives, lowered
from support.optimizer.machines import SHIPPED

pytestmark = [
    pytest.mark.usefixtures("measured_costs"),
    pytest.mark.skipif(
        jax.default_backend() != "cpu", reason="the costs of a CPU are tested"
    ),
]
OLDEST = JAX_VERSION < (0, 11)
STEPS = 12


def rows(*shape):
    return jax.random.normal(jax.random.key(sum(shape)), (STEPS, *shape), "float32")


def with_softmax(h, xs):
    """An attention over the numbers of a row."""

    def step(h, x):
        parts = jax.nn.softmax(x * h)
        return 0.5 * h + parts, (parts * x).sum()

    return jax.lax.scan(step, h, xs)[1]


def with_logsumexp(h, xs):
    def step(total, x):
        return 0.5 * total + jax.nn.logsumexp(x * total), total

    return jax.lax.scan(step, h.sum() / h.size, xs)[1]


def with_layer_norm(h, xs):
    def step(h, x):
        row = 0.5 * h + x
        scale = jax.lax.rsqrt(row.var() + 1e-5)
        return (row - row.mean()) * scale, scale

    return jax.lax.scan(step, h, xs)


def with_a_norm(h, xs):
    """A step of gradient descent whose length is at most one."""

    def step(h, x):
        slope = h - x
        length = jnp.sqrt((slope * slope).sum() + 1e-6)
        return h - 0.5 * slope * jnp.minimum(1.0, 1 / length), length

    return jax.lax.scan(step, h, xs)


def with_extremes(h, xs):
    def step(h, x):
        row = 0.5 * h + x
        return row - row.min() + row.max(), row.max() - row.min()

    return jax.lax.scan(step, h, xs)[1]


def with_rows(h, xs):
    """Three rows, each less its mean."""

    def step(h, x):
        h = 0.9 * h + x[None] * jnp.arange(1.0, 4.0, dtype=x.dtype)[:, None]
        return h - h.mean(1, keepdims=True), h[:, 0]

    return jax.lax.scan(step, jnp.stack([h, -h, 2 * h]), xs)[1]


def with_a_row_of_one(h, xs):
    """A state of one row, as cells with a batch of one have it."""

    def step(h, x):
        h = 0.5 * h + x
        return h, jnp.abs(h).sum()

    return jax.lax.scan(step, h[None], xs[:, None])[1]


LOOPS = {
    "softmax": with_softmax,
    "logsumexp": with_logsumexp,
    "layer norm": with_layer_norm,
    "norm": with_a_norm,
    "extremes": with_extremes,
    "rows": with_rows,
    "a row of one": with_a_row_of_one,
}


def reduced(function, *arguments):
    """The shapes of what the steps of a loop reduce, and of its slices."""
    traced = jax.make_jaxpr(lowered(function, *arguments))(*arguments)
    shapes = {"reduce": [], "slice": []}
    for loop in traced.eqns:
        if loop.primitive.name == "scan":
            for equation in loop.params["jaxpr"].eqns:
                kind = equation.primitive.name.partition("_")[0]
                of = equation.outvars if kind == "slice" else equation.invars
                shapes.get(kind, []).append(of[0].aval.shape)
    return shapes


@pytest.mark.parametrize("wide", [96, 100, 131, 700])
@pytest.mark.parametrize("name", LOOPS)
def test_no_long_row_is_reduced_whole(name, wide):
    function, xs = LOOPS[name], rows(wide)
    found = reduced(function, xs[0], xs)
    assert found["reduce"]
    assert all(shape[-1] <= 32 for shape in found["reduce"])
    slices = [shape[-1] for shape in found["slice"]]
    assert len(slices) >= wide // 32
    assert "many numbers at a time" in str(explain(function)(xs[0], xs))
    check(function, xs[0], xs, tolerance=2e-4)


@pytest.mark.parametrize("name", LOOPS)
def test_other_derivatives_agree(name):
    """Forward mode, second order and remat, the optimizer inside and outside."""
    function, xs = LOOPS[name], rows(100)

    def loss(scale):
        leaves = jax.tree.leaves(jax.checkpoint(function)(scale * xs[0], xs))
        return sum((leaf**2).mean() for leaf in leaves)

    check_other_derivatives(loss)


def test_a_numpy_loop_says_the_same():
    h, xs = np.asarray(rows(131)[0]), np.asarray(rows(131))
    expected, state = [], h.astype(np.float64)
    for x in xs.astype(np.float64):
        row = 0.5 * state + x
        expected.append((row.var() + 1e-5) ** -0.5)
        state = (row - row.mean()) * expected[-1]
    last, scales = optimize(with_layer_norm)(h, xs)
    np.testing.assert_allclose(scales, expected, 1e-5)
    np.testing.assert_allclose(last, state, 1e-4, 1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_is_not_finite_stays_so(dtype):
    """A NaN in any place of a row is its largest number; infinities meet no zeros."""
    with jax.enable_x64(dtype == "float64"):
        xs = jnp.asarray(np.random.default_rng(0).normal(size=(40, 131)), dtype)
        xs = xs.at[np.arange(5, 15), np.arange(0, 130, 13)].set(jnp.nan)
        xs = xs.at[20, 3].set(jnp.inf).at[21, 130].set(-jnp.inf)

        def function(xs):
            step = lambda c, x: (
                x[0] + c,
                (x.sum(), x.max(), x.min(), jnp.exp(x).sum()),
            )
            return jax.lax.scan(step, xs[0, 1], xs)[1]

        assert len(reduced(function, xs)["slice"]) >= 4 * 8
        fast = jax.jit(optimize(function))(xs)
        for new, old in zip(fast, np_reduced(np.asarray(xs)), strict=True):
            np.testing.assert_allclose(new, old, 1e-4)


def np_reduced(xs):
    return xs.sum(1), xs.max(1), xs.min(1), np.exp(xs).sum(1)


def _summed(of, wide, dtype="float32", high=()):
    """A loop with one sum, of what `of` makes of a row, over its last axis."""

    def function(xs):
        def step(total, x):
            return total - of(x).sum(-1, dtype=dtype), None

        return jax.lax.scan(step, jnp.zeros(high, dtype), xs)[0]

    return function, jnp.ones((STEPS, *high, wide), dtype)


STAY = {
    "a short row": (jnp.abs, 32, "float32", ()),
    "squares": (lambda x: x * x, 80, "float32", ()),
    "whole numbers": (jnp.abs, 100, "int32", ()),
    "too many": (jnp.abs, 128, "float32", (100,)),
    "rows of functions": (jnp.exp, 100, "float32", (4,)),
    "short rows": (jnp.abs, 60, "float32", (4,)),
}


@pytest.mark.parametrize("why", STAY)
def test_what_stays_whole(why):
    of, wide, dtype, high = STAY[why]
    function, xs = _summed(of, wide, dtype, high)
    found = reduced(function, xs)
    assert not found["slice"]
    assert "at a time" not in str(explain(function)(xs))


def test_what_cannot_be_joined_is_left_and_costs_what_it_did():
    """The place of the largest number, and a product, beside a sum that is sliced."""

    def function(xs):
        step = lambda c, x: (0.5 * c + jnp.abs(x).sum(), (jnp.argmax(x), x.prod()))
        return jax.lax.scan(step, jnp.zeros((), xs.dtype), xs)

    xs = rows(100)
    assert len(reduced(function, xs)["slice"]) == 7  # of the sum alone
    assert_close(optimize(function)(xs), function(xs), 1e-5)
    step = jax.make_jaxpr(lambda x: (jnp.argmax(x), x.prod()))(xs[0]).eqns
    found = [e for e in step if e.primitive.name in ("argmax", "reduce_prod")]
    assert len(found) == 2
    assert not any(map(SHIPPED["cpu"].slice_of, found))
    assert all(SHIPPED["cpu"].saved_by_reduction(e) > 0 for e in found)


def test_columns_are_added_up_whole():
    """The compiler adds many columns up at once."""
    step = lambda total, x: (0.5 * total + jnp.abs(x).sum(0), None)
    function = lambda xs: jax.lax.scan(step, jnp.zeros(8, "float32"), xs)[0]
    assert not reduced(function, rows(100, 8))["slice"]


@pytest.mark.parametrize("wide", [64, 80])
def test_functions_that_are_vectorised_are_added_up_whole(wide):
    """By JAX 0.12 from 48 to 80 of them are; their largest is found in slices."""
    function, xs = with_logsumexp, rows(wide)
    found = reduced(function, xs[0], xs)
    whole = found["reduce"].count((wide,))
    assert whole == (0 if OLDEST else 1)
    check(function, xs[0], xs, tolerance=2e-4)


def test_of_devices_that_hold_parts_of_a_row_nothing_is_asked():
    """A slice would be on one of them; within `shard_map` each has rows of its own."""
    if jax.device_count() < 2:
        pytest.skip("two devices are needed")
    from jax.sharding import NamedSharding
    from jax.sharding import PartitionSpec as P

    auto = (jax.sharding.AxisType.Auto,)
    mesh = jax.make_mesh((2,), ("d",), axis_types=auto, devices=jax.devices()[:2])
    xs = rows(128)
    parts = jax.device_put(xs, NamedSharding(mesh, P(None, "d")))
    run = jax.jit(optimize(with_layer_norm))
    first = jax.device_put(xs[0], NamedSharding(mesh, P("d")))
    assert_close(run(first, parts), with_layer_norm(xs[0], xs), 1e-4)
    assert "tensor<16xf32>" not in run.lower(first, parts).as_text()
    both = jax.device_put(jnp.stack([xs, 2 * xs], 1), NamedSharding(mesh, P(None, "d")))

    def of_each(f):
        own = lambda xs: jax.lax.psum(f(xs[0, 0], xs[:, 0])[0], "d")
        specs: Any = dict(in_specs=P(None, "d"), out_specs=P())
        return jax.jit(jax.shard_map(own, mesh=mesh, **specs))

    plain, fast = of_each(with_layer_norm), of_each(optimize(with_layer_norm))
    assert_close(fast(both), plain(both), 1e-4)
    assert "tensor<16xf32>" in fast.lower(both).as_text()


SHAPES = [(100,), (1, 100), (3, 100), (2, 3, 100), (100, 1), (2, 100, 1), (100, 4)]
KINDS = ["sum", "max", "min", "prod", "mean"]


def test_every_axis_of_every_shape_agrees_with_numpy():
    """Of rows, columns and whole arrays in one step some are sliced, others not."""
    some = {shape: np.random.default_rng(9).normal(1.0, 0.1, shape) for shape in SHAPES}
    some = {shape: array.astype("float32") for shape, array in some.items()}
    cases = [
        (shape, axes, kind)
        for shape in SHAPES
        for count in range(1, len(shape) + 1)
        for axes in itertools.combinations(range(len(shape)), count)
        for kind in KINDS
    ]

    def function(scales):
        def step(carry, scale):
            results = [
                getattr(jnp, kind)(scale * some[shape], axis=axes)
                for shape, axes, kind in cases
            ]
            return carry + 1, results

        return jax.lax.scan(step, 0, scales)[1]

    scales = jnp.linspace(0.9, 1.1, 6, dtype="float32")
    assert reduced(function, scales)["slice"]
    for (shape, axes, kind), rows in zip(
        cases, optimize(function)(scales), strict=True
    ):
        given = np.asarray(scales).reshape(-1, *[1] * len(shape)) * some[shape]
        expected = getattr(np, kind)(given, axis=tuple(a + 1 for a in axes))
        np.testing.assert_allclose(rows, expected, 2e-5)
