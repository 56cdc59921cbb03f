"""Hand-picked loops under every JAX transform, against plain `lax.scan`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jscan
from support import checking as helpers
from support.comparing import assert_close
from support.programs import PROGRAMS, numbers

Tree = Any
Function = Callable[[jax.Array], Tree]

# Each takes `f: vector -> outputs` and a vector, and returns numbers to compare.
# Some apply several transforms at once, to compile them together.
TRANSFORMS: dict[str, Callable[[Function, jax.Array], Tree]] = {}


def transform(check: Callable[[Function, jax.Array], Tree]) -> Callable[..., Tree]:
    TRANSFORMS[check.__name__] = check
    return check


def cost_of(f: Function) -> Function:
    return lambda point: helpers.weighted_sum(jnp, f(point))


def inexact_outputs(f: Function) -> Function:
    return lambda point: [
        leaf for leaf in jax.tree.leaves(f(point)) if helpers.is_inexact(leaf)
    ]


def direction_like(point: jax.Array) -> jax.Array:
    return jnp.cos(1.3 * jnp.arange(point.size, dtype=point.dtype))


def batch_of(point: jax.Array) -> jax.Array:
    return jnp.stack([point, 0.7 * point, point - 0.2])


@transform
def eager(f, point):
    return f(point)


@transform
def eager_grad(f, point):
    return jax.grad(cost_of(f))(point)


@transform
def jit(f, point):
    return jax.jit(f)(point)


@transform
def first_derivatives(f, point):
    @jax.jit
    def derivatives(point):
        direction = direction_like(point)
        outputs, pull = jax.vjp(inexact_outputs(f), point)
        return {
            "grad": jax.grad(cost_of(f))(point),
            "jvp": jax.jvp(inexact_outputs(f), (point,), (direction,)),
            "vjp": pull(jax.tree.map(jnp.sin, outputs)),
            "linearize": jax.linearize(inexact_outputs(f), point)[1](direction),
        }

    return derivatives(point)


@transform
def hessian(f, point):
    return jax.jit(jax.hessian(cost_of(f)))(point)


@transform
def vmap(f, point):
    @jax.jit
    def batches(points):
        total = lambda points: jax.vmap(cost_of(f))(points).sum()
        return {
            "vmap": jax.vmap(f)(points),
            "vmap of grad": jax.vmap(jax.grad(cost_of(f)))(points),
            "grad of vmap": jax.grad(total)(points),
        }

    return batches(batch_of(point))


@transform
def inside_other_control_flow(f, point):
    def step(total, point):
        return total + cost_of(f)(point), f(point)

    def zeros(point):
        return jax.tree.map(jnp.zeros_like, f(point))

    @jax.jit
    def inside(point):
        return {
            "checkpoint": jax.grad(jax.checkpoint(cost_of(f)))(point),
            "lax.scan": jax.lax.scan(step, 0.0, batch_of(point)),
            "lax.cond": jax.lax.cond(point[0] > 5, zeros, f, point),
        }

    return inside(point)


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("name", PROGRAMS)
def test_transform_of_double_precision_loop(name, transform):
    assert_as_by_hand(name, TRANSFORMS[transform], "float64")


@pytest.mark.parametrize("name", PROGRAMS)
def test_single_precision_loop(name):
    assert_as_by_hand(name, TRANSFORMS["eager"], "float32")


@pytest.mark.parametrize("name", ["one_tap", "two_taps", "gap_taps", "complex_state"])
def test_derivatives_of_single_precision_loop(name):
    assert_as_by_hand(name, TRANSFORMS["first_derivatives"], "float32")


def assert_as_by_hand(name: str, apply: Callable[..., Tree], precision: str) -> None:
    """Apply a transform to both versions of a program; the numbers must agree."""
    case = PROGRAMS[name]
    narrow = {"float64": "float32", "complex128": "complex64"}
    args = {
        key: value.astype(narrow.get(value.dtype.name, value.dtype))
        if precision == "float32"
        else value
        for key, value in case.args.items()
    }
    flat = helpers.Flat(args)
    point = jnp.asarray(flat.start, precision)
    actual = apply(lambda p: case.ours(**flat.rebuild(jnp, p)), point)
    by_hand = lambda p: apply(lambda p: case.by_hand(**flat.rebuild(jnp, p)), p)
    expected = jax.jit(by_hand)(point)
    assert_close(actual, expected)


def test_vmap_over_one_argument_only():
    case = PROGRAMS["one_tap"]
    args = helpers.as_jax(case.args)
    batch = jnp.stack([args["h"], 2 * args["h"]])
    actual = jax.vmap(lambda h: case.ours(**(args | {"h": h})))(batch)
    expected = jax.vmap(lambda h: case.by_hand(**(args | {"h": h})))(batch)
    assert_close(actual, expected, 1e-12)


def test_disabled_jit_gives_the_same_numbers():
    case = PROGRAMS["two_taps"]
    args = helpers.as_jax(case.args)
    with jax.disable_jit():
        actual = case.ours(**args)
    assert_close(actual, case.by_hand(**args), 1e-12)


@pytest.mark.parametrize("name", ["value", "grad"])
def test_sharded_batch_stays_sharded(name):
    """A batch split over two devices: same numbers, and the split survives."""
    mesh = jax.sharding.Mesh(jax.devices()[:2], ("batch",))
    spec = jax.sharding.PartitionSpec
    rows = jax.sharding.NamedSharding(mesh, spec(None, "batch"))
    state = jax.sharding.NamedSharding(mesh, spec("batch"))
    everywhere = jax.sharding.NamedSharding(mesh, spec())
    x = jax.device_put(numbers(5, 4, 3), rows)
    h = jax.device_put(numbers(4, 3, seed=1), state)
    W = jax.device_put(numbers(3, 3, seed=2), everywhere)
    case = PROGRAMS["one_tap"]

    def run(f):
        if name == "value":
            return jax.jit(f)(x, h, W)
        return jax.jit(jax.grad(lambda x, h, W: (f(x, h, W) ** 2).sum()))(x, h, W)

    actual, expected = run(case.ours), run(case.by_hand)
    assert_close(actual, expected, 1e-12)
    assert actual.sharding.is_equivalent_to(expected.sharding, 3)
    assert len(actual.sharding.device_set) == 2
    eager = jscan.scan(lambda x, h, W: jnp.tanh(x + h @ W), x, h, W).outputs
    np.testing.assert_allclose(eager, case.by_hand(x, h, W), 1e-12)


@pytest.mark.parametrize("transform", ["jit", "vmap", "nested", "DEBUG"])
def test_a_known_integer_initial_is_promoted_inside_a_trace(transform):
    """Its value is checked, and it stays the same program."""
    start, x = jnp.asarray([1, 100], jnp.int8), jnp.arange(6).reshape(3, 2)
    mode = "DEBUG" if transform == "DEBUG" else None

    def run(x, start=start):
        step = lambda x, h: h.astype(x.dtype) * 2 + x
        return jscan.scan(step, x, start, mode=mode).outputs

    wrapped = {
        "jit": jax.jit(run),
        "vmap": lambda x: jax.vmap(run)(x[None])[0],
        "nested": lambda x: jscan.map(run, x[None]).outputs[0],
        "DEBUG": jax.jit(run),
    }[transform]
    np.testing.assert_array_equal(wrapped(x), [[2, 201], [6, 405], [16, 815]])
