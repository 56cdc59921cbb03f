"""`plan="measure"`: the fastest form runs, whatever the estimate says; same results."""

import dataclasses
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jscan
from jscan._optimizer.costs.machines import MEASURED
from jscan._optimizer.planning import planner
from support.comparing import assert_close
from support.optimizer.loops import check, operations
from support.optimizer.machines import every_machine
from support.optimizer.planning import kept_in, times, timing_of

measure = partial(jscan.optimize, plan="measure", plan_seconds=200)
said = partial(jscan.explain, plan="measure", plan_seconds=200)

X = jnp.linspace(-1.0, 1.0, 20 * 3).reshape(20, 3)
W = jnp.linspace(-0.5, 0.5, 9).reshape(3, 3)


@pytest.fixture(autouse=True)
def wisdom(tmp_path: Path):
    with kept_in(tmp_path) as folder:
        yield folder


def rows(w, x):
    """Products of a sequence, which can leave the loop, and of the state."""
    step = lambda h, x_t: ((h := jnp.tanh(x_t @ w + h @ w.T)), h)
    return jax.lax.scan(step, jnp.zeros(3, x.dtype), x)[1]


def mapped(w, x):
    """A loop without state, which can be a batch, or stay a loop."""
    return jax.lax.scan(lambda _, x_t: (None, jnp.sin(x_t @ w)), None, x)[1]


# Forms that win.
WINNERS = {
    "as written": rows,
    "estimated without hoist.sequences": rows,
    "estimated": mapped,
    "cautious": mapped,
}


@pytest.mark.parametrize("winner", WINNERS)
def test_the_same_results_in_every_form(winner):
    """Under `jit`, `grad` and `vmap`, on either side."""
    fun = WINNERS[winner]
    with times({winner: 0.1}):
        check(fun, W, X, plan="measure", plan_seconds=200)


def test_the_same_results_by_the_clock():
    """Nothing is made up: programs are compiled and run in the lowering."""
    expected = jax.jit(jax.grad(lambda w: rows(w, X).sum()))(W)
    assert_close(jax.jit(jax.grad(lambda w: measure(rows)(w, X).sum()))(W), expected)
    (forward, backward) = said(jax.grad(lambda w: rows(w, X).sum()))(W).loops
    for loop in (forward, backward):
        assert timing_of(loop).times["as written"] > 0
        assert (timing_of(loop).gain or 0) > 0


def test_the_form_with_the_least_time_runs(tmp_path):
    """The estimate says batch; as it is written the loop was faster, or the reverse."""
    with times({"estimated": 0.1}):
        assert operations(measure(mapped), W, X)[1] == []
    with kept_in(tmp_path / "other"), times({"as written": 0.1}):
        assert "sin" in operations(measure(mapped), W, X)[1]


def costly(**costs):
    return dataclasses.replace(MEASURED["cpu"], **costs)


def test_measuring_overrules_a_wrong_estimate(wisdom):
    """Costs that are wrong by construction: no batch would ever pay."""
    with every_machine(costly(batch_start=10**12)), times({"eager": 0.1}):
        (loop,) = said(mapped)(W, X).loops
        assert timing_of(loop).form == "eager"
        assert timing_of(loop).gain == pytest.approx(10)
        assert "vectorise" in loop.fired
        assert operations(measure(mapped), W, X)[1] == []
        assert "sin" in operations(jscan.optimize(mapped), W, X)[1]
        assert_close(jax.jit(measure(mapped))(W, X), jax.jit(mapped)(W, X))


def test_rules_are_switched_off_one_by_one():
    """From the fastest form, as long as that gains."""
    best = "estimated without hoist.sequences"
    with times({"estimated": 0.5, best: 0.1}) as races:
        (loop,) = said(rows)(W, X).loops
    assert timing_of(loop).form == best
    assert any("hoist.sequences" in name for name in races[1])
    assert "hoist.sequences" not in {note.rule for note in loop.notes if note.fired}
    assert all("as written" in race for race in races)


def test_a_gain_that_may_be_noise_changes_nothing():
    with times({"estimated": 0.5, "as written": 0.49}):
        (loop,) = said(rows)(W, X).loops
    assert timing_of(loop).form == "estimated"


def test_the_report_says_what_was_measured():
    with times({"as written": 2e-3, "estimated": 2.5e-5, "cautious": 1e-3}):
        report = said(rows)(W, X)
    text = "= measured: 2 ms as written, 25 us estimated, 80.00x as fast"
    assert text in str(report)
    assert "80.00x as fast" in report._repr_html_()
    again = said(rows)(W, X)
    assert "of an earlier run" in str(again.loops[0])
    assert "= " not in str(jscan.explain(rows)(W, X).loops[0]).splitlines()[1][:5]


def test_who_wants_the_last_row_measures_that(tmp_path):
    """What is computed of the rows alone is timed with the loop, and stays right."""
    last = lambda w, x: rows(w, x)[-1].sum()
    for winner in ("as written", "estimated", "cautious"):
        with kept_in(tmp_path / winner), times({winner: 0.1}):
            assert_close(jax.jit(measure(last))(W, X), jax.jit(last)(W, X))
            (loop,) = said(last)(W, X).loops
            assert ("save_memory" in loop.fired) == (winner != "as written")


def test_inner_loops_are_measured_with_the_outer_one(tmp_path):
    def nested(w, x):
        outer = lambda h, x_t: ((h := rows(w, x + h[None])[-1] + x_t), h)
        return jax.lax.scan(outer, jnp.zeros(3, x.dtype), x)[1]

    for winner in ("as written", "estimated", "estimated without hoist.sequences"):
        with kept_in(tmp_path / winner), times({winner: 0.1}) as races:
            assert_close(jax.jit(measure(nested))(W, X), jax.jit(nested)(W, X))
            report = said(nested)(W, X)
        assert all(race.count("as written") == 1 for race in races)
        assert timing_of(report.loops[0]).form == winner
        assert all(loop.timing is None for loop in report.loops[1:])


def test_keys_and_integers_are_made_up():
    def drawn(key, table, index):
        def step(key, i):
            return jax.random.fold_in(key, i), table[i] + jax.random.normal(key)

        return jax.lax.scan(step, key, index)[1]

    table = jnp.arange(5.0)
    index = jnp.array([0, 3, 2])
    for key in (jax.random.key(1), jax.random.key(1, impl="rbg")):
        expected = jax.jit(drawn)(key, table, index)
        assert_close(jax.jit(measure(drawn))(key, table, index), expected)
        (loop,) = said(drawn)(key, table, index).loops
        assert timing_of(loop).times


def test_narrow_programs_and_debug_nans():
    """Settings of the thread hold; made-up values are no reason to stop."""
    with jax.enable_x64(False), jax.debug_nans(True):
        x = jnp.ones((20, 3), jnp.float32)
        log = lambda x: jax.lax.scan(lambda c, x: (jnp.log(x) + c, c), x[0], x)[0]
        assert_close(jax.jit(measure(log))(x), jax.jit(log)(x))
        assert timing_of(said(log)(x).loops[0]).times


def test_loops_of_scan_are_measured_where_the_environment_says_so(monkeypatch):
    fun = lambda w, x: jscan.map(lambda x_t: jnp.sin(x_t @ w), x).outputs
    expected = jax.jit(fun)(W, X)
    monkeypatch.setenv("JSCAN_PLAN", "measure")
    with times({"as written": 0.1}) as races:
        assert_close(jax.jit(lambda w, x: fun(w, x))(W, X), expected)
        assert_close(fun(W, X), expected)
    assert races == [["as written", "estimated"]]


@pytest.mark.parametrize("place", ["argument", "environment"])
def test_a_plan_that_is_none(place, monkeypatch):
    if place == "environment":
        monkeypatch.setenv("JSCAN_PLAN", "guess")
        with pytest.raises(jscan.ScanValueError, match="JSCAN_PLAN: needed"):
            jax.jit(lambda x: jscan.map(jnp.tanh, x).outputs)(X)
        return
    with pytest.raises(jscan.ScanValueError, match=r"plan: needed .* got 'guess'"):
        jscan.optimize(rows, plan="guess")  # pyright: ignore
    with pytest.raises(jscan.ScanValueError, match="plan_seconds: needed"):
        jscan.optimize(rows, plan="measure", plan_seconds=-1)


def test_plans_are_apart_in_the_caches_of_jit():
    """What was compiled by one plan is not what another one runs."""
    with times({"as written": 0.1}) as races, every_machine(costly(batch_start=80)):
        one = jax.jit(jscan.optimize(mapped)).lower(W, X).as_text()
        assert not races
        other = jax.jit(measure(mapped)).lower(W, X).as_text()
        assert races
    assert one != other


def test_a_failure_leaves_the_estimate(monkeypatch):
    """Compiling a form may fail; that is no reason to fail (but for us)."""

    def fail(*_):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(planner, "compiled", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        jax.jit(measure(rows))(W, X)
    monkeypatch.setenv("JSCAN_DEBUG", "0")
    assert_close(jax.jit(measure(rows))(W, X), jax.jit(rows)(W, X))
    (loop,) = said(rows)(W, X).loops
    assert "out of memory" in str(timing_of(loop))
    assert "hoist" in loop.fired


def test_the_budget_is_kept():
    """Without any nothing is timed; with little, the least is."""
    (loop,) = jscan.explain(rows, plan="measure", plan_seconds=0)(W, X).loops
    assert not timing_of(loop).times
    assert "more than the 0 s allowed" in str(timing_of(loop))
    with times({}) as races:
        (loop,) = jscan.explain(rows, plan="measure", plan_seconds=1e-3)(W, X).loops
    assert races == [["as written", "estimated"]]
    assert "no more was tried, 0.001 s are spent" in str(timing_of(loop))
    with times({}) as races:
        said(rows)(W, X)  # a search that may take longer is another one
    assert races
    long = lambda x: jax.lax.fori_loop(0, 10**10, lambda i, x: jnp.tanh(x + 1), x)
    with times({}) as races:
        (loop,) = jscan.explain(long, plan="measure", plan_seconds=10)(X).loops
    assert not races
    assert "more than the 10 s allowed" in str(timing_of(loop))


def test_several_loops_share_the_budget():
    """The second finds nothing left."""
    two = lambda w, x: rows(w, jnp.sin(rows(w, x[:9])))
    with times({}):
        first, second = jscan.explain(two, plan="measure", plan_seconds=1e-3)(
            W, X
        ).loops
    assert timing_of(first).times
    assert not timing_of(second).times
    np.testing.assert_allclose(jax.jit(measure(two))(W, X), two(W, X), rtol=1e-6)
