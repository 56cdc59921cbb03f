"""Effects of a loop happen as often as written, and ordered ones in that order.

Each case is shaped so that a pass would like to move or drop the work around the
effect: outputs nobody reads, loops without a recurrence, sums, sibling loops.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import io_callback

from jscan import optimize
from support.comparing import assert_close
from support.optimizer.checking import strictly

Log = list[float]
Tell = Callable[[jax.Array], None]
Case = Callable[[Tell, jax.Array], object]

XS = jnp.arange(6.0)
WEIGHT = 0.1 * jnp.eye(3) + 0.2


@pytest.fixture(autouse=True)
def strict() -> Iterator[None]:
    with strictly():
        yield


def map_like(tell: Tell, xs: jax.Array) -> object:
    """No recurrence: asks to be one batched computation."""

    def step(_: None, x: jax.Array) -> tuple[None, jax.Array]:
        tell(x)
        return None, jnp.sin(x)

    return jax.lax.scan(step, None, xs)[1]


def last_row(tell: Tell, xs: jax.Array) -> object:
    """Only the last row is read."""

    def step(state: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        state = jnp.tanh(state + x)
        tell(x)
        return state, state

    return jax.lax.scan(step, jnp.zeros(()), xs)[1][-1]


def every_second_row(tell: Tell, xs: jax.Array) -> object:
    """Only some rows are read."""

    def step(state: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        state = jnp.tanh(state + x)
        tell(state)
        return state, state

    return jax.lax.scan(step, jnp.zeros(()), xs)[1][::2]


def first_rows(tell: Tell, xs: jax.Array) -> object:
    """Only the first rows are read: the other steps seem needless."""

    def step(state: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        tell(x)
        return state + x, state

    return jax.lax.scan(step, jnp.zeros(()), xs)[1][:2]


def nothing_read(tell: Tell, xs: jax.Array) -> object:
    """No result of the loop is read at all."""

    def step(state: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        tell(x)
        return state + x, state

    jax.lax.scan(step, jnp.zeros(()), xs)
    return xs.sum()


def total(tell: Tell, xs: jax.Array) -> object:
    """A sum in the carry: asks to be taken out."""

    def step(state: jax.Array, x: jax.Array) -> tuple[jax.Array, None]:
        tell(x)
        return state + jnp.outer(x * jnp.ones(3), jnp.ones(3)) @ WEIGHT, None

    return jax.lax.scan(step, jnp.zeros((3, 3)), xs)[0]


def hoistable(tell: Tell, xs: jax.Array) -> object:
    """The told value itself depends on the sequence only."""

    def step(state: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        projected = jnp.tanh((x * jnp.ones(3)) @ WEIGHT)
        tell(projected[0])
        state = jnp.tanh(state @ WEIGHT + projected)
        return state, state

    return jax.lax.scan(step, jnp.zeros(3), xs)[1]


def siblings(tell: Tell, xs: jax.Array) -> object:
    """Two loops of one length: merging them would interleave the effects."""

    def step(state: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        tell(x)
        return state + x, state * x

    first = jax.lax.scan(step, jnp.zeros(()), xs)
    second = jax.lax.scan(step, jnp.ones(()), xs * 10)
    return first, second


def backwards(tell: Tell, xs: jax.Array) -> object:
    """A reversed loop."""

    def step(state: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        tell(x)
        return state * 0.5 + x, state

    return jax.lax.scan(step, jnp.zeros(()), xs, reverse=True)[1][0]


def in_an_inner_loop(tell: Tell, xs: jax.Array) -> object:
    """The effect sits in a loop in the body."""

    def inner(state: jax.Array, x: jax.Array) -> tuple[jax.Array, None]:
        tell(x)
        return state + x, None

    def outer(state: jax.Array, row: jax.Array) -> tuple[jax.Array, jax.Array]:
        state = jax.lax.scan(inner, state, row)[0]
        return state, state

    return jax.lax.scan(outer, jnp.zeros(()), xs.reshape(3, 2))[1][-1]


def in_a_branch(tell: Tell, xs: jax.Array) -> object:
    """The effect happens at some steps only."""

    def loud(x: jax.Array) -> jax.Array:
        tell(x)
        return x * 2

    def step(state: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        state = state + jax.lax.cond(x > 2, loud, lambda x: x, x)
        return state, state

    return jax.lax.scan(step, jnp.zeros(()), xs)[1][-1]


CASES = (
    map_like,
    last_row,
    every_second_row,
    first_rows,
    nothing_read,
    total,
    hoistable,
    siblings,
    backwards,
    in_an_inner_loop,
    in_a_branch,
)
cases = pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)


def run(
    case: Case, ordered: bool, transform: Callable[[Callable], Callable]
) -> tuple[object, Log]:
    """The result of a case and what it told, transformed and compiled."""
    log: Log = []

    def tell(value: jax.Array) -> None:
        jax.debug.callback(lambda v: log.append(float(v)), value, ordered=ordered)

    result = jax.jit(transform(lambda xs: case(tell, xs)))(XS)
    jax.block_until_ready(result)
    jax.effects_barrier()
    return result, log


@cases
def test_ordered_effects_keep_their_order(case: Case):
    plain, expected = run(case, True, lambda f: f)
    optimized, told = run(case, True, optimize)
    np.testing.assert_allclose(told, expected, rtol=1e-6)
    assert len(told) >= 3
    assert_close(plain, optimized)


@cases
def test_effects_keep_their_number(case: Case):
    plain, expected = run(case, False, lambda f: f)
    optimized, told = run(case, False, optimize)
    rounded = [Counter(np.round(log, 4).tolist()) for log in (told, expected)]
    assert rounded[0] == rounded[1]
    assert len(told) >= 3
    assert_close(plain, optimized)


def _gradient(function: Callable) -> Callable:
    def cost(xs: jax.Array) -> jax.Array:
        leaves = jax.tree.leaves(function(xs))
        return sum((leaf.sum() for leaf in leaves), start=jnp.zeros(()))

    return jax.grad(cost)


@pytest.mark.parametrize("inside", [True, False], ids=["inside", "outside"])
@pytest.mark.parametrize("case", [map_like, last_row, total, hoistable])
def test_effects_of_a_differentiated_loop(case: Case, inside: bool):
    """Gradients tell what the plain gradient tells, in either order."""
    plain, expected = run(case, True, _gradient)
    transform = (
        (lambda f: _gradient(optimize(f)))
        if inside
        else lambda f: optimize(_gradient(f))
    )
    optimized, told = run(case, True, transform)
    np.testing.assert_allclose(told, expected, rtol=1e-6)
    assert len(told) >= 3
    assert_close(plain, optimized)


def test_printing(capsys: pytest.CaptureFixture[str]):
    """`jax.debug.print` prints the same lines."""

    def function(xs: jax.Array) -> jax.Array:
        def step(state: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
            jax.debug.print("state {s:.3f} x {x}", s=state, x=x, ordered=True)
            return jnp.tanh(state + x), state

        return jax.lax.scan(step, jnp.zeros(()), xs)[1][-1]

    printed = []
    for transform in (lambda f: f, optimize):
        jax.block_until_ready(jax.jit(transform(function))(XS))
        jax.effects_barrier()
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    assert printed[0].count("state") == len(XS)


@pytest.mark.parametrize("use", ["rows", "last", "state"])
def test_values_from_the_host(use: str):
    """An ordered `io_callback` is called once a step, in order, and its value kept."""
    results = []
    for transform in (lambda f: f, optimize):
        calls: Log = []

        def host(x: np.ndarray, calls: Log = calls) -> np.ndarray:
            calls.append(float(x))
            return np.asarray(len(calls), np.float32)

        def function(xs: jax.Array, host: Callable = host) -> jax.Array:
            def step(state: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
                shape = jax.ShapeDtypeStruct((), jnp.float32)
                number = io_callback(host, shape, x, ordered=True)
                state = state + number * x
                return state, state

            final, rows = jax.lax.scan(step, jnp.float32(0), xs)
            return {"rows": rows, "last": rows[-1], "state": final}[use]

        value = jax.jit(transform(function))(XS.astype(jnp.float32))
        jax.effects_barrier()
        results.append((np.asarray(value).tolist(), calls))
    assert results[0] == results[1]
    assert results[0][1] == XS.tolist()
