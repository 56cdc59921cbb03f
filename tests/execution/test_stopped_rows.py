"""The rows of a loop that stopped: the executed ones wherever their number is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jscan

X = jnp.arange(15.0)
MODES = [None, "FAST_COMPILE", "DEBUG"]


def squares(x, limit=5.0, **options):
    step = lambda x, limit: (x * x, jscan.until(x > limit))
    return jscan.scan(step, x, non_sequences=[limit], **options)


def total(x, **options):
    return squares(x, **options).outputs.sum()


SLOPE = np.where(np.arange(15) <= 6, 2.0 * np.arange(15), 0.0)


@pytest.mark.parametrize(
    "options",
    [*({"mode": mode} for mode in MODES), {"checkpoint": 3}, {"unroll": 2}],
    ids=str,
)
def test_derivatives_see_the_value_of_the_plain_call(options):
    """Recorded from PyTensor 3.3.8 (`TestGradUntil`): 91, and 2x of executed steps."""
    f = lambda x: total(x, **options)
    assert float(f(X)) == 91.0
    value, slope = jax.value_and_grad(f)(X)
    assert float(value) == 91.0
    np.testing.assert_array_equal(slope, SLOPE)
    value, pull = jax.vjp(f, X)
    assert float(value) == 91.0
    np.testing.assert_array_equal(pull(jnp.ones(()))[0], SLOPE)
    value, rate = jax.jvp(f, (X,), (jnp.ones(15),))
    assert (float(value), float(rate)) == (91.0, SLOPE.sum())
    value, push = jax.linearize(f, X)
    assert (float(value), float(push(jnp.ones(15)))) == (91.0, SLOPE.sum())
    np.testing.assert_array_equal(
        jax.hessian(f)(X), np.diag(2.0 * (np.arange(15) <= 6))
    )
    np.testing.assert_array_equal(jax.jacrev(f)(X), SLOPE)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("read", ["mean", "len", "before last"])
def test_whatever_reads_the_rows(mode, read):
    of_rows = {
        "mean": lambda rows: rows.mean(),
        "len": lambda rows: rows[0] * 0.0 + len(rows),
        "before last": lambda rows: rows[-2],
    }[read]
    f = lambda x: of_rows(squares(x, mode=mode).outputs)
    expected = {"mean": 13.0, "len": 7.0, "before last": 25.0}[read]
    assert float(f(X)) == float(jax.value_and_grad(f)(X)[0]) == expected


@pytest.mark.parametrize("mode", MODES)
def test_trees_states_and_updates_under_a_derivative(mode):
    count = jscan.shared(0.0, name="count")

    def step(x, h):
        rows = [{"h": h["h"] + x}, x * jnp.ones((2, 3))]
        return rows, {count: count + x}, jscan.until(x > 2.5)

    def run(x):
        infos = [dict(initial={"h": x[0]}), None]
        result = jscan.scan(step, x, infos, mode=mode)
        assert result.n_steps == 4
        assert result.mask.shape == (4,)
        shapes = jax.tree.map(jnp.shape, result.outputs)
        assert shapes == [{"h": (4,)}, (4, 2, 3)]
        state, rows = result.outputs
        return state["h"].sum() + rows.sum() + result.updates[count]

    value, slope = jax.value_and_grad(run)(X)
    assert float(value) == float(run(X)) == 10.0 + 36.0 + 6.0
    np.testing.assert_array_equal(slope[:6], [4 + 4 + 7, 3 + 7, 2 + 7, 1 + 7, 0, 0])


def test_a_traced_number_of_steps_that_a_derivative_knows():
    def f(x, number):
        result = jscan.scan(lambda x: x * x, x, n_steps=number)
        return result.outputs.sum()

    both = jax.value_and_grad(
        lambda x, number: f(x, number.astype(int)), argnums=(0, 1)
    )
    value, (slope, _) = both(X, jnp.asarray(3.0))
    assert float(value) == 5.0
    np.testing.assert_array_equal(slope[:4], [0.0, 2.0, 4.0, 0.0])


def test_truncated_loops_too():
    f = lambda x: total(x, truncate_gradient=2)
    value, slope = jax.value_and_grad(f)(X)
    assert float(value) == 91.0
    np.testing.assert_array_equal(slope, np.where(np.arange(15) >= 5, SLOPE, 0.0))


def test_under_jit_the_last_row_is_repeated_until_it_is_filled():
    staged = jax.jit(lambda x: squares(x))(X)
    assert staged.outputs.tolist()[6:] == [36.0] * 9
    executed = [float(n * n) for n in range(7)]
    assert staged.filled().tolist() == executed + [0.0] * 8
    assert staged.filled(-1).tolist() == executed + [-1.0] * 8
    assert np.isnan(staged.filled(jnp.nan)[7:]).all()
    f = lambda x: squares(x).filled(0).sum()
    for run in (f, jax.jit(f), jscan.function(f), lambda x: jax.vmap(f)(x[None])[0]):
        assert float(run(X)) == 91.0
        np.testing.assert_array_equal(jax.grad(run)(X), SLOPE)
    assert float(jax.jit(jax.jvp, static_argnums=0)(f, (X,), (X,))[1]) == 182.0


def many(limit, **options):
    def step(h):
        rows = [h * jnp.ones((2, 3)), {"h": h + 1.0, "n": jnp.asarray(7)}, h > 1.0]
        return rows, jscan.until(h > limit)

    infos = [None, dict(initial={"h": 0.0, "n": 0}), None]
    back = lambda h: step(h["h"])
    return jscan.scan(back, None, infos, n_steps=5, **options)


@pytest.mark.parametrize(
    "transform",
    [jax.jit, jax.vmap, lambda f: jax.jit(jax.vmap(f))],
    ids=["jit", "vmap", "jit of vmap"],
)
def test_filled_of_any_rank_and_in_lanes(transform):
    limits = jnp.asarray([0.0, 2.0])
    one = transform is jax.jit
    result = transform(many)(limits[1] if one else limits)
    steps = [4] if one else [2, 4]
    lanes = jax.tree.map(lambda leaf: leaf[None] if one else leaf, result.filled(0))
    for lane, count in enumerate(steps):
        wide, state, flags = jax.tree.map(lambda leaf, n=lane: leaf[n], lanes)
        rows = np.arange(5.0) * (np.arange(5) < count)
        np.testing.assert_array_equal(wide, rows[:, None, None] * np.ones((5, 2, 3)))
        np.testing.assert_array_equal(
            state["h"], (np.arange(5) < count) * np.arange(1, 6.0)
        )
        np.testing.assert_array_equal(state["n"], 7 * (np.arange(5) < count))
        np.testing.assert_array_equal(flags, rows > 1.0)
    fills = [jnp.nan, {"h": -1.0, "n": -2}, True]
    wide, state, flags = result.filled(fills)
    assert np.isnan(wide[..., -1, :, :]).all()
    assert (state["h"][..., -1] == -1.0).all()
    assert (state["n"][..., -1] == -2).all()
    assert flags[..., -1].all()


def test_a_value_that_a_row_cannot_hold_is_refused():
    staged = jax.jit(many)(1.0)
    with pytest.raises(
        TypeError, match=r"(?s)filled: .* int64\[5\] can hold.*nan.*tree"
    ):
        staged.filled(jnp.nan)
    keys = jax.jit(
        lambda: jscan.scan(
            lambda key: (jax.random.fold_in(key, 1), jscan.until(True)),
            None,
            jax.random.key(1),
            n_steps=3,
        )
    )()
    with pytest.raises(TypeError, match=r"filled"):
        keys.filled(0)


def test_filled_leaves_alone_what_has_no_rows_behind():
    eager = squares(X)
    assert eager.filled(jnp.nan) is eager.outputs
    last = jax.jit(
        lambda x: jscan.reduce(lambda x, h: (h + x, jscan.until(h > 9.0)), x, 0.0)
    )(X)
    assert float(last.filled(-1)) == 15.0
    assert last.mask.tolist() == [True] * 6 + [False] * 9


# ------------------------------------------------------------------------- conditions

CONSTANTS = {
    "True": lambda: True,
    "False": lambda: False,
    "NumPy": lambda: np.bool_(True),
    "NumPy array": lambda: np.array(False),
    "NumPy comparison": lambda: np.array(5) > 3,
    "1": lambda: 1,
    "0": lambda: 0,
    "float": lambda: 0.5,
    "nan": lambda: float("nan"),
    "complex": lambda: 0j,
    "made in the step": lambda: jnp.array(True),
    "false, made in the step": lambda: jnp.zeros((), bool),
    "number made in the step": lambda: jnp.array(2.0),
}


@pytest.mark.parametrize("make", CONSTANTS.values(), ids=CONSTANTS)
@pytest.mark.parametrize("mode", MODES)
def test_until_of_any_constant(make, mode):
    steps = 1 if make() else 4

    def run(h):
        step = lambda h: (2.0 * h, jscan.until(make()))
        return jscan.scan(step, None, h, n_steps=4, mode=mode).outputs

    assert run(1.0).tolist() == [2.0**n for n in range(1, steps + 1)]
    assert float(jax.grad(lambda h: run(h)[-1])(1.0)) == 2.0**steps
    assert float(jax.jvp(lambda h: run(h)[-1], (1.0,), (1.0,))[1]) == 2.0**steps
    folded = jscan.reduce(
        lambda x, h: (h + x, jscan.until(make())), jnp.ones(4), 0.0, mode=mode
    )
    assert (float(folded.outputs), folded.n_steps) == (steps, steps)
    mapped = jscan.map(lambda x: (x, jscan.until(make())), jnp.ones(4), mode=mode)
    assert len(mapped.outputs) == steps


@pytest.mark.parametrize("make", CONSTANTS.values(), ids=CONSTANTS)
@pytest.mark.parametrize("mode", MODES)
def test_until_of_any_constant_under_jit(make, mode):
    steps = 1 if make() else 4

    def run(h):
        step = lambda h: (2.0 * h, jscan.until(make()))
        return jscan.scan(step, None, h, n_steps=4, mode=mode).outputs

    if mode == "DEBUG" and isinstance(make(), jax.Array):  # staged
        with pytest.raises(NotImplementedError, match=r"traced by jax\.jit"):
            jax.jit(run)(1.0)
        return
    expected = [2.0 ** min(n, steps) for n in range(1, 5)]
    assert jax.jit(run)(1.0).tolist() == expected
    assert float(jax.jit(jax.grad(lambda h: run(h)[-1]))(1.0)) == 2.0**steps
    assert jax.vmap(run)(jnp.ones(2))[:, -1].tolist() == [2.0**steps] * 2


@pytest.mark.parametrize("mode", MODES)
def test_until_of_a_variable_or_a_draw_is_what_the_step_sees(mode):
    """Not what it is worth outside, before the loop."""
    ended, rng = jscan.shared(False, name="ended"), jscan.RandomStreams(4)

    def step(x):
        return x, {ended: x > 1.5}, jscan.until(ended)

    assert jscan.scan(step, X, mode=mode).n_steps == 4
    stop = rng.binomial(p=0.2)
    seen, _ = jscan.scan(lambda: (stop, jscan.until(stop)), n_steps=50, mode=mode)
    assert seen.tolist() == [0] * (len(seen) - 1) + [1]


def test_constant_truth_values_as_outputs_and_updates():
    """They are arrays like any other, though JAX keeps them as Python bools."""
    flag = jscan.shared(True, name="flag")

    def step(h):
        return [h + 1.0, True, False], {flag: False}, jscan.until(h > 1.0)

    result = jscan.scan(step, None, [0.0, None, None], n_steps=5)
    assert [rows.tolist() for rows in result.outputs[1:]] == [[True] * 3, [False] * 3]
    assert not result.updates[flag]
    rows = jscan.scan(lambda h: [h + 1.0, True], None, [0.0, None], n_steps=2).outputs
    assert rows[1].tolist() == [True, True]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "use",
    [
        lambda stop: 1 if stop else 2,
        lambda stop: not stop,
        lambda stop: stop and 3,
        lambda stop: bool(stop),
    ],
    ids=["if", "not", "and", "bool"],
)
def test_an_until_has_no_truth_value(mode, use):
    with pytest.raises(TypeError, match="return it last"):
        jscan.scan(
            lambda h: h + use(jscan.until(h > 3)), None, 0.0, n_steps=5, mode=mode
        )


@pytest.mark.parametrize("condition", [None, "yes", [True], {}], ids=str)
@pytest.mark.parametrize("mode", MODES)
def test_a_condition_of_another_kind_is_refused(condition, mode):
    with pytest.raises(TypeError, match=r"scan 'sum': until: needed a scalar"):
        jscan.scan(
            lambda h: (h, jscan.until(condition)),
            None,
            0.0,
            n_steps=2,
            mode=mode,
            name="sum",
        )


@pytest.mark.parametrize("mode", MODES)
def test_a_stream_goes_on_after_a_derivative(mode):
    """It keeps plain numbers: by the executed steps, as after a plain call."""
    counters, rng = [], jscan.RandomStreams(3)

    def f(h):
        step = lambda h: (h + rng.uniform(), jscan.until(h > 2.0))
        return jscan.scan(step, None, h, n_steps=20, mode=mode).outputs.sum()

    for run in (
        f,
        jax.grad(f),
        jax.value_and_grad(f),
        lambda h: jax.jvp(f, (h,), (h,)),
    ):
        rng.seed(3)
        run(1.0)
        counters.append(int(rng.state.get_value().counter))
    assert counters == [counters[0]] * 4
    assert 1 < counters[0] < 20
