"""hoist.sequences: cheap work goes along where the loop then reads fewer rows."""

import itertools
import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jscan import optimize
from jscan._optimizer.analysis.dependence import Dependence, Level
from jscan._optimizer.analysis.fewest_rows import with_fewest_rows
from jscan._optimizer.record.reading import read_loop
from support.comparing import assert_close
from support.optimizer.loops import check, operations, row_shapes

T, N, M = 9, 5, 3
KEYS = jax.random.split(jax.random.key(23), 4)
A, B, C = (jax.random.normal(key, (T, N)) for key in KEYS[:3])
NARROW = jax.random.normal(KEYS[3], (T, M))
P = jnp.linspace(0.5, 1.5, N)
ROW = (T, N)


def advantages(p, rewards, values, after):
    def step(total, row):
        reward, value, then = row
        gain = reward + 0.99 * jnp.tanh(p * then) - jnp.tanh(p * value)
        total = gain + 0.94 * total
        return total, total

    return jax.lax.scan(step, jnp.zeros(N), (rewards, values, after))[1]


def test_a_sum_is_stored_and_not_its_terms():
    """Its value and gradient are those of plain JAX, and of a loop of NumPy."""
    assert row_shapes(optimize(advantages), P, A, B, C) == [ROW]
    outside, inside = operations(optimize(advantages), P, A, B, C)
    assert (outside.count("tanh"), inside) == (2, ["mul", "add"])
    check(advantages, P, A, B, C)
    p, rewards, values, after = (np.asarray(x, np.float64) for x in (P, A, B, C))
    total, rows = np.zeros(N), []
    for t in range(T):
        gain = rewards[t] + 0.99 * np.tanh(p * after[t]) - np.tanh(p * values[t])
        total = gain + 0.94 * total
        rows.append(total)
    assert_close(jax.jit(optimize(advantages))(P, A, B, C), np.stack(rows))


def test_a_sum_is_stored_though_more_lies_between():
    """From each term to the row that it is reduced to, no cut is narrower."""

    def mixed(p, wide, narrow):
        def step(h, row):
            x, y = row
            drive = jnp.outer(jnp.tanh(p * x), jnp.tanh(y)).sum(1)
            return (h := 0.5 * h + drive), h

        return jax.lax.scan(step, jnp.zeros(N), (wide, narrow))[1]

    assert row_shapes(optimize(mixed), P, A, NARROW) == [ROW]
    check(mixed, P, A, NARROW)


def test_a_row_that_is_scaled_is_stored_before_it_is_spread():
    def spread(p, wide):
        def step(h, x):
            return (h := h * jnp.exp(-((x * p).sum() ** 2)) + x), h

        return jax.lax.scan(step, jnp.zeros(N), wide)[1]

    assert sorted(row_shapes(optimize(spread), P, A)) == [(T,), ROW]
    check(spread, P, A)


def in_a_wider_product(p, x, y):
    """What they make is larger than both."""

    def step(h, row):
        x, y = row
        return (h := 0.5 * h + jnp.outer(jnp.tanh(p * x), jnp.tanh(y))), h.sum()

    return jax.lax.scan(step, jnp.zeros((N, M)), (x, y[:, :M]))[1]


def read_twice(p, x, y):
    """The term is read by the state, too: the sum would be one more row."""

    def step(h, row):
        x, y = row
        term = jnp.tanh(p * x)
        return (h := h * term + (term + y)), h

    return jax.lax.scan(step, jnp.zeros(N), (x, y))[1]


def behind_a_branch(p, x, y):
    """A `cond` never leaves, nor what reads it."""

    def step(h, row):
        x, y = row
        either = jax.lax.cond(y[0] > 0, jnp.sin, jnp.cos, y)
        return (h := 0.5 * h + (jnp.tanh(p * x) + either)), h

    return jax.lax.scan(step, jnp.zeros(N), (x, y))[1]


def beside_the_state(p, x, y):
    """Of a sum with the state nothing can leave."""

    def step(h, row):
        x, y = row
        return (h := (jnp.tanh(p * x) + 0.5 * h) * y), h

    return jax.lax.scan(step, jnp.zeros(N), (x, y))[1]


def handed_on(p, x, y):
    """The next step reads the term alone."""

    def step(carry, row):
        h, before = carry
        x, y = row
        term = jnp.tanh(p * x)
        h = 0.5 * h + (term + y) * before
        return (h, term), h

    return jax.lax.scan(step, (jnp.zeros(N), jnp.zeros(N)), (x, y))[1]


def scaled(p, x, y):
    """As many rows with it as without: it is cheaper in the loop."""

    def step(h, x):
        return (h := 0.5 * h + 2.0 * jnp.tanh(p * x)), h

    return jax.lax.scan(step, jnp.zeros(N), x)[1]


STAYS = {
    in_a_wider_product: ("mul", [ROW, (T, M)]),
    read_twice: ("add", [ROW, ROW]),
    behind_a_branch: ("cond", [ROW, ROW]),
    beside_the_state: ("mul", [ROW, ROW]),
    handed_on: ("add", [ROW, ROW]),
    scaled: ("mul", [ROW]),
}


@pytest.mark.parametrize("loop", STAYS)
def test_what_saves_no_row_stays(loop):
    name, rows = STAYS[loop]
    assert sorted(row_shapes(optimize(loop), P, A, B)) == sorted(rows)
    outside, inside = operations(optimize(loop), P, A, B)
    assert "tanh" in outside
    assert "tanh" not in inside
    assert name in inside
    check(loop, P, A, B)


def test_the_budget_holds_for_what_lies_between():
    """A batch may have to hold the rows of a step that are reduced in it."""

    def mixed(x, y):
        def step(h, row):
            x, y = row
            drive = jnp.outer(jnp.tanh(x), jnp.tanh(y)).sum(1)
            return (h := 0.5 * h + drive), h

        return jax.lax.scan(step, jnp.zeros(N), (x, y))[1]

    few = (
        A.dtype.itemsize * T * (N + M)
    )  # the rows of both terms, but not of their products
    roomy, tight = optimize(mixed), optimize(mixed, memory_budget=few)
    assert row_shapes(roomy, A, NARROW) == [ROW]
    assert sorted(row_shapes(tight, A, NARROW)) == sorted([ROW, (T, M)])
    assert_close(jax.jit(tight)(A, NARROW), mixed(A, NARROW))


def a_program(seed):
    """A step that joins some rows in some order, some of which are results, too."""
    draw = random.Random(seed)

    def step(h, row):
        x, y, z = row
        values = [jnp.tanh(x), jnp.tanh(y), z]
        for _ in range(draw.randint(2, 7)):
            one, two = draw.sample(values, 2)
            if draw.random() < 0.25:
                values.append((one + 1.0).sum(-1, keepdims=True))
            else:
                values.append(one * two if draw.random() < 0.5 else one + two)
        for value in draw.sample(values, draw.randint(1, 3)) + values[-1:]:
            h = h * 0.5 + value * h
        wanted = draw.sample(values, draw.randint(0, 2))
        return h, wanted

    start = jnp.zeros((M, N))
    rows = A[:, None], NARROW[..., None], A[:, None] * NARROW[..., None]
    return jax.make_jaxpr(lambda *rows: jax.lax.scan(step, start, rows))(*rows)


def cost_of(loop, dependence, leaves):
    """Bytes that are written before the loop or in it, and read in it, a step."""
    inside = [e for e in loop.equations if id(e) not in leaves]
    read = {a for e in inside for a in e.invars if not hasattr(a, "val")}
    made = {v for e in loop.equations if id(e) in leaves for v in e.outvars}
    wanted = set(loop.wanted_rows())
    streams = read & {*made, *loop.sequences}
    written = (made & (read | wanted)) | (wanted - made - set(loop.sequences))
    size = lambda rows: sum(v.aval.dtype.itemsize * v.aval.size for v in rows)
    level = dependence.level
    written = {v for v in written if level(v) is Level.SEQUENCE}
    return size(streams) + size(written)


@pytest.mark.parametrize("seeds", [range(30), range(30, 60)], ids=["30", "60"])
def test_no_choice_reads_fewer_rows(seeds):
    """All of them are tried, for programs of a few equations."""
    wider = 0
    for seed in seeds:
        closed = a_program(seed)
        scan = next(e for e in closed.eqns if e.primitive.name == "scan")
        operands = [jnp.zeros(v.aval.shape) for v in scan.invars]
        loop = read_loop(scan, operands, set(scan.outvars), ())
        dependence = Dependence(loop)
        level = dependence.level_of
        work = [e for e in loop.equations if level(e) is Level.SEQUENCE]
        roots = [e for e in work if e.primitive.name == "tanh"]
        chosen = dependence.upstream(roots, work)
        free = dependence.upstream(dependence.downstream(roots, work), work)
        free = [e for e in free if e not in chosen]
        result = with_fewest_rows(dependence, chosen, work)
        costs = []
        for taken in itertools.product([False, True], repeat=len(free)):
            some = [e for e, take in zip(free, taken, strict=True) if take]
            if dependence.upstream([*chosen, *some], work) == [
                e for e in work if e in chosen or e in some
            ]:
                leaves = {*map(id, chosen), *map(id, some)}
                costs.append((cost_of(loop, dependence, leaves), len(some)))
        size = len(result) - len(chosen)
        found = cost_of(loop, dependence, set(map(id, result)))
        assert (found, size) == min(costs)
        assert dependence.upstream(result, work) == result
        wider += size > 0
    assert wider > len(seeds) // 5
