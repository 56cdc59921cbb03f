"""Steps that call functions: how many, and what pays because of them (JAX 0.10)."""

import re

import jax
import jax.numpy as jnp
import pytest

from jscan import explain, optimize
from jscan._jax.names import JAX_VERSION
from jscan._optimizer.costs.functions import moved
from jscan._optimizer.costs.fusions import Step, number_of_calls
from jscan._optimizer.costs.machines import machine_for
from support.optimizer.loops import check, operations

pytestmark = [
    pytest.mark.usefixtures("measured_costs"),
    pytest.mark.skipif(
        jax.default_backend() != "cpu", reason="the costs of a CPU are tested"
    ),
]
by_calls = pytest.mark.skipif(
    JAX_VERSION >= (0, 11), reason="there a step is always a function"
)


@by_calls
@pytest.mark.parametrize(("rates", "size"), [(3, 2), (9, 2), (3, 32), (9, 32)])
def test_what_a_step_moves_says_whether_it_is_one_function(rates, size):
    """The compiler says so itself; a step that needs a queue gains by being one."""

    def step(h, row):
        decays = [jnp.tanh(row * n) for n in range(rates)]
        for decay in decays:
            h = h * decay + row
        return h, (h, *decays)

    x = jnp.ones((99, size), "float32")
    text, made = compiled_loop(step, x[0], x)
    costs = machine_for("cpu")
    is_function = moved(made) < costs.function_bytes
    assert is_function == ("xla_cpu_small_call" in text)
    gains = costs.freed(made, Step(()))
    assert gains == (0.0 if is_function else costs.queued_step)


def compiled_loop(step, state, rows):
    """What the compiler makes of a loop, and what the costs know of its step."""
    lowered = jax.jit(lambda s, x: jax.lax.scan(step, s, x)).lower(state, rows)
    row = jax.tree.map(lambda x: x[0], rows)
    traced = jax.make_jaxpr(step)(state, row).jaxpr
    number = len(jax.tree.leaves(state))
    carries = list(zip(traced.invars[:number], traced.outvars[:number], strict=True))
    made = Step(traced.eqns, traced.outvars[number:], carries)
    return lowered.compile().as_text() or "", made


STEPS = {
    "oscillators": lambda h, x: (
        (h[0] + 0.1 * (v := h[1] + 0.1 * (jnp.sin(x) - h[0] * jnp.cos(x))), v),
        (h[0], jnp.cos(x), h[1]),
    ),
    "states that move on": lambda h, x: ((jnp.tanh(h[0] - h[1]) + x, h[0]), h[1]),
    "a sum of many": lambda h, x: ((h[0] / jnp.exp(h[0]).sum() + x, h[1]), h[0].max()),
    "divided twice": lambda h, x: ((h[0] + (q := x / h[1]), h[1] - q), (q, q * h[0])),
    "a product": lambda h, x: ((jnp.outer(h[1], x) @ h[0], h[1] + x), h[0]),
    "turned around": lambda h, x: ((h[0][::-1] + x, h[1] * h[0]), h[1].sum()),
}


@by_calls
@pytest.mark.parametrize("name", STEPS)
def test_what_a_step_calls_is_counted_as_the_compiler_does(name):
    """Its functions are the instructions in the body of a loop that are none yet."""
    x = jnp.linspace(0.5, 1.5, 500 * 64, dtype="float32").reshape(500, 64)
    text, made = compiled_loop(STEPS[name], (x[0], x[1]), x)
    assert "xla_cpu_small_call" not in text
    name = re.findall(r" while\(.*body=(%[\w.\-]+)", text)[0]
    body = text.split(f"\n{name} (")[1].split("\n}")[0].splitlines()[1:]
    there = r" (get-tuple-element|parameter|tuple|constant|bitcast)\("
    calls = [line for line in body if not re.search(there, line)]
    assert number_of_calls(made) == len(calls), calls


def oscillators(x):
    """A force on each, and how stiff it is, which the program wants, too."""
    return jax.lax.scan(STEPS["oscillators"], (x[0], x[1]), x)


@pytest.mark.parametrize(("steps", "leaves"), [(40, False), (900, True)])
def test_rows_leave_a_step_that_needs_no_queue_then(steps, leaves):
    """More than eight are called through a queue, eight one after the other."""
    x = jax.random.normal(jax.random.key(0), (steps, 48), "float32")
    outside, _ = operations(optimize(oscillators), x)
    assert ("cos" in outside) == (leaves and JAX_VERSION < (0, 11))
    check(oscillators, x)


def delta_rule(w, x):
    """A fast weight, written and read at each step."""

    def step(fast, row):
        key, value, query = (row @ part for part in w)
        key = jnp.tanh(key)
        error = value - key @ fast
        fast = fast + 0.1 * key[:, None] * error[None]
        return fast, query @ fast

    return jax.lax.scan(step, jnp.zeros((9, 8), "float32"), x)[1]


def test_tiny_products_are_sums_where_a_step_needs_no_queue_then():
    """Twelve calls become eight; without a queue each is as fast as it is."""
    keys = jax.random.split(jax.random.key(1), 4)
    shapes = (8, 9), (8, 8), (8, 9), (256, 8)
    normal = lambda key, shape: jax.random.normal(key, shape, "float32") / 3
    *w, x = map(normal, keys, shapes)
    _, inside = operations(optimize(delta_rule), w, x)
    assert ("dot_general" in inside) == (JAX_VERSION >= (0, 11))
    check(lambda x: delta_rule(w, x), x)


@by_calls
def test_a_branch_is_called_whatever_leaves():
    """It is no function of a step then either, and nothing is gained by the rest."""

    def step(state, row):
        turned = jax.lax.cond(row.sum() > 0, jnp.sin, jnp.cos, state)
        return turned + row, (state, row * state, turned * state, jnp.sqrt(state**2))

    x = jnp.ones((400, 3), "float32")
    report = explain(lambda x: jax.lax.scan(step, x[0], x))(x)
    assert "sink" not in report.loops[0].fired
