"""associate over devices: rows split in time, each device does its part of the steps.

What is exchanged is what the calculation says: of each recurrence, what all parts do to
a state, however many steps there are.
"""

import re

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

WIDTH = 4


def rows(steps, seed=0):
    """Factors in (0, 1) and offsets, in float64."""
    random = np.random.default_rng(seed)
    shape = (steps, WIDTH)
    return random.uniform(0.2, 1.0, shape), random.normal(size=shape)


def twice(state):
    """What a step returns that hands out its state."""
    return state, state


def linear(a, b):
    return jax.lax.scan(lambda h, x: twice(x[0] * h + x[1]), jnp.ones(WIDTH), (a, b))


def decay(a, b):
    step = lambda h, x: twice(0.9 * h + jnp.tanh(x[0] * x[1]))
    return jax.lax.scan(step, jnp.zeros(WIDTH), (a, b))


def backward(a, b):
    step = lambda h, x: (x[0] * h - x[1], jnp.sin(h))
    return jax.lax.scan(step, jnp.ones(WIDTH), (a, b), reverse=True)


def largest(a, b):
    return jax.lax.scan(
        lambda h, x: twice(jnp.maximum(h, x[1] * x[0])), jnp.zeros(WIDTH), (a, b)
    )


def two_layers(a, b):
    """A recurrence, a layer of its own for each step, another recurrence."""
    hs = linear(a, b)[1]
    mixed = jax.lax.map(lambda h: jnp.tanh(h @ jnp.full((WIDTH, WIDTH), 0.3)), hs)
    return linear(a, mixed)


def in_one_step(a, b):
    def step(state, x):
        first = x[0] * state[0] + x[1]
        second = 0.5 * state[1] + jnp.tanh(first)
        return (first, second), second

    return jax.lax.scan(step, (jnp.zeros(WIDTH), jnp.ones(WIDTH)), (a, b))


def by_jscan(a, b):
    return jscan.scan(lambda a, b, h: a * h + b, [a, b], jnp.ones(WIDTH)).outputs


# How many vectors of a state each part hands over: of one recurrence a factor and an
# offset, or an extreme; and those of the recurrences of its derivative.
LOOPS = {
    linear: (2, 4),
    decay: (2, 4),
    backward: (2, 4),
    largest: (1, 3),
    two_layers: (4, 8),
    in_one_step: (4, 8),
    by_jscan: (2, 4),
}


def gradient(loop):
    """By both sequences, of all results."""
    cost = lambda a, b: sum((x**2).sum() for x in jax.tree.leaves(loop(a, b)))
    return jax.grad(cost, (0, 1))


def parallel(fun):
    return jscan.optimize(fun, passes="default+associate")


def split(mesh, values, *spec):
    return jax.device_put(values, NamedSharding(mesh, P(*spec)))


def run(fun, arguments):
    """Values, and what devices exchange for them."""
    compiled = jax.jit(fun).lower(*arguments).compile()
    return compiled(*arguments), traffic(compiled)


@pytest.mark.parametrize("way", ["forward", "gradient"])
@pytest.mark.parametrize("loop", LOOPS)
def test_values_and_traffic(loop, way):
    fun = loop if way == "forward" else gradient(loop)
    _check(fun, LOOPS[loop][way == "gradient"], devices=8, steps=16)


@pytest.mark.parametrize("devices", [2, 4])
def test_traffic_grows_with_devices_and_not_with_steps(devices):
    few, many = (_check(linear, 2, devices, steps) for steps in (16, 48))
    assert few == many


def _check(fun, vectors, devices, steps):
    """Values agree; bytes are those that all parts gather, and of single numbers."""
    values = rows(steps)
    arguments = split(networks.devices(devices), values, "d")
    found, exchanged = run(parallel(fun), arguments)
    assert_close(found, fun(*values), 1e-9)
    assert exchanged.in_loops == 0
    gathered = vectors * devices * WIDTH * 8
    assert gathered <= exchanged.bytes <= gathered + 200
    return exchanged


@pytest.mark.parametrize("loop", LOOPS)
def test_without_being_asked_for_rows_are_gathered(loop):
    """The measure of what it saves: all rows, as many as there are."""
    arguments = split(networks.devices(), rows(32), "d")
    _, exchanged = run(loop, arguments)
    assert exchanged.bytes >= 32 * WIDTH * 8
    _, default = run(jscan.optimize(loop), arguments)
    assert default.bytes <= exchanged.bytes


def test_results_stay_split():
    """Rows lie where the sequences lay; the last state is whole on each device."""
    mesh = networks.devices()
    final, hs = jax.jit(parallel(linear))(*split(mesh, rows(32), "d"))
    assert hs.sharding.is_equivalent_to(NamedSharding(mesh, P("d")), 2)
    assert final.sharding.is_fully_replicated


@pytest.mark.parametrize("way", ["forward", "gradient"])
@pytest.mark.parametrize("spec", [("time", "batch"), ("time",), (None, "batch")])
def test_a_mesh_of_time_and_batch(spec, way):
    """Rows split both ways; whoever splits the batch exchanges nothing for it."""
    mesh = jax.make_mesh((2, 4), ("time", "batch"), (AxisType.Auto,) * 2)
    fun = linear if way == "forward" else gradient(linear)
    values = rows(16)
    found, exchanged = run(parallel(fun), split(mesh, values, *spec))
    assert_close(found, fun(*values), 1e-9)
    assert exchanged.in_loops == 0
    vectors = 2 if way == "forward" else 4
    width = WIDTH // 4 if "batch" in spec else WIDTH
    # There are as many parts as the mesh has devices, whatever time is split over.
    gathered = vectors * 8 * width * 8 if "time" in spec else 0
    assert gathered <= exchanged.bytes <= gathered + 200 * ("time" in spec)


def test_steps_that_no_number_of_devices_divides():
    """31 steps lie whole on each device: nothing is exchanged, values agree."""
    found, exchanged = run(parallel(linear), split(networks.devices(), rows(31)))
    assert_close(found, linear(*rows(31)), 1e-9)
    assert exchanged.bytes == 0
    half = split(networks.devices(2), rows(6), "d")  # three steps each
    assert_close(jax.jit(parallel(linear))(*half), linear(*rows(6)), 1e-9)


def test_what_does_not_compose_gathers_as_before():
    """A step with tanh stays a loop, and exchanges no more than it did.

    Its derivative is linear, so that of it there is what all parts gather.
    """

    def loop(a, b):
        step = lambda h, x: twice(jnp.tanh(x[0] * h) + jnp.sin(x[1]))
        return jax.lax.scan(step, jnp.ones(WIDTH), (a, b))

    for fun, gathered in ((loop, 0), (gradient(loop), 2 * 8 * WIDTH * 8)):
        arguments = split(networks.devices(), rows(32), "d")
        expected, before = run(fun, arguments)
        found, after = run(parallel(fun), arguments)
        assert_close(found, expected, 1e-9)
        assert after.bytes <= before.bytes + gathered
        assert after.in_loops <= before.in_loops


@pytest.mark.parametrize("way", ["forward", "gradient"])
def test_in_shard_map(way):
    """There a loop is one device's: it goes, and exchanges nothing."""
    mesh = networks.devices()
    fun = linear if way == "forward" else gradient(linear)
    alone = lambda f: lambda a, b: jax.tree.map(lambda x: x[None], f(a, b))
    mapped = lambda f: jax.shard_map(
        alone(f), mesh=mesh, in_specs=P("d"), out_specs=P("d"), check_vma=False
    )
    values = rows(32)
    found, exchanged = run(mapped(parallel(fun)), split(mesh, values, "d"))
    assert exchanged.bytes == 0
    for device in range(8):
        part = [x[4 * device : 4 * device + 4] for x in values]
        here = jax.tree.map(lambda x, device=device: x[device], found)
        assert_close(here, fun(*part), 1e-9)
    (report,) = jscan.explain(mapped(linear), passes="default+associate")(
        *split(mesh, values, "d")
    ).loops
    assert report.fired == ("associate",)


def test_explicit_axes_say_why_not():
    """JAX refuses such a loop; ours names the sequence, and what to do."""
    mesh = networks.devices(kind=AxisType.Explicit)
    a, b = split(mesh, rows(32), "d")
    with pytest.raises(ValueError, match="0th dimension of all xs"):
        linear(a, b)
    message = r"sequences\[0\]: needed rows that each device has whole.*Fix: gather"
    with pytest.raises(jscan.ScanValueError, match=f"(?s){message}"):
        by_jscan(a, b)
    at = lambda x: jax.reshard(x, NamedSharding(mesh, P()))
    assert_close(by_jscan(at(a), at(b)), by_jscan(*rows(32)), 1e-9)


@pytest.mark.parametrize("way", ["forward", "gradient"])
@pytest.mark.parametrize("loop", [linear, largest, by_jscan])
def test_explicit_axes_taken_as_auto(loop, way):
    """What the error says works: values are split as asked, traffic is as on Auto."""
    mesh, values = networks.devices(kind=AxisType.Explicit), rows(32)
    fun = _rows_alone(loop) if way == "forward" else gradient(loop)
    with jax.set_mesh(mesh):
        auto = jax.sharding.auto_axes(parallel(fun), out_sharding=P("d"))
        found, exchanged = run(auto, split(mesh, values, "d"))
    assert_close(found, fun(*values), 1e-9)
    assert {jax.typeof(x).sharding.spec[0] for x in jax.tree.leaves(found)} == {"d"}
    gathered = LOOPS[loop][way == "gradient"] * 8 * WIDTH * 8
    assert exchanged.in_loops == 0
    assert gathered <= exchanged.bytes <= gathered + 200


def _rows_alone(loop):
    return lambda a, b: jax.tree.leaves(loop(a, b))[-1]


def test_the_report_names_it():
    report = jscan.explain(linear, passes="default+associate")
    text = str(report(*split(networks.devices(), rows(32), "d")))
    assert "+ associate: a linear recurrence is an associative scan over time" in text
    assert not re.search("devices might have to exchange", text)
