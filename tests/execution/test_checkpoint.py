"""Checkpoints: the same numbers, less memory, and how much is computed again."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jscan
from support import reference
from support.checking import check_scan
from support.comparing import assert_close
from support.stops import executed_sum, temporary_bytes

WAYS = [1, 3, 100, "sqrt", "recursive"]


def program(loops, xp, **options):
    """A state with taps, a map output before it, sequence taps, backwards."""

    def run(x, z, w):
        def step(now, before, near, far, w):
            new = xp.tanh(near * w + far * now)
            return [before * new, new]

        return loops.scan(
            step,
            dict(input=x, taps=[0, -1]),
            [None, dict(initial=z, taps=[-1, -2])],
            w,
            go_backwards=True,
            **options,
        ).outputs

    return run


@pytest.mark.parametrize("checkpoint", ["sqrt", 3])
def test_values_and_derivatives(checkpoint):
    check_scan(
        program(jscan, jnp, checkpoint=checkpoint),
        program(reference, np),
        np.linspace(-0.9, 1.1, 8),
        np.array([0.2, 0.4]),
        0.7,
        batch=checkpoint == 3,
        second=checkpoint == 3,
    )


@pytest.mark.parametrize("checkpoint", WAYS)
@pytest.mark.parametrize("stops", [False, True], ids=["scan", "until"])
def test_every_way_gives_the_rows_and_gradients_of_none(checkpoint, stops):
    def run(w, checkpoint):
        def step(a, h, w):
            new = jnp.sin(h * w + a)
            return ([new, a * h], jscan.until(a > 6.5)) if stops else [new, a * h]

        x = jnp.arange(10.0)
        result = jscan.scan(step, x, [jnp.zeros(()), None], w, checkpoint=checkpoint)
        rows = jnp.stack(result.outputs)
        return jnp.where(result.mask, rows, jnp.zeros(())).sum(), result.n_steps

    both = jax.jit(jax.value_and_grad(run, has_aux=True), static_argnums=1)
    actual, expected = both(0.6, checkpoint), both(0.6, None)
    assert_close(actual, expected)
    assert int(actual[0][1]) == (8 if stops else 10)


def test_updates_and_draws():
    def run(w, checkpoint):
        seen = jscan.shared(0.0)
        rng = jscan.RandomStreams(3)

        def step(a, h):
            noise = rng.normal(size=())
            return h * w + a * noise, {seen: seen.value + h}

        result = jscan.scan(step, jnp.arange(7.0), jnp.zeros(()), checkpoint=checkpoint)
        return result.outputs.sum() + result.updates[seen], result.outputs

    both = jax.value_and_grad(run, has_aux=True)
    expected = both(0.6, None)
    for checkpoint in (3, "recursive"):
        assert_close(both(0.6, checkpoint), expected)


def gradient_of_a_long_loop(checkpoint, body=lambda h: h):
    """T=4096 steps of a state of 1024 floats, of which only a number is kept."""

    def cost(start, w):
        def step(h, w):
            new = jnp.tanh(body(h) * w)
            return [new, (h * h).sum()]

        outputs, _ = jscan.scan(
            step, None, [start, None], w, n_steps=4096, checkpoint=checkpoint
        )
        return outputs[1].sum()

    size = jnp.ones(1024, "float32")
    return jax.jit(jax.grad(cost, (0, 1))).lower(size, size).compile()


def test_memory():
    def temporary(checkpoint):
        return temporary_bytes(gradient_of_a_long_loop(checkpoint))

    plain = temporary(None)
    assert temporary("sqrt") <= plain / 16
    assert temporary("recursive") <= plain / 64


@pytest.mark.parametrize(
    ("checkpoint", "most"), [(None, 1), (7, 2), ("sqrt", 2), ("recursive", 3)]
)
@pytest.mark.parametrize("stops", [False, True], ids=["scan", "until"])
def test_recomputation_is_counted(checkpoint, most, stops):
    """Forward steps of value and gradient: at most one extra pass for "sqrt"."""
    seen = []

    def count(h):
        seen.append(float(h))
        return h

    @jax.custom_jvp
    def noted(h):
        return jax.pure_callback(count, h, h)

    noted.defjvp(lambda h, rate: (noted(*h), rate[0]))

    def cost(w):
        def step(h, w):
            new = jnp.sin(noted(h) * w)
            return (new, jscan.until(new > 9)) if stops else new

        return executed_sum(
            jscan.scan(step, None, jnp.ones(()), w, n_steps=60, checkpoint=checkpoint)
        )

    jax.block_until_ready(jax.jit(jax.grad(cost))(0.5))
    jax.effects_barrier()
    assert len(seen) <= 60 * most
    assert len(seen) > 60 or most == 1


@pytest.mark.parametrize(
    ("checkpoint", "text"),
    [(0, r"checkpoint.*'sqrt'.*got 0"), ("cube", r"checkpoint.*'sqrt'.*'cube'")],
)
def test_other_values_are_errors(checkpoint, text):
    with pytest.raises(ValueError, match=text):
        jscan.scan(lambda a: a, jnp.ones(3), checkpoint=checkpoint)


# ------------------------------------------------------------------------- host memory

HOST = dict(every="sqrt", memory_kind="pinned_host")


def last_of_a_chain(w, checkpoint):
    step = lambda h, w: jnp.tanh(h @ w + 0.1)
    rows, _ = jscan.scan(step, None, jnp.ones(4), w, n_steps=18, checkpoint=checkpoint)
    return (rows[-1] ** 2).sum()


def test_what_is_saved_can_lie_in_host_memory():
    weight = jnp.eye(4) / 2
    slope = jax.grad(last_of_a_chain)
    expected = slope(weight, "sqrt")
    on_host = lambda w: slope(w, HOST)
    assert "<host>[" in str(jax.make_jaxpr(on_host)(weight))  # as JAX writes a type
    for run in (on_host, jax.jit(jscan.optimize(on_host))):
        np.testing.assert_allclose(run(weight), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("checkpoint", "text"),
    [
        (dict(every=3), r"keys every and memory_kind; got the keys 'every'"),
        (dict(every=0, memory_kind="device"), r"checkpoint.*'sqrt'.*got 0"),
        (dict(every=3, memory_kind="far"), r"memory_kind: .*'pinned_host'.*'far'"),
    ],
)
def test_memories_that_are_errors(checkpoint, text):
    with pytest.raises(ValueError, match=text):
        jscan.scan(lambda a: a, jnp.ones(3), checkpoint=checkpoint)


def test_loops_that_stop_keep_their_states_at_hand():
    step = lambda h: (h + 1, jscan.until(h > 3))
    with pytest.raises(NotImplementedError, match=r"memory_kind.*got until"):
        jscan.scan(step, None, jnp.ones(()), n_steps=9, checkpoint=HOST)


# ------------------------------------------------------------------------------- folds


@pytest.mark.parametrize("checkpoint", WAYS)
@pytest.mark.parametrize("fold", ["reduce", "foldl", "foldr"])
def test_folds_give_the_last_row_and_its_gradient(fold, checkpoint):
    def step(x, h, w):
        return [jnp.tanh(h * w + x), h * x]

    def last(w, x):
        info = [jnp.ones(()), None]
        result = getattr(jscan, fold)(step, x, info, w, checkpoint=checkpoint)
        return sum(result.outputs)

    def expected(w, x):
        x = x[::-1] if fold == "foldr" else x
        last, rows = jax.lax.scan(lambda h, x: tuple(step(x, h, w)), jnp.ones(()), x)  # pyright: ignore
        return last + rows[-1]

    x = jnp.linspace(-1.0, 1.0, 10)
    both = [jax.value_and_grad(f, (0, 1))(0.6, x) for f in (last, expected)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), *both)


def test_folds_that_stop_with_checkpoints():
    def last(w, checkpoint):
        def step(x, h, w):
            return jnp.sin(h * w + x), jscan.until(x > 6.5)

        return jscan.reduce(step, jnp.arange(10.0), 0.5, w, checkpoint=checkpoint)[0]

    both = jax.jit(jax.value_and_grad(last), static_argnums=1)
    for checkpoint in (3, "recursive"):
        np.testing.assert_allclose(both(0.6, checkpoint), both(0.6, None), rtol=1e-5)


# -------------------------------------------------------------------- scan_checkpoints


@pytest.mark.parametrize("length", [1, 5, 6, 7])
@pytest.mark.parametrize("padding", [False, True])
def test_rows_at_chunk_ends(length, padding):
    """Sequences of any length, map outputs anywhere, no non_sequences."""
    x = jnp.linspace(0.2, 1.0, length)

    def step(a, h):
        return [a * h, h * 0.5 + a]

    def rows(x, every):
        info = [None, jnp.ones(())]
        if every is None:
            return jscan.scan(step, x, info).outputs
        return jscan.scan_checkpoints(
            step, x, info, save_every_N=every, padding=padding
        ).outputs

    ends = [*range(2, length - 1, 3), length - 1]
    ends = np.array(sorted({end for end in ends if end < length}))
    kept, every = rows(x, 3), rows(x, None)
    for actual, expected in zip(kept, every, strict=True):
        np.testing.assert_allclose(actual, expected[ends])
    slope = jax.grad(lambda x: sum(r.sum() for r in rows(x, 3)))(x)
    expected = jax.grad(lambda x: sum(r[ends].sum() for r in rows(x, None)))(x)
    np.testing.assert_allclose(slope, expected)


def test_updates_and_names():
    count = jscan.shared(0)
    result = jscan.scan_checkpoints(
        lambda h: (h * 2, {count: count.value + 1}),
        outputs_info=jnp.ones(()),
        n_steps=5,
        save_every_N=2,
    )
    assert result.outputs.tolist() == [4, 16, 32]
    assert int(result.updates[count]) == 5
    assert result.n_steps == 5


def test_only_chunk_ends_are_stored():
    def cost(w):
        outputs, _ = jscan.scan_checkpoints(
            lambda h, w: jnp.tanh(h * w),
            outputs_info=jnp.ones(1000),
            non_sequences=w,
            n_steps=1000,
            save_every_N=100,
        )
        return outputs.sum()

    compiled = jax.jit(jax.grad(cost)).lower(0.5).compile()
    # Ten saved states, ten rows, and the residuals of a hundred steps.
    assert temporary_bytes(compiled) < 8 * 1000 * 350


def test_what_scan_checkpoints_refuses():
    info = dict(initial=jnp.ones(2), taps=[-2])
    with pytest.raises(RuntimeError, match=r"scan_checkpoints.*without taps"):
        jscan.scan_checkpoints(lambda h: h, outputs_info=info, n_steps=3)
    with pytest.raises(NotImplementedError, match=r"(?s)until.*checkpoint=N"):
        jscan.scan_checkpoints(
            lambda a: (a, jscan.until(a > 0)), jnp.ones(3), save_every_N=2
        )
    with pytest.raises(ValueError, match=r"save_every_N.*at least 1; got 0"):
        jscan.scan_checkpoints(lambda a: a, jnp.ones(3), save_every_N=0)
