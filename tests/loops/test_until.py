"""Loops that stop: the right rows, the right derivatives, and really no step more."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jscan
from support import reference
from support.checking import check_scan
from support.comparing import assert_close
from support.stops import executed_sum, settled, temporary_bytes

X = np.linspace(0.3, 1.9, 6)


def decay(loops, xp):
    """A state and a map output, stopped by the elements."""

    def program(x, h, w, top):
        def step(a, h, w):
            new = xp.tanh(h * w + a)
            return [new, a * w], loops.until(a >= top)

        return settled(loops.scan(step, x, [h, None], w), len(x))

    return program


def growth(loops, xp):
    """No sequence; the state, which reaches back three steps, decides."""

    def program(z, w, top):
        def step(last, third, w):
            new = last * w + third
            return new, loops.until(new > top)

        info = dict(initial=z, taps=[-1, -3])
        return settled(loops.scan(step, None, info, w, n_steps=9), 9)

    return program


def in_a_tree(loops, xp):
    """Vectors in a named state, run backwards, sequence taps."""

    def program(x, h, w):
        def step(now, later, state):
            new = {"h": xp.sin(state["h"] @ w + now), "sum": state["sum"] + later}
            return new, loops.until(new["sum"].sum() > 3.0)

        return settled(
            loops.scan(
                step,
                dict(input=x, taps=[0, 1]),
                dict(initial={"h": h, "sum": xp.zeros_like(h)}),
                go_backwards=True,
            ),
            len(x) - 1,
        )

    return program


@pytest.mark.parametrize("top", [1.2, 9.0, 0.0], ids=["middle", "never", "at once"])
def test_state_and_map_output(top):
    args = X, 0.4, 0.7, top
    check_scan(decay(jscan, jnp), decay(reference, np), *args, second=top == 1.2)


def test_taps():
    check_scan(
        growth(jscan, jnp), growth(reference, np), np.array([0.2, 0.5, 0.9]), 1.1, 4.0
    )


def test_trees_backwards_and_sequence_taps():
    x = np.cos(np.arange(14.0)).reshape(7, 2) + 0.4
    args = x, np.array([0.1, -0.2]), np.array([[0.5, 0.2], [-0.3, 0.4]])
    check_scan(in_a_tree(jscan, jnp), in_a_tree(reference, np), *args, batch=False)


def test_every_lane_stops_by_itself_with_its_own_gradient():
    tops = jnp.array([0.0, 0.9, 1.5, 9.0])

    def cost(x, h, w, top):
        return (decay(jscan, jnp)(x, h, w, top)[0][0] ** 2).sum()

    def summed(x, h, w):
        return jax.vmap(cost, (None, None, None, 0))(x, h, w, tops).sum()

    args = jnp.asarray(X), jnp.asarray(0.4), jnp.asarray(0.7)
    single = jax.jit(jax.value_and_grad(cost, (0, 1, 2)))
    lanes = jax.jit(jax.vmap(jax.value_and_grad(cost, (0, 1, 2)), (None,) * 3 + (0,)))
    expected = jax.tree.map(
        lambda *leaves: np.stack(leaves), *[single(*args, top) for top in tops]
    )
    assert_close(lanes(*args, tops), expected)
    together = jax.jit(jax.grad(summed, (0, 1, 2)))(*args)
    assert_close(together, jax.tree.map(lambda leaf: leaf.sum(0), expected[1]))


def test_a_finished_lane_cannot_spoil_the_gradient():
    """Beyond its end a lane may divide by zero: nobody sees it."""

    def cost(h, top):
        result = jscan.scan(
            lambda h, top: (h - 1.0, jscan.until(h <= top)),
            outputs_info=h,
            non_sequences=top,
            n_steps=8,
        )
        inverse = jscan.scan(
            lambda h, top: (1.0 / (1.0 / h - 1.0), jscan.until(h <= top)),
            outputs_info=h,
            non_sequences=top,
            n_steps=8,
        )
        return result.outputs[-1] + inverse.outputs[-1]

    def total(h):
        return jax.vmap(cost)(h, jnp.array([1.0, 0.9])).sum()

    gradient = jax.grad(total)(jnp.array([0.5, 0.75]))
    # 1 / (1/h - 1) has the derivative 1 / (1 - h)**2 in its first step, the last one.
    np.testing.assert_allclose(gradient, [1 + 4.0, 1 + 16.0])


def test_nested():
    """An inner loop that stops inside an outer one that stops."""

    def program(loops, xp):
        def outer(x, total, w):
            def inner(a, h):
                return h * w + a, loops.until(h > 1.0)

            if loops is jscan:
                last = loops.reduce(inner, xp.stack([x, x, x]), xp.zeros_like(x))[0]
            else:
                last = loops.reduce(inner, np.stack([x, x, x]), np.zeros_like(x))[0]
            return total + last, loops.until(total > 4.0)

        def run(x, w):
            return settled(loops.scan(outer, x, xp.zeros_like(w), w), len(x))

        return run

    check_scan(program(jscan, jnp), program(reference, np), X, 0.8, batch=False)


def test_map_and_reduce():
    x = jnp.arange(1.0, 7.0)
    rows, _ = jscan.map(lambda a: (a * 10, jscan.until(a >= 3)), x)
    assert rows.tolist() == [10, 20, 30]
    total, _ = jscan.reduce(lambda a, acc: (acc + a, jscan.until(a >= 3)), x, 0.0)
    assert float(total) == 6.0
    traced = jax.jit(
        lambda x: jscan.reduce(
            lambda a, acc: ([acc + a, a * 2], jscan.until(a >= 3)), x, [0.0, None]
        )
    )(x)
    assert [float(value) for value in traced.outputs] == [6.0, 6.0]
    assert int(traced.n_steps) == 3


def test_updates_stop_at_the_same_step():
    count = jscan.shared(0, name="count")

    def step(a):
        return a, {count: count.value + 1}, jscan.until(a >= 3)

    result = jscan.scan(step, jnp.arange(1.0, 7.0))
    assert result.n_steps == 3
    assert int(result.updates[count]) == 3


def test_rows_and_mask_of_eager_and_traced_calls():
    def run(x):
        return jscan.scan(lambda a: (a * 10, jscan.until(a >= 3)), x)

    x = jnp.arange(1.0, 7.0)
    eager, traced = run(x), jax.jit(run)(x)
    assert eager.outputs.tolist() == [10, 20, 30]
    assert (eager.n_steps, eager.mask.tolist()) == (3, [True] * 3)
    assert isinstance(eager.n_steps, int)
    assert traced.outputs.tolist() == [10, 20, 30, 30, 30, 30]
    assert traced.mask.tolist() == [True] * 3 + [False] * 3
    assert traced.n_steps.dtype == jnp.int32


def test_rows_that_a_python_loop_repeats_are_not_those_of_executed_steps():
    def run(x):
        step = lambda a, h: (h + a, jscan.until(True))
        return jscan.scan(step, x, 0.0, n_steps=3, mode="DEBUG")

    def seen(x):
        result = run(x)
        return result.outputs, result.mask, result.filled(0)

    x = jnp.arange(2.0, 6.0)
    for rows in seen(x), jax.vjp(seen, x)[0]:
        assert jax.tree.map(list, rows) == ([2.0], [True], [2.0])
    outputs, mask, filled = jax.jit(seen)(x)
    assert outputs.tolist() == [2.0, 2.0, 2.0]
    assert mask.tolist() == [True, False, False]
    assert filled.tolist() == [2.0, 0.0, 0.0]
    total = lambda x: run(x).filled(0).sum()
    assert jax.grad(total)(x).tolist() == [1.0, 0.0, 0.0, 0.0]
    assert jax.jit(jax.grad(total))(x).tolist() == [1.0, 0.0, 0.0, 0.0]


def test_theano_issue_5439():
    """The gradient of a loop that stops early lands on the rows that were read."""

    def cost(x, w):
        result = jscan.scan(
            lambda a, w: (a**2 * w, jscan.until(a >= 3)), x, non_sequences=w
        )
        return executed_sum(result)

    x = jnp.arange(1.0, 7.0)
    gradient = jax.jit(jax.grad(cost, (0, 1)))(x, 2.0)
    assert gradient[0].tolist() == [4, 8, 12, 0, 0, 0]
    assert float(gradient[1]) == 14
    backwards = jax.grad(
        lambda x: executed_sum(
            jscan.scan(
                lambda a, h: (0.5 * h + a, jscan.until(a <= 4)),
                x,
                jnp.zeros(()),
                go_backwards=True,
            )
        )
    )(x)
    assert backwards.tolist() == [0, 0, 0, 1, 1.5, 1.75]


@pytest.mark.parametrize("differentiated", [False, True])
def test_no_step_runs_after_the_stop(differentiated):
    """Counted by a callback: 16 steps of 8192, also when differentiated."""
    seen = []

    def step(h, w):
        jax.debug.callback(lambda h: seen.append(float(h)), h)
        return h + w, jscan.until(h + w >= 16.0)

    def run(w):
        result = jscan.scan(step, None, jnp.zeros(()), w, n_steps=8192)
        return executed_sum(result)

    value = jax.jit(jax.grad(run) if differentiated else run)(1.0)
    jax.effects_barrier()
    assert sorted(seen) == list(range(16))
    assert float(value) == 136.0  # 1 + 2 + ... + 16, the rows and the derivative


def test_the_gradient_keeps_rows_but_runs_only_the_executed_steps():
    """Steps of the backward loop, counted by the callbacks of a derivative rule."""
    seen = []

    @jax.custom_vjp
    def noted(h):
        return h

    def backward(_, rate):
        jax.debug.callback(lambda r: seen.append(float(r)), rate)
        return (rate,)

    noted.defvjp(lambda h: (h, None), backward)

    def run(w):
        result = jscan.scan(
            lambda h, w: (noted(h) * w, jscan.until(h > 4.0)),
            None,
            jnp.ones(()),
            w,
            n_steps=64,
        )
        return result.outputs[-1]

    jax.block_until_ready(jax.jit(jax.grad(run))(2.0))
    jax.effects_barrier()
    assert len(seen) == 4


def test_debug_mode_agrees():
    x = jnp.asarray(X)

    def run(mode, w):
        result = jscan.scan(
            lambda a, h, w: (h * w + a, jscan.until(a > 1.0)),
            x,
            jnp.zeros(()),
            w,
            mode=mode,
        )
        return result.outputs

    np.testing.assert_allclose(run("DEBUG", 0.5), run(None, 0.5))
    np.testing.assert_allclose(
        *[jax.grad(lambda w, m=m: run(m, w).sum())(0.5) for m in ("DEBUG", None)]
    )


def test_condition_is_a_scalar_and_any_nonzero_number_stops():
    with pytest.raises(ValueError, match=r"(?s)storm.*until.*scalar.*any"):
        jscan.scan(lambda a: (a, jscan.until(a > 0)), jnp.ones((3, 2)), name="storm")
    rows, _ = jscan.scan(lambda a: (a, jscan.until(a - 1)), jnp.array([1, 1, 3, 4]))
    assert rows.tolist() == [1, 1, 3]


def test_an_outer_variable_only_the_condition_uses():
    top = jnp.asarray(2.0)
    rows, _ = jscan.scan(lambda a: (a, jscan.until(a >= top)), jnp.arange(5.0))
    assert rows.tolist() == [0, 1, 2]
    compiled = jax.jit(
        lambda x, top: jscan.scan(lambda a: (a, jscan.until(a >= top)), x).n_steps
    )
    assert int(compiled(jnp.arange(5.0), 3.0)) == 4


def test_an_eager_call_with_a_fresh_lambda_and_another_stop_compiles_nothing():
    def call(top):
        return jscan.scan(
            lambda a, top: (a, jscan.until(a >= top)), jnp.arange(8.0), None, top
        ).outputs

    call(jnp.asarray(1.0))
    with jax.log_compiles(), pytest.MonkeyPatch.context() as patch:
        compiled = []
        patch.setattr(
            "logging.Logger.warning", lambda *args, **_: compiled.append(args[1:])
        )
        lengths = [len(call(jnp.asarray(top))) for top in (2.0, 4.0, 9.0)]
    assert lengths == [3, 5, 8]
    assert not compiled


def test_what_is_the_same_at_each_step_is_not_stored_at_each():
    """The derivative of ``h @ w.T`` reads the transposed weights, once."""
    steps, wide = 500, 32

    def last(w, x):
        def step(a, h, w):
            new = jnp.tanh(h @ w.T + a)
            return new, jscan.until(new.sum() > 1e3)

        return jscan.scan(step, x, jnp.zeros(wide, x.dtype), w).outputs[-1].sum()

    w, x = jnp.eye(wide) / 2, jnp.ones((steps, wide))
    compiled = jax.jit(jax.grad(last)).lower(w, x).compile()
    assert temporary_bytes(compiled) < steps * wide * wide * x.dtype.itemsize / 2
    plain = lambda w, x: jax.lax.scan(
        lambda h, a: (jnp.tanh(h @ w.T + a), None), jnp.zeros(wide, x.dtype), x
    )[0].sum()
    np.testing.assert_allclose(jax.grad(last)(w, x), jax.grad(plain)(w, x), rtol=1e-9)
