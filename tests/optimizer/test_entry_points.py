"""`optimize` inside and outside of JAX's transformations: loops are rewritten last."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jscan
from jscan import explain, optimize
from jscan._optimizer.lowering import rewritten
from jscan._optimizer.options import choices_of
from jscan._programs import regions as _regions
from support.comparing import assert_close
from support.optimizer.loops import is_region, loop_lengths, operations

X = jnp.linspace(-1.0, 1.0, 6 * 3 * 4).reshape(6, 3, 4)
W = jnp.linspace(-0.5, 0.5, 16).reshape(4, 4)


def rows(w, x):
    step = lambda h, x_t: ((h := jnp.tanh(x_t @ w + h @ w.T)), h)
    return jax.lax.scan(step, jnp.zeros((3, 4), x.dtype), x)[1]


def loss(w, x):
    return (rows(w, x)[-1] ** 2).sum()


TRANSFORMED = {
    "grad": lambda f: lambda w, x: jax.grad(f)(w, x),
    "value_and_grad": lambda f: jax.value_and_grad(f, argnums=(0, 1)),
    "jvp": lambda f: lambda w, x: jax.jvp(f, (w, x), (w, x)),
    "hessian": lambda f: lambda w, x: jax.hessian(lambda w: f(w * W, x))(w.sum()),
    "vmap of grad": lambda f: jax.vmap(jax.grad(f), (0, None)),
    "grad of vmap": lambda f: jax.grad(lambda w, x: jax.vmap(f, (0, None))(w, x).sum()),
    "grad of checkpoint": lambda f: jax.grad(jax.checkpoint(f)),
    "grad in a loop": lambda f: jax.grad(
        lambda w, x: jax.lax.fori_loop(0, 2, lambda i, c: c + f(c * w, x), 0.5)
    ),
}


@pytest.mark.parametrize("name", TRANSFORMED)
def test_transformed_from_outside(name):
    """The same numbers as the plain function, under `jit` and, once, eagerly."""
    transform = TRANSFORMED[name]
    w = jnp.stack([W, -W]) if "vmap" in name else W
    expected = jax.jit(transform(loss))(w, X)
    assert_close(jax.jit(transform(optimize(loss)))(w, X), expected, 1e-4)
    if name == "grad":
        assert_close(transform(optimize(loss))(w, X), expected, 1e-4)


def test_backward_loops_are_seen_from_outside():
    """No order of `grad` and `optimize` leaves a product in a loop that can leave it.

    The forward loop hands its product of sequences out before it, and the backward
    loop the gradient of the weights behind it.
    """

    def products(fun):
        outside, inside = operations(fun, W, X)
        return outside.count("dot_general"), inside.count("dot_general")

    total = lambda w, x: (rows(w, x) ** 2).sum()
    plain, both = products(jax.grad(total)), products(optimize(jax.grad(total)))
    assert products(jax.grad(optimize(total))) == both
    assert both[1] < plain[1]


def test_a_reader_sees_a_scan_in_a_marked_jit():
    """No primitive of ours: JAX's tools read the program as the user's own."""
    (region,) = jax.make_jaxpr(optimize(loss))(W, X).eqns
    assert region.primitive.name == "jit"
    assert region.params["name"].startswith("jscan_optimize")
    inner = [e.primitive.name for e in region.params["jaxpr"].jaxpr.eqns]
    assert "scan" in inner
    assert not any(name.startswith("jscan") for name in inner)


def test_loops_with_work_between_them():
    """What lies between two loops, reads both, or reads none is put where it fits."""

    def two(w, x):
        first = rows(w, x)
        aside = jnp.exp(first).mean()  # reads a loop; no loop reads it
        between = jnp.sin(first) @ w
        second = rows(-w, between + x.mean())
        return second[-1] * aside + first.sum(0) + x[0], aside, x, 2.0, None

    new = jax.jit(optimize(two))
    assert_close(new(W, X), jax.jit(two)(W, X), 1e-5)
    total = lambda f: lambda w: f(w, X)[0].sum()
    assert_close(jax.grad(total(optimize(two)))(W), jax.grad(total(two))(W), 1e-4)


def test_arguments_of_every_kind():
    """Integers, keys, scalars with weak types, flags, texts, None and keywords."""

    def fun(tree, index, *, key, scale, flip=False, kind="sum", nothing=None):
        assert nothing is None
        weights = tree["w"][0]
        weights = weights[::-1] if flip else weights

        def step(c, i):
            return c + weights[i] * jax.random.normal(key), c

        total, history = jax.lax.scan(step, 0.0, index)
        return {"total": getattr(jnp, kind)(total * scale), "none": None}, history

    index = jnp.array([0, 2, 1, 2])
    tree = {"w": [jnp.arange(1.0, 4.0)]}
    given = {"key": jax.random.key(3), "scale": 2.0, "flip": True, "kind": "cos"}
    assert_close(optimize(fun)(tree, index, **given), fun(tree, index, **given))
    scalar = lambda f: lambda t, i: f(t, i, **given)[0]["total"]
    for argnums in (0, (0, 1)):
        slopes = [
            jax.grad(scalar(f), argnums, allow_int=True)(tree, index)
            for f in (optimize(fun), fun)
        ]
        if argnums != 0:
            assert [s[1].dtype for s in slopes] == [jax.dtypes.float0] * 2
            slopes = [s[0] for s in slopes]
        assert_close(*slopes)
    zero = np.zeros(3, jax.dtypes.float0)
    assert optimize(lambda x, z: rows(W, x))(X, zero).shape == (6, 3, 4)


def test_weak_types_stay():
    """A weak scalar comes out weak, eagerly and under `jit`."""
    doubled = lambda a: jax.lax.scan(lambda c, _: (c * 2, c), a, length=3)
    for fun in (optimize(doubled), jax.jit(optimize(doubled))):
        last, history = fun(1.0)
        assert last.weak_type
        assert history.weak_type == doubled(1.0)[1].weak_type
        assert history.tolist() == [1.0, 2.0, 4.0]


def test_captured_arrays_stay_inputs():
    """A captured tracer is differentiated; captured arrays are not baked in."""
    outer = lambda f: lambda w: f(lambda x: rows(w, x).sum())(X)
    assert_close(
        jax.grad(outer(optimize))(W), jax.grad(outer(lambda f: f))(W), tolerance=1e-5
    )
    jaxpr = jax.make_jaxpr(lambda x: optimize(lambda x: rows(W, x))(x))(X)
    (bound,) = (e for e in jaxpr.eqns if is_region(e))
    assert not bound.params["jaxpr"].consts


def test_effects_and_collectives_keep_their_order_and_count():
    seen = []

    def noisy(w, x):
        def step(h, v):
            jax.debug.callback(lambda: seen.append(1))
            return (h := jnp.tanh(h @ w + v)), h

        return jax.lax.scan(step, jnp.zeros((3, 4)), x)[1].sum()

    jax.block_until_ready(jax.jit(optimize(noisy))(W, X))
    jax.effects_barrier()
    assert len(seen) == 6
    shared = lambda f: lambda xs: jax.vmap(f, axis_name="i")(xs).sum()
    total = lambda x: (
        jax.lax.psum(rows(W, x), "i") * jax.lax.axis_index("i").astype(x.dtype)
    )
    xs = jnp.stack([X, X / 2])
    assert_close(
        jax.grad(shared(optimize(total)))(xs), jax.grad(shared(total))(xs), 1e-5
    )


def test_explicit_shardings_are_refused():
    """Such a program runs as it is, and the report says why."""
    kind = jax.sharding.AxisType.Explicit
    mesh = jax.make_mesh((1,), ("d",), axis_types=(kind,))
    with jax.set_mesh(mesh):
        spec = jax.sharding.PartitionSpec(None, "d")
        x = jax.device_put(X, jax.sharding.NamedSharding(mesh, spec))
        scaled = lambda x: jax.lax.scan(lambda c, v: (c + v, c), x[0] * 0, x)[1]
        assert_close(jax.jit(optimize(scaled))(x), jax.jit(scaled)(x))
        assert "axes of the type Explicit (d)" in str(explain(scaled)(x))


def test_sharded_donated_and_exported():
    """Placement by the compiler, donation and export see an ordinary program."""
    mesh = jax.make_mesh((1,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None, "d"))
    expected = jax.grad(loss, 1)(W, X)
    placed = jax.jit(jax.grad(optimize(loss), 1), in_shardings=(None, place))
    assert_close(placed(W, X), expected, 1e-5)
    given = jax.jit(jax.grad(optimize(loss), 1), donate_argnums=1)
    assert_close(given(W, jnp.copy(X)), expected, 1e-5)
    exported = jax.export.export(placed)(W, X)
    assert_close(exported.call(W, X), expected, 1e-5)


def test_options_travel_to_the_lowering():
    """Passes and budget hold for the backward loops, too."""
    few = jax.grad(optimize(loss, passes=["merge"]))
    _, inside = operations(few, W, X)
    _, plain = operations(jax.grad(loss), W, X)
    assert inside.count("dot_general") == plain.count("dot_general")
    assert loop_lengths(jax.grad(optimize(loss, passes=[])), W, X) == [6, 6]


def test_switched_off(monkeypatch):
    """`JSCAN_OPTIMIZE=0` and `jax.disable_jit` call the function itself."""
    calls = []

    def counted(x):
        calls.append(type(x))
        return rows(W, x)

    monkeypatch.setenv("JSCAN_OPTIMIZE", "0")
    optimize(counted)(X)
    monkeypatch.delenv("JSCAN_OPTIMIZE")
    with jax.disable_jit():
        optimize(lambda x: counted(x).sum() if x.sum() > 100 else 0.0)(X[:2] + 100)
    assert calls == [type(X), type(X)]


def test_an_eager_call_compiles_once():
    """A second call with a fresh function of the same structure finds the program."""
    traced = []

    def fresh():
        def fun(x):
            traced.append(1)
            return jax.lax.scan(lambda c, v: (c * 0.25 + v, c), x[0], x)[1][-1]

        return optimize(fun)

    fresh()(X)
    compiled = _regions._entry.cache_info().currsize
    fresh()(X)
    assert _regions._entry.cache_info().currsize == compiled
    assert len(traced) == 2


@pytest.mark.parametrize(
    ("platform", "is_measured"), [("cpu", True), ("cuda", True), ("rocm", False)]
)
def test_loops_of_ours_are_rewritten_unasked_where_that_was_measured(
    platform, is_measured
):
    """A plain gradient of a `jscan.scan`: its backward loop loses its sum."""

    def loss(w):
        step = lambda row, h, w: jnp.tanh(row @ w + h @ w)
        return jscan.scan(step, X, jnp.zeros((3, 4)), w).outputs.sum()

    program = jax.make_jaxpr(jax.grad(loss))(W)
    loops = [e.params for e in program.eqns if is_region(e)]
    assert len(loops) == 2  # forward, backward
    changed = [
        rewritten(p["jaxpr"], choices_of(p["name"]), platform) is not p["jaxpr"]
        for p in loops
    ]
    assert changed == [is_measured, is_measured]
