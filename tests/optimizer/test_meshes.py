"""On a mesh the optimizer works, and the devices exchange no more than without it."""

from contextlib import nullcontext

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jscan
from support.collectives import traffic
from support.comparing import assert_close
from support.optimizer import networks

WAYS = {"forward": networks.forward, "gradient": networks.gradient}


@pytest.fixture(scope="module")
def mesh():
    return networks.devices()


def compared(fun, arguments, optimized=None):
    """What devices exchange without and with the optimizer; values are checked."""
    alone = jax.tree.map(np.asarray, arguments)
    expected = jax.jit(fun)(*alone)
    found = []
    for each in (fun, optimized or jscan.optimize(fun)):
        compiled = jax.jit(each).lower(*arguments).compile()
        assert_close(compiled(*arguments), expected)
        found.append(traffic(compiled))
    before, after = found
    assert after.in_loops <= before.in_loops
    assert after.bytes <= before.bytes
    return before, after


def on(mesh, value, *spec):
    return jax.device_put(value, NamedSharding(mesh, P(*spec)))


def some(*shape, seed=0):
    return (np.random.default_rng(seed).normal(size=shape) * 0.1).astype(np.float32)


def test_traffic_is_counted_as_often_as_it_runs(mesh):
    """A loop of five steps, with one sum of eight numbers each, and one behind it."""

    def run(x):
        step = lambda c, _: (jax.lax.psum(c, "d") * 0.1, None)
        return jax.lax.psum(jax.lax.scan(step, x, length=5)[0].sum(), "d")

    mapped = jax.shard_map(run, mesh=mesh, in_specs=P(), out_specs=P(), check_vma=False)
    x = jnp.ones(8, jnp.float32)
    found = traffic(jax.jit(mapped).lower(x).compile())
    assert (found.in_loops, found.outside, found.bytes) == (5, 1, 5 * 32 + 4)
    assert found.kinds == (("all-reduce",), ("all-reduce",))
    gathered = jax.jit(lambda x: x * 2, out_shardings=NamedSharding(mesh, P()))
    found = traffic(gathered.lower(on(mesh, x, "d")).compile())
    assert (found.in_loops, found.outside, found.bytes) == (0, 1, 32)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("net", networks.GATES)
@pytest.mark.parametrize("placement", networks.PLACEMENTS)
def test_networks_exchange_no_more(mesh, placement, net, way):
    arguments = networks.placed(net, placement).on(mesh)
    before, after = compared(WAYS[way], arguments)
    if (placement, way) == ("data", "gradient"):
        assert (before.in_loops, before.outside) == (networks.STEPS, 0)
        assert (after.in_loops, after.outside) == (0, 1)
        assert after.bytes * networks.STEPS == before.bytes
    if placement == "sequence":
        assert after.outside <= before.outside


@pytest.mark.parametrize("how", ["arguments", "set_mesh"])
def test_the_mesh_may_be_set(mesh, how):
    """The gain does not depend on how the mesh is made known."""
    placed = networks.placed("lstm", "data")
    arguments = placed.on(mesh)
    if how == "arguments":
        assert compared(networks.gradient, arguments)[1].in_loops == 0
        return
    places = jax.tree.map(lambda spec: NamedSharding(mesh, spec), placed.specs)
    with jax.set_mesh(mesh):
        new = jax.jit(jscan.optimize(networks.gradient), in_shardings=places)
        compiled = new.lower(*placed.values).compile()
    assert_close(compiled(*arguments), jax.jit(networks.gradient)(*placed.values))
    assert traffic(compiled).in_loops == 0


def test_a_mesh_that_the_program_does_not_know(mesh):
    """Split by `in_shardings` alone: as it is written, and no more is exchanged."""
    placed = networks.placed("rnn", "sequence")
    places = jax.tree.map(lambda spec: NamedSharding(mesh, spec), placed.specs)
    found = []
    for fun in (networks.gradient, jscan.optimize(networks.gradient)):
        jitted = jax.jit(fun, in_shardings=places)
        found.append(traffic(jitted.lower(*placed.values).compile()))
    assert found[0] == found[1]


def test_the_report_says_what_was_not_done(mesh):
    placed = networks.placed("lstm", "columns")
    here = str(jscan.explain(networks.forward)(*placed.values))
    there = str(jscan.explain(networks.forward)(*placed.on(mesh)))
    text = "4 products with one left operand became one"
    refused = "not done, devices might have to exchange data for it"
    assert f"+ small_dots.joined: {text}" in here
    assert f"- small_dots.joined: {refused}: {text}" in there
    assert "+ hoist.sequences: dot_general on sequences alone" in there


def test_shared_rows_and_columns_in_a_step(mesh):
    """Megatron's two layers: columns of one matrix, then rows of the next."""

    def forward(up, down, h, xs):
        def step(h, x):
            h = h * 0.5 + jnp.tanh((h + x) @ up) @ down
            return h, h

        return jax.lax.scan(step, h, xs)[1]

    loss = lambda *a: (forward(*a) ** 2).mean()
    arguments = (
        on(mesh, some(64, 256), None, "d"),
        on(mesh, some(256, 64), "d"),
        on(mesh, some(32, 64)),
        on(mesh, some(32, 32, 64)),
    )
    compared(forward, arguments)
    compared(jax.grad(loss, (0, 1)), arguments)


@pytest.mark.parametrize("spec", [("d",), (None, "d"), ()])
@pytest.mark.parametrize("fused", ["split", "joined"])
def test_fused_gates(mesh, fused, spec):
    """Weights of all gates in one array, of the input and the state or of each.

    Not the gradient by rows that meet numbers which all devices have: there XLA
    gathers for a step what the sum behind the loop gathers once more.
    """

    def forward(w, u, state, xs):
        def step(state, x):
            h, c = state
            if fused == "joined":
                z = jnp.concatenate([x, h], 1) @ w
            else:
                z = x @ w[:48] + h @ u
            i, f, g, o = jnp.split(z, 4, 1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        return jax.lax.scan(step, state, xs)[1]

    loss = lambda *a: (forward(*a) ** 2).mean()
    batch = () if spec else ("d",)
    arguments = (
        on(mesh, some(48 + 64, 256), *spec),
        on(mesh, some(64, 256), *spec),
        (on(mesh, some(32, 64), *batch),) * 2,
        on(mesh, some(32, 32, 48), None, *batch),
    )
    compared(forward, arguments)
    if spec != ("d",):
        compared(jax.grad(loss, (0, 1)), arguments)


def test_sums_that_only_devices_gain_from(mesh):
    """Data-parallel: biases, rows of a table and inner products add up once, too."""

    def loss(table, factor, bias, h, tokens):
        def step(h, token):
            h = jnp.tanh(h * factor + bias + table[token])
            return h, (h * h).sum()

        return jax.lax.scan(step, h, tokens)[1].mean()

    tokens = np.random.default_rng(1).integers(0, 50, (32, 64))
    arguments = (
        *(on(mesh, some(50, 16)), on(mesh, some(1, 16)), on(mesh, some(1, 16))),
        *(on(mesh, some(64, 16), "d"), on(mesh, tokens, None, "d")),
    )
    before, after = compared(jax.grad(loss, (0, 1, 2)), arguments)
    assert before.in_loops >= 32
    assert after.in_loops == 0


READ = {
    "last": lambda ys: ys[-1],
    "some": lambda ys: ys[::8],
    "mean": lambda ys: ys.mean(0),
    "all": lambda ys: ys.sum(),
    "logsumexp": lambda ys: jax.nn.logsumexp(ys, 0),
    "turned": lambda ys: ys.swapaxes(0, 1)[:, -1],
}


@pytest.mark.parametrize("placement", ["data", "columns", "sequence"])
@pytest.mark.parametrize("read", READ)
def test_rows_that_are_read_in_part(mesh, read, placement):
    arguments = networks.placed("rnn", placement).on(mesh)
    compared(lambda *a: READ[read](networks.forward(*a)), arguments)


@pytest.mark.parametrize("spec", [("d",), (None, "d"), (None, None, "d")])
def test_loops_without_state(mesh, spec):
    xs, w = on(mesh, some(64, 64, 48), *spec), on(mesh, some(48, 128))
    mapped = lambda xs, w: jax.lax.map(lambda x: jnp.tanh(x @ w), xs)
    compared(mapped, (xs, w))
    compared(jax.grad(lambda xs, w: (mapped(xs, w) ** 2).sum(), (0, 1)), (xs, w))
    few = jscan.optimize(mapped, memory_budget=2**16)  # in chunks on one device
    compared(mapped, (xs, w), few)


@pytest.mark.parametrize("set_it", [False, True])
@pytest.mark.parametrize("spec", [(), ("d",)])
def test_memory_of_a_last_row(mesh, spec, set_it):
    """The optimizer is on: of a thousand rows one is kept."""

    def power(a):
        return jax.lax.scan(lambda p, _: (p * a,) * 2, a, None, length=1000)[1][-1]

    a = on(mesh, np.full(8000, 0.999, np.float32), *spec)
    with jax.set_mesh(mesh) if set_it else nullcontext():
        compiled = jax.jit(jscan.optimize(power)).lower(a).compile()
        assert_close(compiled(a), power(np.asarray(a)))
        rows = 1000 * 8000 * 4 // (8 if spec else 1)
        analysis = compiled.memory_analysis()
        assert analysis is not None
        assert analysis.temp_size_in_bytes < rows / 100
        assert "save_memory" in jscan.explain(power)(a).loops[0].fired


def test_associate_on_a_split_batch(mesh):
    """Each device halves the axis of time of its own: nothing is exchanged."""

    def forward(a, xs):
        return jax.lax.scan(lambda h, x: (a * h + x,) * 2, xs[0] * 0, xs)[1]

    arguments = on(mesh, some(1, 16)), on(mesh, some(64, 8, 16), None, "d")
    broadcast = lambda a, xs: forward(jnp.broadcast_to(a, xs[0].shape), xs)
    new = jscan.optimize(broadcast, passes="default+associate")
    assert compared(broadcast, arguments, new)[1].bytes == 0
    report = str(jscan.explain(broadcast, passes="default+associate")(*arguments))
    assert "+ associate: a linear recurrence" in report


@pytest.mark.parametrize("where", ["inside", "around"])
@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("net", ["rnn", "lstm"])
def test_in_shard_map(mesh, net, check, where):
    """There a program is of one device; its sums over devices are few as well."""
    placed = networks.placed(net, "data")

    def mapped(fun):
        return jax.shard_map(
            fun,
            mesh=mesh,
            in_specs=placed.specs,
            out_specs=P(None, "d"),
            check_vma=check,
        )

    arguments = placed.on(mesh)
    plain = mapped(networks.forward)
    new = jscan.optimize(plain)
    if where == "inside":
        new = mapped(jscan.optimize(networks.forward))
    gradient = lambda f: jax.grad(lambda *a: (f(*a) ** 2).mean())
    compared(plain, arguments, new)
    best = gradient(new) if where == "inside" else jscan.optimize(gradient(plain))
    _, after = compared(gradient(plain), arguments, best)
    assert (after.in_loops, after.outside) == (0, 1)
    fired = jscan.explain(gradient(plain))(*arguments).loops[1].fired
    assert "accumulate" in fired


def test_collectives_in_a_step_keep_their_number(mesh):
    """State that devices add up at each step."""

    def forward(w, h, xs):
        def step(h, x):
            sums = jax.lax.psum_scatter(h @ w, "d", scatter_dimension=1, tiled=True)
            h = jnp.tanh(x + sums)
            return h, h

        return jax.lax.scan(step, h, xs)[1]

    specs = P("d"), P(None, "d"), P(None, None, "d")
    out = P(None, None, "d")
    mapped = jax.shard_map(forward, mesh=mesh, in_specs=specs, out_specs=out)
    values = some(64, 64), some(32, 64), some(64, 32, 64)
    arguments = tuple(
        jax.device_put(value, NamedSharding(mesh, spec))
        for value, spec in zip(values, specs, strict=True)
    )
    before, after = compared(mapped, arguments)
    assert after.in_loops == before.in_loops == 64


def test_some_axes_manual():
    """`jax.shard_map` over the batch; the compiler splits the weights."""
    mesh = jax.make_mesh((2, 4), ("b", "m"), (AxisType.Auto,) * 2)
    placed = networks.placed("gru", "columns")
    (weights, state, xs), columns = placed.values, placed.specs[0]
    columns = jax.tree.map(lambda spec: P(*("m" if a else None for a in spec)), columns)
    places = jax.tree.map(lambda spec: NamedSharding(mesh, spec), columns)
    arguments = (
        jax.tree.map(jax.device_put, weights, places),
        (on(mesh, state[0], "b", "m"),),
        on(mesh, xs, None, "b"),
    )
    specs = jax.tree.map(lambda _: P(), weights), (P("b"),), P(None, "b")
    mapped = jax.shard_map(
        networks.forward,
        mesh=mesh,
        in_specs=specs,
        out_specs=P(None, "b"),
        axis_names={"b"},
    )
    compared(mapped, arguments)
    compared(jax.grad(lambda *a: (mapped(*a) ** 2).mean()), arguments)


def test_explicit_axes_are_named():
    """Such a program runs as it is, and the report says why."""
    mesh = networks.devices(kind=AxisType.Explicit)
    with jax.set_mesh(mesh):
        arguments = networks.placed("rnn", "data").on(mesh)
        compared(networks.gradient, arguments)
        report = str(jscan.explain(networks.gradient)(*arguments))
    assert "mesh axes of the type Explicit (d)" in report
