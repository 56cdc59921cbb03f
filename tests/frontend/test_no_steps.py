"""Loops with room for no step: 0 rows or the initial, whatever they are told."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jscan

EMPTY = jnp.zeros((0, 3))


def stopping(x, h):
    return [jnp.tanh(h + x), x[0] * h], jscan.until(h[0] > 9.0)


def plain(x, h):
    return [jnp.tanh(h + x), x[0] * h]


def until(h, **options):
    return jscan.scan(stopping, EMPTY, [h, None], **options)


def until_told(h, **options):
    return jscan.scan(stopping, jnp.ones((4, 3)), [h, None], n_steps=0, **options)


def until_bounded(h, **options):
    step = lambda h: ([2.0 * h, h], jscan.until(h[0] > 9.0))
    return jscan.scan(step, None, [h, None], n_steps=0, **options)


def counted_by_a_tracer(h, **options):
    @jax.jit
    def run(h, number):
        return jscan.scan(plain, EMPTY, [h, None], n_steps=number, **options)

    return run(h, 0)


def no_room_for_a_tracer(h, **options):
    step = lambda h: [2.0 * h, h]

    @jax.jit
    def run(h, number):
        infos = [h, None]
        return jscan.scan(step, None, infos, n_steps=number, max_steps=0, **options)

    return run(h, 7)


def short_for_its_taps(h, **options):
    step = lambda before, x, h: ([h + before + x, h], jscan.until(h[0] > 9.0))
    sequence = dict(input=jnp.ones((1, 3)), taps=[-1, 0])
    with pytest.warns(UserWarning, match=r"sequences\[0\]: 1 row, .* 2 that"):
        return jscan.scan(step, sequence, [h, None], **options)


PROGRAMS = [
    until,
    until_told,
    until_bounded,
    counted_by_a_tracer,
    no_room_for_a_tracer,
    short_for_its_taps,
]
OPTIONS = [
    {},
    {"mode": "FAST_COMPILE"},
    {"mode": "DEBUG"},
    {"checkpoint": 2},
    {"checkpoint": "sqrt"},
    {"checkpoint": "recursive"},
    {"truncate_gradient": 2},
    {"go_backwards": True},
    {"unroll": 3},
    {"profile": "nothing"},
    {"progress": {"file": io.StringIO()}},
    {"name": "nothing", "return_list": True},
]


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(map(str, o)))
def test_no_rows_whatever_the_loop_is_told(program, options):
    result = program(jnp.ones(3), **options)
    assert [rows.shape for rows in result.outputs] == [(0, 3), (0, 3)]
    assert {rows.dtype for rows in result.outputs} == {jnp.dtype("float64")}
    assert int(result.n_steps) == 0
    assert result.mask.shape == (0,)


def rows_and_zeros(run):
    """What `run` gives in every transform, as shapes of rows and derivatives."""
    total = lambda h: sum(rows.sum() for rows in run(h).outputs)
    h = jnp.ones(3)
    value, slope = jax.value_and_grad(total)(h)
    pushed = jax.jvp(total, (h,), (h,))[1]
    curve = jax.hessian(total)(h)
    lanes = jax.vmap(lambda h: run(h).outputs)(jnp.ones((2, 3)))
    staged = jax.jit(lambda h: run(h).outputs)(h)
    again = jax.grad(jax.checkpoint(total))(h)
    numbers = [value, *slope, pushed, *curve.ravel(), *again]
    return jax.tree.map(jnp.shape, (lanes, staged)), np.asarray(numbers)


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("options", OPTIONS[3:8], ids=lambda o: "-".join(map(str, o)))
def test_every_transformation_gives_no_rows_and_no_gradient(program, options):
    shapes, numbers = rows_and_zeros(lambda h: program(h, **options))
    assert shapes == ([(2, 0, 3)] * 2, [(0, 3)] * 2)
    np.testing.assert_array_equal(numbers, np.zeros(17))


@pytest.mark.parametrize("mode", [None, "FAST_COMPILE", "DEBUG"])
def test_reduce_gives_the_initial_and_its_gradient(mode):
    def run(h):
        step = lambda x, h: (jnp.tanh(h + x), jscan.until(h[0] > 9.0))
        return jscan.reduce(step, EMPTY, h, mode=mode).outputs

    h = jnp.arange(3.0)
    np.testing.assert_array_equal(run(h), h)
    np.testing.assert_array_equal(jax.jit(run)(h), h)
    np.testing.assert_array_equal(jax.grad(lambda h: (run(h) ** 2).sum())(h), 2 * h)
    np.testing.assert_array_equal(jax.vmap(run)(jnp.stack([h, h])), [h, h])
    np.testing.assert_array_equal(jax.jvp(run, (h,), (h,))[1], h)


@pytest.mark.parametrize("mode", [None, "DEBUG"])
def test_variables_and_streams_stay_where_they_are(mode):
    total, rng = jscan.shared(2.0, name="total"), jscan.RandomStreams(3)

    def step(x):
        return rng.normal() * x, {total: total + x}, jscan.until(x > 1.0)

    run = jscan.function(lambda: jscan.scan(step, jnp.zeros(0), mode=mode))
    assert run().shape == (0,)
    assert float(total.value) == 2.0
    assert int(rng.state.value.counter) == 0


def test_checkpoints_of_nothing():
    last = jscan.scan_checkpoints(plain, EMPTY, [jnp.ones(3), None]).outputs
    assert [rows.shape for rows in last] == [(0, 3), (0, 3)]


def test_only_a_window_that_is_not_filled_is_worth_a_warning(recwarn):
    jscan.scan(lambda x: x, jnp.zeros(0))
    jscan.scan(lambda a, b: a, dict(input=jnp.ones(1), taps=[-1, 0]), n_steps=0)
    jscan.scan(lambda a, b: a, dict(input=jnp.ones(2), taps=[-1, 0]))
    assert not recwarn.list
    with pytest.warns(UserWarning, match=r"scan 'gap'.*2 rows.*4 that taps=\[-3, 0\]"):
        jscan.scan(lambda a, b: a, dict(input=jnp.ones(2), taps=[-3, 0]), name="gap")


def test_it_warns_once_and_at_the_line_of_the_call():
    with pytest.warns(UserWarning, match="3 rows, fewer than") as caught:
        jax.grad(
            lambda x: jscan.scan(
                lambda a, b: a * b, dict(input=x, taps=[-2, 2])
            ).outputs.sum()
        )(jnp.ones(3))
    assert [warning.filename for warning in caught] == [__file__]


@pytest.mark.parametrize("fold", [False, True])
def test_loops_of_a_step_that_never_runs(fold):
    """In Python, too, only the types of the step are asked for."""

    def step(x, h):
        inner = jscan.scan(
            lambda h: (h * 2, jscan.until(h > x)), outputs_info=h, n_steps=3
        )
        return inner.filled(0).sum(axis=0)

    def run(x):
        if fold:
            return jscan.reduce(step, x, 1.0).outputs
        return jscan.scan(step, x, 1.0, n_steps=0).outputs

    x = jnp.ones(0)
    expected = run(x)
    with jax.disable_jit():
        actual = run(x)
    assert (actual.shape, actual.dtype) == (expected.shape, expected.dtype)
    np.testing.assert_array_equal(actual, expected)
