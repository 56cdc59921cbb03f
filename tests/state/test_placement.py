"""Variables lie where they lay: on meshes, through calls, stores and pickles."""

import contextlib
import copy
import pickle
import subprocess
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, SingleDeviceSharding
from jax.sharding import PartitionSpec as P

import jscan

KINDS = {"auto": AxisType.Auto, "explicit": AxisType.Explicit}
MESHES = {
    name: Mesh(np.array(jax.devices()[:8]).reshape(2, 4), ("a", "b"), axis_types=(k, k))
    for name, k in KINDS.items()
}
MESH = MESHES["auto"]
W = np.arange(32.0, dtype=np.float32).reshape(4, 8) / 32
X = ((np.arange(32) % 5 - 1) / 4).astype(np.float32).reshape(4, 8)  # sums are exact

compiled: list[str] = []  # programs that XLA was given


def listen(event: str, duration_secs: float, **_: str | int) -> None:
    compiled.extend([event] if "backend_compile" in event else [])


jax.monitoring.register_event_duration_secs_listener(listen)


def at(*spec, mesh=MESH):
    return NamedSharding(mesh, P(*spec))


def put(value, *spec, mesh=MESH):
    return jax.device_put(value, at(*spec, mesh=mesh))


@pytest.fixture(params=MESHES)
def mesh(request):
    return MESHES[request.param]


def beside(w, x):
    """A sum that is split as `x` is."""
    if AxisType.Explicit in jax.typeof(w).sharding.mesh.axis_types:
        w = jax.sharding.reshard(w, jax.typeof(x).sharding)
    return w + x


PROGRAMS = {
    "elementwise": lambda w, x: w.value * 2 + x.sum(),
    "drifting": lambda w, x: beside(w.value, x),
    "whole": lambda w, x: jnp.ones((4, 8), x.dtype) * x.sum(),
    "loop": lambda w, x: jscan.scan(
        lambda row, s: s * 0.9 + row.sum(), sequences=x, outputs_info=w.value
    ).outputs[-1],
}


PLACES = [((), False), (("a",), True), ((None, ("a", "b")), False), (("b", "a"), True)]


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize(("spec", "donate"), PLACES)
def test_a_function_leaves_the_new_value_where_the_old_one_lay(
    mesh, spec, name, donate
):
    w = jscan.shared(put(W, *spec, mesh=mesh), "w")
    alone = jscan.shared(W, "alone")
    program = PROGRAMS[name]
    step = jscan.function(lambda x: (x.sum(), {w: program(w, x)}), donate=donate)
    one = jscan.function(lambda x: (x.sum(), {alone: program(alone, x)}))
    x = put(X, None, "a", mesh=mesh)
    before = w.sharding
    step(x)
    first = len(compiled)
    for _ in range(3):
        step(x)
        assert w.sharding == before == w.value.sharding
    assert len(compiled) == first  # one compilation
    for _ in range(4):
        one(X)
    np.testing.assert_allclose(w.get_value(), alone.get_value(), rtol=1e-5)


@pytest.mark.parametrize("donate", [False, True])
def test_what_nobody_has_placed_joins_the_mesh_and_stays(mesh, donate):
    """A counter, a stream, and the one leaf of an optimizer's state that is new."""
    count, rng = jscan.shared(np.int32(0), "count"), jscan.RandomStreams(3)
    m = put(W, "a", mesh=mesh)
    state = jscan.shared({"count": jnp.zeros((), jnp.int32), "m": m}, "state")
    before = state.sharding["m"]
    noise = rng.normal(size=(4, 8), dtype="float32")

    @jscan.function(donate=donate)
    def step(x):
        new = {"count": state.value["count"] + 1, "m": state.value["m"] + x.sum()}
        return noise.value, {count: count + 1, state: new}

    read = count.value
    x = put(X, "a", mesh=mesh)
    draws = [np.asarray(step(x))]
    assert int(read) == 0  # was copied, not given away
    first = len(compiled)
    draws += [np.asarray(step(x)) for _ in range(2)]
    assert len(compiled) == first
    everywhere = at(mesh=mesh)
    assert count.sharding == everywhere
    assert rng.state.sharding == type(rng.state.value)(everywhere, everywhere)
    assert state.sharding == {"count": everywhere, "m": before}
    assert count.get_value() == state.get_value()["count"] == 3
    alone = jscan.RandomStreams(3).normal(size=(4, 8), dtype="float32")
    by_one = jscan.function(lambda: alone.value)
    for draw in draws:
        np.testing.assert_array_equal(draw, by_one())


def test_a_function_that_ran_on_one_device_may_go_on_to_a_mesh():
    count = jscan.shared(np.float32(0), "count")
    step = jscan.function(lambda x: (x.sum(), {count: count + x.sum()}))
    step(X)
    assert isinstance(count.sharding, SingleDeviceSharding)
    for _ in range(2):
        step(put(np.abs(X), None, "b"))
        assert count.sharding == at()
    step(X)
    assert count.sharding == at()
    assert count.get_value() == 2 * (np.abs(X).sum() + X.sum())


def test_a_variable_joins_the_mesh_that_is_set_or_asked_for():
    for asked, ambient in (
        (at("a"), contextlib.nullcontext),
        (None, lambda: jax.set_mesh(MESH)),
    ):
        count = jscan.shared(np.float32(0), "count")
        step = jscan.function(
            lambda x: {count: count + x.sum()},
            in_shardings=asked,
        )
        with ambient():
            step(X)
            step(X)
        assert count.sharding == at()


def test_a_function_follows_a_variable_that_moves():
    w = jscan.shared(W, "w", sharding=at("a"))
    step = jscan.function(lambda: {w: w * 2})
    step()
    w.set_value(w.value, sharding=at(None, "b"))
    step()
    assert w.sharding == at(None, "b")
    w.set_value(W, sharding=at("b"))
    step()
    assert w.sharding == at("b")
    np.testing.assert_array_equal(w.get_value(), 2 * W)


def test_a_function_in_a_function_and_in_debug_mode():
    w = jscan.shared(W, "w", sharding=at("a"))
    v = jscan.shared(W, "v", sharding=at(None, "b"))
    inner = jscan.function(lambda x: (v.value, {v: v + w.value, w: w * 2}))
    outer = jscan.function(lambda x: inner(x)[:1] + w.value)
    debug = jscan.function(inner.fn, mode="DEBUG")
    for call in (outer, debug, inner, outer):
        call(put(X, "a"))
        assert (w.sharding, v.sharding) == (at("a"), at(None, "b"))
    np.testing.assert_array_equal(v.get_value(), 16 * W)


VALUES = {
    "numpy": lambda w: np.ones_like(W),
    "get_value": lambda w: w.get_value(),
    "jax": lambda w: jnp.ones((4, 8), jnp.float32),
    "elsewhere": lambda w: put(W, "b"),
    "one device": lambda w: jax.device_put(W, jax.devices()[3]),
    "another shape": lambda w: np.ones((6, 8), np.float32),
}
STORES = {
    "set_value": lambda w, value: w.set_value(value),
    "borrow": lambda w, value: w.set_value(value, borrow=True),
    "apply": lambda w, value: jscan.Updates({w: value}).apply(),
}


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("kind", VALUES)
def test_what_is_stored_lies_where_the_old_value_lay(mesh, kind, store):
    w = jscan.shared(W, "w", sharding=at("a", "b", mesh=mesh))
    value = VALUES[kind](w)
    expected = np.array(value)
    STORES[store](w, value)
    assert w.sharding == at("a", "b", mesh=mesh)
    np.testing.assert_array_equal(w.get_value(), expected)
    jscan.function(lambda: {w: w * 2}, donate=True)()
    np.testing.assert_array_equal(w.get_value(), 2 * expected)
    if store != "borrow":  # nothing of the caller's was given away
        np.testing.assert_array_equal(np.asarray(value), expected)


def test_loops_draws_and_seeds_keep_places():
    w, rng = jscan.shared(W, "w", sharding=at("a")), jscan.RandomStreams(1)
    rng.state.set_value(rng.state.value, sharding=at())
    noise = rng.normal(size=(4, 8), dtype="float32")
    updates = jscan.scan(lambda: {w: w + noise}, n_steps=3).updates
    updates.apply()
    assert (w.sharding, rng.state.sharding.counter) == (at("a"), at())
    rng.seed(5)
    assert rng.state.sharding.counter == at()
    assert float(rng.normal().value) == float(jscan.RandomStreams(5).normal().value)


def test_a_number_and_a_tree_of_shardings():
    scale = jscan.shared(1.0, "scale", sharding=at())
    scale.set_value(2)
    assert scale.sharding == at()
    assert not jax.typeof(scale.value).weak_type
    value = {"w": W, "rest": [W, jnp.zeros(3)]}
    tree = jscan.shared(value, sharding={"w": at("a"), "rest": at()})
    assert tree.sharding == {"w": at("a"), "rest": [at(), at()]}
    with jax.set_mesh(MESH):
        assert jscan.shared(W, sharding=P("a")).sharding == at("a")
    keys = jscan.shared(jax.random.split(jax.random.key(0), 8), sharding=at("a"))
    pickled = pickle.loads(pickle.dumps(jscan.shared(W, sharding=at("a"))))
    assert (keys.sharding, pickled.sharding) == (at("a"), at("a"))


def test_one_device_and_its_memory_are_places_too():
    there = SingleDeviceSharding(jax.devices()[3])
    w = jscan.shared(W, "w", sharding=there)
    w.set_value(w.get_value())
    jscan.function(lambda: {w: w * 2})()
    assert w.sharding == pickle.loads(pickle.dumps(w)).sharding == there
    host = at("a").with_memory_kind("pinned_host")
    v = jscan.shared(W, "v", sharding=host)
    v.set_value(W)
    assert v.sharding == host


def test_arguments_and_outputs_lie_as_in_jit(mesh):
    w = jscan.shared(put(W, mesh=mesh), "w")
    run = lambda x, y: {"rows": x * y, "both": (y + 1, (x * w.value).sum())}
    out = {"rows": at(None, "b", mesh=mesh), "both": at(mesh=mesh)}
    got = jscan.function(
        lambda x, y: (run(x, y), {w: w * 1}),
        in_shardings=(at("a", mesh=mesh), None),
        out_shardings=out,
    )(X, X)
    again = jax.jit(lambda v, x, y: run_on(v, x, y), out_shardings=out)
    by_jit = again(w.value, put(X, "a", mesh=mesh), X)
    assert jax.tree.map(lambda x: x.sharding, got) == jax.tree.map(
        lambda x: x.sharding, by_jit
    )
    for one, other in zip(*map(jax.tree.leaves, (got, by_jit)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)


def run_on(w, x, y):
    return {"rows": x * y, "both": (y + 1, (x * w).sum())}


def test_shardings_reach_the_program():
    function = jscan.function(lambda x, n: x * n, in_shardings=at("b"))
    text = jscan.function(
        lambda n, x: x * n, static_argnames="n", in_shardings=(at("b"),)
    )
    assert text(2, np.arange(4.0)).sharding == at("b")
    assert text(3, put(np.arange(4.0), "b")).sharding == at("b")
    only = jscan.function(
        lambda x, *, n: x * n, static_argnames="n", in_shardings=[at("b")]
    )
    assert only(np.arange(4.0), n=2).sharding == at("b")
    with pytest.raises(jscan.ScanTypeError, match="by name"):
        function(np.arange(4.0), n=2)


def test_errors_name_the_variable_and_the_function():
    w = jscan.shared(W, "w", sharding=at("a"))
    step = jscan.function(lambda x: (x.sum(), {w: w + x.sum()}), name="step")
    there = jax.device_put(X, jax.devices()[1])
    with pytest.raises(jscan.ScanValueError, match=r"'step': argument 'x'.*able w"):
        step(there)
    w.set_value(W, sharding=jax.devices()[2])
    message = r"'step': <SharedVariable w: .*>: needed .* 'x', 0, 1, .*; got .* on 2"
    with pytest.raises(jscan.ScanValueError, match=message):
        step(put(X, "a"))
    w.set_value(W, sharding=at("a"))
    cut = jscan.function(lambda: {w: w.value[:3]}, name="cut")
    with pytest.raises(jscan.ScanValueError, match=r"'cut': the update of.*able w"):
        cut()
    with pytest.raises(jscan.ScanValueError, match=r"'w': set_value: .*P\('a'"):
        w.set_value(np.ones((5, 8), np.float32))
    np.testing.assert_array_equal(w.get_value(), W)  # nothing was stored
    with pytest.raises(jscan.ScanValueError, match="'v': sharding: needed"):
        jscan.shared(np.ones(5), "v", sharding=at("a"))
    with pytest.raises(jscan.ScanValueError, match="'v': sharding: needed one"):
        jscan.shared({"a": W}, "v", sharding={"b": at("a")})
    wanted = jscan.function(lambda x: x, in_shardings=at("a"), name="wanted")
    with pytest.raises(jscan.ScanValueError, match=r"'wanted': argument 'x'.*in_shard"):
        wanted(put(X, None, "b"))
    other = jscan.function(lambda x: x, in_shardings=({"k": at("a")},), name="other")
    with pytest.raises(jscan.ScanValueError, match="'other': in_shardings: needed one"):
        other({"q": X})
    out = jscan.function(lambda x: (x, x), out_shardings={"k": at("a")}, name="out")
    with pytest.raises(jscan.ScanValueError, match="'out': out_shardings: needed one"):
        out(X)


def test_copies_lie_where_the_variable_lies(mesh):
    where = at("a", ("b",), mesh=mesh)
    w = jscan.shared(
        {"w": W, "free": np.ones(2)}, "w", sharding={"w": where, "free": None}
    )
    for made in (pickle.loads(pickle.dumps(w)), copy.copy(w), copy.deepcopy(w)):
        assert made.sharding == w.sharding
        np.testing.assert_array_equal(made.get_value()["w"], W)
        jscan.function(lambda: {made: jax.tree.map(jnp.negative, made.value)})()
        assert made.sharding["w"] == where
    np.testing.assert_array_equal(w.get_value()["w"], W)


def test_a_pickle_comes_back_where_there_are_fewer_devices():
    w = jscan.shared(W, "w", sharding=at("a", "b"))
    code = (
        "import pickle, sys, warnings, jax, jscan\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        "    w = pickle.load(sys.stdin.buffer)\n"
        "print(len(jax.devices()), len(w.sharding.device_set), float(w.value.sum()))\n"
        "print([str(x.message) for x in caught])"
    )
    environment = {"JAX_PLATFORMS": "cpu", "PYTHONPATH": ":".join(sys.path)}
    found = subprocess.run(
        [sys.executable, "-c", code],
        input=pickle.dumps(w),
        env=environment,
        capture_output=True,
        check=True,
    )
    first, second = found.stdout.decode().splitlines()
    assert first == f"1 1 {float(W.sum())}"
    assert "shared variable 'w'" in second
    assert "set_value(w.value, sharding=" in second
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pickle.loads(pickle.dumps(w))


def test_a_loop_that_stops_leaves_its_rows_where_they_lie(mesh):
    x = put(np.ones((8, 16), np.float32), None, "b", mesh=mesh)
    step = lambda row, h: (h + row, jscan.until(h.sum() > 20))
    start = put(np.zeros(16, np.float32), "b", mesh=mesh)
    result = jscan.scan(step, x, start)
    assert result.n_steps == 3
    assert result.outputs.sharding.is_equivalent_to(x.sharding, 2)
    np.testing.assert_array_equal(result.outputs, np.ones((1, 16)) * [[1], [2], [3]])
    assert result.outputs.shape == (3, 16)


def test_a_variable_of_a_trace_is_updated_in_it(mesh):
    """Inside `jax.jit` what a function stores belongs to that program."""

    def program(x):
        total = jscan.shared(jnp.zeros((), x.dtype), "total")
        add = jscan.function(lambda x: {total: total + x.sum()})
        add(x)
        add(x)
        return total.value

    x = put(X, None, "a", mesh=mesh)
    assert float(jax.jit(program)(x)) == 2 * X.sum()
