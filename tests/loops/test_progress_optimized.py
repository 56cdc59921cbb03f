"""A bar does not keep a loop from being rewritten, and a rewritten loop moves it."""

import io
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jscan
from jscan._loops import meters
from jscan._optimizer import make_options, rewrite
from jscan._optimizer.program import walk as _walk

SIZE, STEPS = 8, 23  # a prime: no whole number of stretches
KEYS = jax.random.split(jax.random.key(0), 2)
W = jax.random.normal(KEYS[0], (SIZE, SIZE)) * 0.3
X = jax.random.normal(KEYS[1], (STEPS, SIZE))


@pytest.fixture
def moves(monkeypatch):
    """What the host was told, in order: steps done, and whether that was the last."""
    told = []
    real = meters.move_bar

    def recorded(bar, done, *, last=False):
        told.append((done, last))
        real(bar, done, last=last)

    monkeypatch.setattr(meters, "move_bar", recorded)
    return told


def quiet(**settings):
    return {"file": io.StringIO(), **settings}


def rnn(w, x=X, progress: Any = False):
    h = jnp.zeros(SIZE)
    step = jscan.scan(
        lambda x, h, w: jnp.tanh(x @ w + h @ w), x, h, w, progress=progress, name="rnn"
    )
    return step.outputs


def with_bar(w, x=X):
    return rnn(w, x, progress=quiet())


def two(value):
    return value, value


def by_hand(w, x=X):
    return jax.lax.scan(lambda h, x: two(jnp.tanh(x @ w + h @ w)), jnp.zeros(SIZE), x)[
        1
    ]


def loss(run):
    return lambda w: (run(w) ** 2).sum()


def loops(closed_jaxpr, name):
    """The equations of a primitive, those of inner programs too."""
    found = []
    for equation in getattr(closed_jaxpr, "jaxpr", closed_jaxpr).eqns:
        if equation.primitive.name == name:
            found.append(equation)
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "jaxpr") or hasattr(inner, "eqns"):
                found += loops(inner, name)
    return found


def rewritten(fun, *args):
    return rewrite(jax.make_jaxpr(fun)(*args), platform="cpu", options=make_options())


def lagged(x, progress: Any = False):
    """Steps on single numbers, which run several to an iteration."""
    return jscan.scan(lambda x, h: 0.5 * h + x, x, 0.0, progress=progress).outputs


def test_a_loop_is_rewritten_as_without_a_bar():
    """The loop of each stretch, in a loop of the stretches; no step is left over."""
    x = jnp.linspace(0, 1, 1040)
    (want,) = loops(rewritten(lagged, x), "scan")
    outer, got = loops(rewritten(lambda x: lagged(x, quiet()), x), "scan")
    assert got.params["unroll"] == want.params["unroll"] > 1
    assert outer.params["unroll"] == 1
    assert outer.params["length"] * got.params["length"] == 1040


@pytest.mark.parametrize("every", [1, 3, 8, 100])
def test_steps_that_run_several_to_an_iteration_are_counted(moves, every):
    x = jnp.linspace(0, 1, 515)
    got = jax.jit(lambda x: lagged(x, quiet(miniters=every)))(x)
    want, h = [], 0.0
    for number in np.asarray(x):
        h = 0.5 * h + number
        want.append(h)
    np.testing.assert_allclose(got, want, rtol=1e-5)
    jax.effects_barrier()
    starts = [(done, False) for done in range(0, 515, every)]
    assert sorted(moves) == sorted([*starts, (515, True)])


def test_explain_reports_the_same_with_a_bar():
    x = jnp.linspace(0, 1, 1040)
    with_it, without = (
        [loop.notes for loop in jscan.explain(lambda x, p=p: lagged(x, p))(x).loops]
        for p in (quiet(), False)
    )
    assert with_it == without
    assert with_it


def test_rewriting_twice_changes_nothing():
    once = rewritten(with_bar, W)
    twice = rewrite(once, platform="cpu", options=make_options())
    assert str(once) == str(twice)


def test_the_backward_loops_do_not_report():
    program = jax.make_jaxpr(jax.grad(loss(with_bar)))(W)
    forward = jax.make_jaxpr(with_bar)(W)
    assert (
        len(loops(program, "debug_callback"))
        == len(loops(forward, "debug_callback"))
        > 0
    )
    assert len(loops(program, "scan")) == 2 * len(loops(forward, "scan"))


@pytest.mark.parametrize("every", [1, 5, STEPS, 2 * STEPS])
def test_reports_come_between_stretches(moves, every):
    run = jax.jit(lambda w: rnn(w, progress=quiet(miniters=every)))
    np.testing.assert_allclose(run(W), by_hand(W), rtol=1e-5, atol=1e-6)
    jax.effects_barrier()
    starts = [(done, False) for done in range(0, STEPS, every)]
    assert sorted(moves) == sorted([*starts, (STEPS, True)])


TRANSFORMS = {
    "grad": lambda f: jax.grad(loss(f)),
    "jvp": lambda f: lambda w: jax.jvp(f, (w,), (jnp.ones_like(w),))[1],
    "vmap": lambda f: lambda w: jax.vmap(f)(jnp.stack([w, 2 * w])),
    "vmap of grad": lambda f: (
        lambda w: jax.vmap(jax.grad(loss(f)))(jnp.stack([w, 2 * w]))
    ),
    "hessian": lambda f: jax.hessian(lambda a: loss(f)(a * W)),
}


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("name", TRANSFORMS)
def test_values_and_derivatives_are_those_of_the_plain_loop(moves, name, jit):
    make = TRANSFORMS[name]
    at = jnp.ones((), W.dtype) if name == "hessian" else W
    run = make(with_bar)
    got = (jax.jit(run) if jit else run)(at)
    np.testing.assert_allclose(got, make(by_hand)(at), rtol=2e-4, atol=2e-4)
    jax.effects_barrier()
    assert (STEPS, True) in moves


def test_optimized_by_hand_too(moves):
    run = jscan.optimize(jax.grad(loss(with_bar)))
    want = jax.grad(loss(by_hand))(W)
    np.testing.assert_allclose(jax.jit(run)(W), want, rtol=2e-4, atol=2e-4)
    jax.effects_barrier()
    assert (STEPS, True) in moves


def test_a_loop_that_could_be_solved_stays_a_loop_to_be_watched(moves):
    run = jax.jit(lambda x: jscan.scan(jnp.sin, x, progress=quiet(miniters=5)).outputs)
    np.testing.assert_allclose(run(X), jnp.sin(X), rtol=1e-6)
    jax.effects_barrier()
    assert (10, False) in moves
    assert (STEPS, True) in moves


def test_a_loop_of_which_nothing_is_left_is_run_as_it_was_written(moves):
    def run(x):  # its state is constant, its rows are known without a loop
        return jscan.scan(
            lambda x, h: (x, h), x, [None, jnp.ones(3)], progress=quiet(miniters=5)
        ).outputs

    rows, ones = jax.jit(run)(X)
    np.testing.assert_array_equal(rows, X)
    np.testing.assert_array_equal(ones, np.ones((STEPS, 3)))
    jax.effects_barrier()
    assert (10, False) in moves
    assert (STEPS, True) in moves


def test_an_optimizer_that_fails_leaves_the_loop_and_its_bar(moves, monkeypatch):
    def fail(*_):
        raise RuntimeError("injected")

    monkeypatch.setattr(_walk, "emit", fail)
    monkeypatch.delenv("JSCAN_DEBUG", raising=False)
    got = jscan.optimize(with_bar)(W)
    np.testing.assert_allclose(got, by_hand(W), rtol=1e-5, atol=1e-6)
    jax.effects_barrier()
    assert (STEPS, True) in moves
    assert "failed and was skipped (RuntimeError: injected)" in str(
        jscan.explain(with_bar)(W)
    )


def test_the_report_names_the_loop_under_a_bar():
    (plain,) = jscan.explain(rnn)(W).loops
    watched = jscan.explain(with_bar)(W).loops
    assert {loop.name for loop in watched} == {plain.name} == {"rnn"}
    assert all(loop.fired == plain.fired for loop in watched)
