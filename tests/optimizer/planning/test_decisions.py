"""The table of decisions in `benchmarks/costs`: what is turned around, and judged."""

import importlib
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jscan._jax.jaxprs import run_jaxpr
from jscan._optimizer import rules
from support.comparing import assert_close
from support.optimizer.loops import loop_lengths

COSTS = Path(__file__).parents[3] / "benchmarks" / "costs"
W = jnp.asarray(np.random.default_rng(0).standard_normal((9, 9)), jnp.float32) / 3


@pytest.fixture
def flipping(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(COSTS)
    return importlib.import_module("_flipping")


@pytest.fixture
def judging(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(COSTS)
    return importlib.import_module("_judging")


def sines(x, _):
    """A map that does not pay as a batch: too few steps."""
    return jax.lax.map(lambda row: jnp.sin(row * 3.0), x)


def network(x, w):
    step = lambda h, row: (jax.nn.sigmoid(row @ w + h @ w), None)
    return jax.lax.scan(step, jnp.zeros(9, x.dtype), x)[0]


def flips_of(flipping, function, x):
    """Each rule whose decision is turned around: whether it fired, and its program.

    All compute what the function does.
    """
    (loop, *_) = flipping.met(function, (x, W))
    values = {x.shape: x, W.shape: W}
    operands = [values[aval.shape] for aval in loop.inputs]
    for program in (loop.program, *(flip.program for flip in loop.flips)):
        (got,) = run_jaxpr(program, *operands)
        assert_close(got, function(x, W), 1e-5)
    assert loop.features["steps"] == len(x)
    return {flip.rule: flip for flip in loop.flips}, loop


@pytest.mark.usefixtures("measured_costs")
def test_a_refusal_is_turned_around(flipping):
    x = jnp.ones((40, 20), jnp.float32)
    flips, loop = flips_of(flipping, sines, x)
    flip = flips["vectorise"]
    assert not flip.fired
    assert 0 < flip.saves < flip.costs
    assert loop_lengths(lambda x: run_jaxpr(loop.program, x), x) == [40]
    assert loop_lengths(lambda x: run_jaxpr(flip.program, x), x) == []


@pytest.mark.usefixtures("measured_costs")
def test_what_was_done_is_turned_around(flipping):
    flips, _ = flips_of(flipping, network, jnp.ones((20, 9), jnp.float32))
    assert flips["small_dots.tiny"].fired
    assert "dot_general" in str(flips["small_dots.tiny"].program)


def decision(judging, seed, steps, on, off, rule="unroll", chose="on", loop=1):
    features = dict.fromkeys(("state", "row", "constants", "operations", "flops"), 1)
    return judging.Decision(
        "0.12", "map", seed, "forward", loop, rule, steps, **features, bytes=1,
        chose=chose, on_us=on, off_us=off,
    )  # fmt: skip


@pytest.mark.any_jax
def test_time_lost(judging):
    """Two of three are right, the other one takes twice the time."""
    pairs = [(1.0, 4.0), (2.0, 1.0), (1.0, 1.0)]
    found = [decision(judging, 7, 9, *pair) for pair in pairs]
    assert judging.mean([one.lost_now for one in found]) == pytest.approx(2 ** (1 / 3))
    together, alone = judging.losses(found)
    assert together[1:] == alone[1:]
    _, _, part, count, wrong, wrongly_on, lost, least, _, _ = alone
    assert (part, count, wrong, wrongly_on) == ("judges", "3", "1 (33%)", "1")
    assert (lost, least) == ("26.0%", "0.50x")


@pytest.mark.any_jax
def test_a_law_is_found(judging):
    """Where it pays from 100 steps on, with steps left out between 80 and 125."""
    steps = [10, 20, 40, 80, 125, 250, 500, 1000]
    found = [decision(judging, 0, n, 100.0 / n, 1.0) for n in steps]
    law = judging.fitted(found)
    assert str(law) == "steps >= 100"
    assert law.lost(found) == 1.0
    assert not law.on(decision(judging, 7, 99, 1.0, 1.0))
    assert math.isclose(judging.fitted(found[4:]).lost(found[4:]), 1.0)


@pytest.mark.any_jax
def test_unsteady_loops_say_nothing(judging):
    def rows(loop, copy):
        one = decision(judging, 0, 9, 1.0, copy, rule=judging.COPY, loop=loop)
        return [one, decision(judging, 0, 9, 1.0, 2.0, loop=loop)]

    left = judging.steady([*rows(1, 1.05), *rows(2, 1.2)])
    assert [(one.loop, one.rule) for one in left if one.rule != judging.COPY] == [
        (1, "unroll")
    ]


@pytest.mark.any_jax
def test_the_table_names_rules_that_are_there(judging):
    table = judging.read(COSTS / "decisions.csv")
    assert len(table) > 2000
    assert {one.seed >= 5 for one in table} == {True, False}
    named = {one.rule.removesuffix(" (more)") for one in table} - {judging.COPY}
    assert named <= set(rules.RULE_NAMES)
