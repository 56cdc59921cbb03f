"""small_dots: products of matrices that are written with * and sum."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from jscan import optimize
from support.comparing import assert_close
from support.optimizer.loops import check, loop_lengths, operations
from support.optimizer.machines import SHIPPED, every_machine

T, N, M = 6, 5, 4
W = jax.random.normal(jax.random.key(0), (M, N)) / 3
X = jax.random.normal(jax.random.key(1), (T, N))
Y = jax.random.normal(jax.random.key(2), (T, M))


@pytest.fixture(autouse=True)
def small_products_pay(small_loops_pay):
    """Products of three numbers and more; none is written as a sum again."""
    costs = dict(smallest_side=3, small_dot=0, small_sum=0, smallest_outer_product=1)
    machine = dataclasses.replace(SHIPPED["cpu"], batch_start=0, **costs)
    with every_machine(machine):
        yield
    jax.clear_caches()


def stepped(product):
    """A loop whose state goes through a product, which so stays in the loop."""

    def function(w, xs, ys):
        def step(h, row):
            h = jnp.tanh(product(w, h, row[0]) + row[1])
            return h, h

        start = jnp.zeros_like(ys[0])
        return jax.lax.scan(step, start, (xs, ys))[1]

    return function


FIRED = {
    "rows": lambda w, h, x: (w * (x + h[0])[None]).sum(1),
    "columns": lambda w, h, x: (w.T * (x + h[0])[:, None]).sum(0),
    "spread by hand": lambda w, h, x: (w * jnp.tile((x + h[0])[None], (1, 1))).sum(1),
    "both ways round": lambda w, h, x: ((x + h[0])[None, :] * w).sum(1),
    "of two products": lambda w, h, x: (w[:, :, None] * (x + h[0])[None, :, None]).sum(
        (1, 2)
    ),
}


@pytest.mark.parametrize("name", FIRED)
def test_a_sum_of_products_is_a_product(name):
    function = stepped(FIRED[name])
    assert "dot_general" not in operations(function, W, X, Y)[1]
    assert "dot_general" in operations(optimize(function), W, X, Y)[1]
    check(function, W, X, Y, tolerance=1e-5)


REFUSED = {
    "of matrices": lambda w, h, x: (
        (w[:, None, :] * (w + h[:, None])[None]).sum(2).sum(1)
    ),
    "an inner product": lambda w, h, x: (w[0] * (x + h[0])).sum() + h,
    "a batch": lambda w, h, x: (w * (w + h[:, None])).sum(1),
    "summed before": lambda w, h, x: (w[:, 0, None] * (x + h[0])[None]).sum(1),
    "few are added up": lambda w, h, x: (w[:, :2] * (x + h[0])[None, :2]).sum(1),
    "read elsewhere": lambda w, h, x: (p := w * (x + h[0])[None]).sum(1) + p[:, 0],
    "whole numbers": lambda w, h, x: (
        ((w > 0).astype(int) * (x + h[0] > 0).astype(int)[None]).sum(1).astype(h.dtype)
    ),
    "half of the bits": lambda w, h, x: (
        (w.astype("bfloat16") * (x + h[0]).astype("bfloat16")[None])
        .sum(1)
        .astype(h.dtype)
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_another_sum_stays(name):
    function = stepped(REFUSED[name])
    assert "dot_general" not in operations(optimize(function), W, X, Y)[1]
    check(function, W, X, Y, tolerance=1e-4)


@pytest.mark.parametrize("name", ["rows", "columns"])
def test_lanes_of_a_batch_stay_sums(name):
    """They are as fast."""
    function = jax.vmap(stepped(FIRED[name]), (None, 0, 0))
    many = jnp.stack([X, 2 * X]), jnp.stack([Y, -Y])
    assert "dot_general" not in operations(optimize(function), W, *many)[1]
    check(function, W, *many, tolerance=1e-5)


def test_in_shard_map():
    """What varies from device to device, and what does not."""
    mesh = jax.make_mesh((2,), ("a",), axis_types=(jax.sharding.AxisType.Auto,))
    specs = (P(), P("a"), P("a"))
    both = jnp.concatenate([X, 2 * X]), jnp.concatenate([Y, -Y])

    def on_each(function):
        return jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=P("a"))

    def slopes(function):
        cost = lambda *args: (on_each(function)(*args) ** 2).sum()
        return jax.grad(cost, (0, 1))

    function = stepped(FIRED["rows"])
    for change in (on_each, slopes):
        plain, ours = jax.jit(change(function)), jax.jit(change(optimize(function)))
        assert "dot_general" not in plain.lower(W, *both).as_text()
        assert "dot_general" in ours.lower(W, *both).as_text()
        assert_close(ours(W, *both), plain(W, *both), 1e-5)


def outer(spread):
    def function(xs, ys):
        def step(total, row):
            return total + spread(*row), None

        return jax.lax.scan(step, jnp.zeros((N, M)), (xs, ys))[0]

    return function


OUTER = {
    "jnp.outer": jnp.outer,
    "by hand": lambda x, y: x[:, None] * y[None],
    "and more terms": lambda x, y: x[:, None] * y[None] + y[None] * 2.0 * x[:, None],
}


@pytest.mark.parametrize("name", OUTER)
def test_added_up_outer_products_are_one_product(name):
    """Nothing is left to loop over."""
    function = outer(OUTER[name])
    assert loop_lengths(optimize(function), X, Y) == []
    check(function, X, Y, tolerance=1e-5)


def test_outer_products_that_are_state_stay():
    def function(xs, ys):
        def step(total, row):
            return 0.9 * total + jnp.outer(*row), None

        return jax.lax.scan(step, jnp.zeros((N, M)), (xs, ys))[0]

    assert "dot_general" not in operations(optimize(function), X, Y)[1]
    check(function, X, Y)


def test_infinities_come_out_as_they_did():
    function = stepped(FIRED["rows"])
    for w in (W.at[1, 2].set(jnp.inf), W.at[0, 0].set(jnp.nan), W * 1e300):
        check(function, w, X, Y, tolerance=1e-5)


def test_not_below_what_pays():
    """On a user's machine small ones stay sums, which fuse with what reads them."""
    function = stepped(FIRED["rows"])
    with every_machine(SHIPPED["cpu"]):
        jax.clear_caches()
        assert "dot_general" not in operations(optimize(function), W, X, Y)[1]
        sizes = jnp.ones((40, 40)), jnp.ones((T, 40)), jnp.ones((T, 40))
        assert "dot_general" in operations(optimize(function), *sizes)[1]
