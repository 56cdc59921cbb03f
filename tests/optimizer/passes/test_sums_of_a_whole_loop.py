"""Loops of which sums alone are carried: all of a step leaves, or it stays whole."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jscan import optimize
from jscan._jax.names import JAX_VERSION
from jscan._optimizer.analysis.index import flattened
from jscan._optimizer.costs.leanings import leaning
from jscan._optimizer.costs.machines import machine_for
from support.optimizer.loops import check, loop_lengths, operations, reasons

pytestmark = [
    pytest.mark.usefixtures("measured_costs"),
    pytest.mark.skipif(
        jax.default_backend() != "cpu", reason="the costs of a CPU are tested"
    ),
]
RANDOM = np.random.default_rng(0)


def normal(*shape):
    return jnp.asarray(RANDOM.standard_normal(shape), "float32")


def summed(term):
    """The sum over rows of `term(w, *row)`, by a loop."""

    def loop(w, rows):
        step = lambda total, row: (total + term(w, *row), None)
        start = jnp.zeros(jax.eval_shape(term, w, *(r[0] for r in rows)).shape)
        return jax.lax.scan(step, start.astype("float32"), rows)[0]

    return loop


poisson = summed(lambda w, x, count: count * (x @ w) - jnp.exp(x @ w))
squares = summed(lambda w, x, y: ((x @ w - y) ** 2).sum())
logistic = summed(lambda w, x, sign: jax.nn.log_sigmoid(sign * (x @ w)))
products = summed(lambda w, x: x @ w)
outer = summed(lambda w, x, y: jnp.outer(w * x, y))


@pytest.mark.parametrize("steps", [1200, 400])
def test_no_rows_are_stored_for_sums_alone(steps):
    """Sums leave with all that a step does, or stay with it.

    A product beside them is what another thread runs in any case.
    """
    power = lambda w: jnp.outer(w, w) @ jnp.outer(w, w)
    gradient = jax.grad(lambda w, rows: poisson(w, rows) + power(w).sum())
    args = normal(60) / 60, (normal(steps, 60), normal(steps))
    _, inside = operations(optimize(gradient), *args)
    assert loop_lengths(optimize(gradient), *args) == [steps]
    assert inside.count("dot_general") == 2  # a number and a row each, and
    assert "add_any" in inside  # they are added up where they are made
    check(poisson, *args)


@pytest.mark.parametrize(
    ("numbers", "steps", "leaves"),
    [(12, 3000, False), (20, 1500, False), (24, 15000, True), (40, 4000, True)],
)
def test_sums_of_two_rows_leave_where_they_fill_registers(numbers, steps, leaves):
    """Of 12 or 20 numbers a batch was 0.5 to 0.9 times as fast, of 24 twice."""
    args = normal(numbers), (normal(steps, numbers),)
    assert (loop_lengths(optimize(products), *args) == []) == leaves
    check(products, *args)


def test_tiny_products_are_faster_in_the_loop():
    """Written as sums: 3 to 6 times as fast as the batch, which wakes threads."""
    args = normal(5, 4), (normal(3337, 5), normal(3337, 4))
    assert loop_lengths(optimize(squares), *args) == [3337]
    assert "dot_general" not in operations(optimize(squares), *args)[1]
    reason = "adding them in the loop"
    assert reason in reasons(squares, *args, name="accumulate")
    check(squares, *args)


@pytest.mark.skipif(JAX_VERSION >= (0, 11), reason="there such a sum is faster")
def test_long_sums_of_rows_leave():
    args = normal(40, 8), (normal(2000, 40), normal(2000, 8))
    assert loop_lengths(optimize(squares), *args) == []


def test_a_short_sum_of_functions_leaves():
    """One core does it at once: threads would take longer to wake.

    Alone it stays, in a program that another thread would run for it.
    """
    beside = lambda w, rows: (logistic(w, rows), jnp.outer(w, w) @ jnp.outer(w, w))
    args = normal(26), (normal(150, 26), jnp.sign(normal(150)))
    assert loop_lengths(optimize(beside), *args) == []
    assert loop_lengths(optimize(logistic), *args) == [150]
    args = normal(26), (normal(50, 26), jnp.sign(normal(50)))
    assert loop_lengths(optimize(beside), *args) == [50]
    check(logistic, *args)


def test_a_product_that_was_a_sum_is_one_again_where_it_stays():
    gradient = jax.grad(lambda w, rows: outer(w, rows).sum())
    args = normal(12), (normal(60, 12), normal(60, 13))
    _, inside = operations(optimize(gradient), *args)
    assert "dot_general" not in inside
    check(outer, *args)


@pytest.mark.parametrize(("rows", "stays"), [(20, False), (4096, True)])
def test_exact_products_of_the_user_are_sums_where_they_are_small(rows, stays):
    """`precision="highest"` says what those bear that were sums, too."""

    def loop(w, h):
        step = lambda h, _: (jnp.dot(w, h, precision="highest")[:12] * 0.9, None)
        return jax.lax.scan(step, h, length=70)[0]

    args = normal(rows, 12) / 16, normal(12)
    _, inside = operations(optimize(loop), *args)
    assert ("dot_general" in inside) == stays
    check(loop, *args)


MACHINES = {
    "as shipped": lambda costs: costs,
    "slower": lambda costs: costs.with_starts(8),
    "faster": lambda costs: costs.with_starts(0.1),
    "cautious": lambda costs: leaning(costs, "cautious"),
    "eager": lambda costs: leaning(costs, "eager"),
}


@pytest.mark.parametrize(
    ("which", "steps", "leaves"),
    [
        ("as shipped", 150, True),
        ("as shipped", 50, False),
        ("slower", 150, False),
        ("faster", 50, True),
        ("cautious", 150, False),
        ("eager", 50, True),
    ],
)
def test_short_sums_follow_the_machine(which, steps, leaves):
    """One that starts batches faster or slower, and plans that lean to a side."""
    step = jax.make_jaxpr(lambda w, x, sign: jax.nn.log_sigmoid(sign * (x @ w)))
    traced = step(normal(26), normal(26), jnp.float32(1))
    equations = flattened(traced.jaxpr).equations
    machine = MACHINES[which](machine_for("cpu"))
    why = machine.keeps_map_in_loop(equations, [], steps, summed=True)
    assert (why is None) == leaves
