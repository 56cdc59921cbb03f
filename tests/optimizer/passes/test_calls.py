"""calls: what loops start from is worked out by one call, with the same results."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import io_callback
from jax.sharding import PartitionSpec as P

from jscan import explain, optimize
from jscan._jax.jaxprs import open_jaxpr
from jscan._optimizer.analysis.index import flattened
from jscan._optimizer.analysis.ready import most_ready
from support.comparing import assert_close
from support.optimizer.loops import check, check_other_derivatives

pytestmark = [
    pytest.mark.usefixtures("measured_costs"),
    pytest.mark.skipif(
        jax.default_backend() != "cpu", reason="the costs of a CPU are tested"
    ),
]
STEPS = 200


def rows(*shape):
    return jax.random.normal(jax.random.key(sum(shape)), shape, "float32")


def many_starts(p, y, count=10):
    """A loop with constants, each of which is a function of its own before it."""
    parts = [jnp.tanh(p[i : i + 3]) * ((i + 1) / count) for i in range(count)]

    def step(h, x):
        for part in parts:
            h = 0.5 * jnp.sin(h) * part + x
        return h, h.sum()

    return jax.lax.scan(step, p[:3], y)


def seasons(p, y):
    """Exponential smoothing with a trend and seasons, its weights between 0 and 1."""
    level, trend, season = jax.nn.sigmoid(p[0]), jax.nn.sigmoid(p[1]), p[2] ** 2

    def step(state, x):
        a, b, s = state
        new = level * (x - s[0]) + (1 - level) * (a + b)
        slope = trend * (new - a) + (1 - trend) * b
        here = season * (x - new) + (1 - season) * s[0]
        s = jnp.concatenate([s[1:], here[None]])
        return (new, slope, s), a + b + s[0]

    return jax.lax.scan(step, (p[3], p[4], p[5:10]), y)[1]


P0, Y = rows(16), rows(STEPS)
CALL = re.compile(r" call\([^\n]*inlineable=\"false\"")


def calls_of(function, *arguments):
    """How many calls are left in what it is compiled to."""
    text = jax.jit(optimize(function)).lower(*arguments).compile().as_text()
    return len(CALL.findall(text or ""))


def ready(function, *arguments):
    return most_ready(flattened(open_jaxpr(jax.make_jaxpr(function)(*arguments))[0]))


@pytest.mark.any_jax
def test_many_starts_are_called_together():
    assert ready(many_starts, P0, Y) > 8
    assert calls_of(many_starts, P0, Y) == 2
    report = explain(many_starts)(P0, Y)
    assert "called together" in str(report)
    assert "calls" in report.loops[0].fired


@pytest.mark.any_jax
@pytest.mark.parametrize("function", [many_starts, seasons])
def test_results_and_derivatives_are_the_same(function):
    check(function, P0, Y)


def test_other_derivatives_are_the_same():
    check_other_derivatives(
        lambda at: many_starts(P0 * at.astype("float32"), Y)[0].sum()
    )


@pytest.mark.any_jax
def test_of_a_gradient():
    gradient = jax.grad(lambda p, y: jnp.square(seasons(p, y)).sum())
    assert_close(optimize(gradient)(P0, Y), gradient(P0, Y))
    assert calls_of(gradient, P0, Y) > 0


def test_against_a_loop_in_numpy():
    parts = [np.tanh(np.asarray(P0)[i : i + 3]) * (i + 1) / 10 for i in range(10)]
    h, sums = np.asarray(P0)[:3], []
    for x in np.asarray(Y):
        for part in parts:
            h = 0.5 * np.sin(h) * part + x
        sums.append(h.sum())
    last, rows_of_sums = optimize(many_starts)(P0, Y)
    np.testing.assert_allclose(last, h, rtol=2e-3, atol=2e-3)
    np.testing.assert_allclose(rows_of_sums, sums, rtol=2e-3, atol=2e-3)


@pytest.mark.any_jax
def test_what_a_loop_starts_from_may_be_donated():
    def run(h, p, y):
        return many_starts(p.at[:3].set(h), y)[0] + h

    h = jnp.arange(3, dtype="float32")
    wanted = run(h, P0, Y)
    assert_close(jax.jit(optimize(run), donate_argnums=0)(h, P0, Y), wanted)


@pytest.mark.any_jax
def test_a_start_that_is_read_elsewhere_too():
    """It is handed through the call for the loop, and read as it is by the rest."""

    def run(h, p, y):
        parts = [jnp.tanh(p[i : i + 3]) for i in range(10)]
        step = lambda h, x: (sum(h * part for part in parts) * x, h)
        last, found = jax.lax.scan(step, h, y)
        return last + h, found * h[None]

    h = jnp.full(3, 0.1, "float32")
    assert_close(optimize(run)(h, P0, Y), run(h, P0, Y))
    assert calls_of(run, h, P0, Y) > 0


@pytest.mark.any_jax
def test_few_functions_stay():
    few = lambda p, y: many_starts(p, y, count=4)
    assert ready(few, P0, Y) <= 8
    assert calls_of(few, P0, Y) == 0


def test_large_arrays_stay():
    """What is worth a thread is left to it."""
    assert calls_of(many_starts, P0, rows(30_000)) > 0
    assert calls_of(many_starts, P0, rows(70_000)) == 0


def test_it_can_be_switched_off():
    text = jax.jit(optimize(many_starts, passes="unroll")).lower(P0, Y).compile()
    assert not CALL.search(text.as_text() or "")


def test_on_another_platform_nothing_is_called():
    from jscan._optimizer.entry import rewrite

    program = jax.make_jaxpr(many_starts)(P0, Y)
    for platform, wanted in (("cpu", True), ("cuda", False), ("unknown", False)):
        new = open_jaxpr(rewrite(program, platform=platform))[0]
        assert any(e.primitive.name == "jit" for e in new.eqns) is wanted


def test_under_shard_map_and_on_split_arrays():
    if jax.device_count() < 2:
        pytest.skip("two devices are needed")
    auto = (jax.sharding.AxisType.Auto,)
    mesh = jax.make_mesh((2,), ("d",), axis_types=auto, devices=jax.devices()[:2])
    p = rows(2, 16)
    own = lambda f: lambda p, y: f(p[0], y)[1][None]
    specs: Any = dict(mesh=mesh, in_specs=(P("d"), P()), out_specs=P("d"))
    plain, fast = (
        jax.jit(jax.shard_map(own(f), **specs))
        for f in (many_starts, optimize(many_starts))
    )
    wanted = jnp.stack([many_starts(q, Y)[1] for q in p])
    assert_close(plain(p, Y), wanted, 1e-4)
    assert_close(fast(p, Y), wanted, 1e-4)
    split = jax.device_put(p, jax.NamedSharding(mesh, P("d")))
    each = jax.jit(optimize(lambda p: jax.vmap(lambda q: many_starts(q, Y)[1])(p)))
    assert_close(each(split), wanted, 1e-4)
    assert not CALL.search(each.lower(split).compile().as_text() or "")


def test_it_counts_what_is_ready():
    """A function for each of the constants, and what a loop needs for itself."""
    counts = [ready(lambda p, y, n=n: many_starts(p, y, n), P0, Y) for n in (2, 5, 9)]
    assert counts[0] < counts[1] < counts[2]
    assert counts[2] - counts[1] == 4


@pytest.mark.any_jax
@pytest.mark.parametrize(("steps", "stored"), [(200, True), (2000, False)])
def test_rows_of_one_number_stay_rows_if_they_are_few(steps, stored):
    """What is done with them is not done with the number, by functions of its own."""

    def likelihood(p, y):
        scale = jnp.exp(p)
        _, (means, scales) = jax.lax.scan(
            lambda mean, x: (0.5 * mean + x, (mean, scale)), jnp.zeros_like(p), y
        )
        return (jax.lax.lgamma(scales) - jnp.square((y - means) / scales)).sum()

    p, y = jnp.float32(0.3), rows(steps)
    text = jax.jit(optimize(likelihood)).lower(p, y).as_text()
    assert ("optimization_barrier" in text) is stored
    check(likelihood, p, y)


@pytest.mark.any_jax
def test_a_program_of_wide_numbers_is_lowered_where_they_are_not_set():
    with jax.enable_x64(True):
        p, y = (np.asarray(x, "float64") for x in (P0, Y))
        wide = lambda p, y: many_starts(p, y)[0] * 2
        traced = jax.jit(optimize(wide)).trace(p, y)
        wanted = wide(jnp.asarray(p), jnp.asarray(y))
    with jax.enable_x64(False):
        compiled = traced.lower().compile()
    assert CALL.search(compiled.as_text() or "")
    (got,) = jax.tree.leaves(compiled(p, y))
    assert got.dtype == "float64"
    np.testing.assert_allclose(got, wanted, 1e-12, 1e-12)


@pytest.mark.any_jax
def test_effects_keep_their_order():
    seen = []

    def note(text, value):
        io_callback(lambda _: seen.append(text), None, value, ordered=True)

    def run(p, y):
        note("before", p[0])
        last, found = many_starts(p, y)
        note("behind", last[0])
        return found

    assert_close(jax.jit(optimize(run))(P0, Y), many_starts(P0, Y)[1], 1e-4)
    jax.effects_barrier()
    assert seen == ["before", "behind"]
    assert calls_of(run, P0, Y) > 0


@pytest.mark.any_jax
def test_products_before_a_loop_stay_as_they_are():
    """They may be worth a thread: ten of them are ten functions."""

    def run(p, y):
        weights = [jnp.full((16, 3), (i + 1) / 100, p.dtype) for i in range(10)]
        parts = [p @ weight for weight in weights]

        def step(h, x):
            for part in parts:
                h = 0.5 * jnp.sin(h) * jnp.tanh(part) + x
            return h, h.sum()

        return jax.lax.scan(step, jnp.zeros(3, p.dtype), y)

    assert ready(run, P0, Y) > 8
    text = jax.jit(optimize(run)).lower(P0, Y).as_text()
    called = re.findall(r"func private @called.*?\n  }", text, re.DOTALL)
    assert not any("dot_general" in body for body in called)
    check(run, P0, Y)
