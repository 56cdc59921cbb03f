"""Random streams: distributions, and where a draw is sampled."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import jscan
from support.comparing import assert_close

SEED = 1234


def draws(first: int, last: int) -> list[float]:
    """The successive draws of `uniform`, by their definition in the docs."""
    key = jax.random.key(SEED)
    return [
        float(jax.random.uniform(jax.random.fold_in(key, c)))
        for c in range(first, last)
    ]


@pytest.fixture
def rng() -> jscan.RandomStreams:
    return jscan.RandomStreams(SEED)


# ------------------------------------------- where a draw enters, as Theano has it


def two_calls(rng, loop, **options) -> tuple[list[float], list[float]]:
    f = jscan.function(loop, **options)
    return f().tolist(), f().tolist()


def test_drawn_inside(rng):
    def loop():
        return jscan.scan(lambda: rng.uniform(), n_steps=4)

    assert two_calls(rng, loop) == (draws(0, 4), draws(4, 8))
    assert len(loop().updates) == 1


def test_updates_dropped_still_advance(rng):
    def loop():
        return jscan.scan(lambda: rng.uniform(), n_steps=4).outputs

    assert two_calls(rng, loop) == (draws(0, 4), draws(4, 8))


def test_no_default_updates(rng):
    def loop():
        return jscan.scan(lambda: rng.uniform(), n_steps=4).outputs

    same = two_calls(rng, loop, no_default_updates=True)
    assert same == (draws(0, 4), draws(0, 4))


def test_no_default_updates_with_updates_given(rng):
    def loop():
        return jscan.scan(lambda: rng.uniform(), n_steps=4)

    fresh = two_calls(rng, loop, no_default_updates=True)
    assert fresh == (draws(0, 4), draws(4, 8))


def test_passed_as_non_sequence(rng):
    draw = rng.uniform()

    def loop():
        result = jscan.scan(lambda d: d, non_sequences=draw, n_steps=4)
        assert len(result.updates) == 0
        return result

    assert two_calls(rng, loop) == (draws(0, 1) * 4, draws(1, 2) * 4)


@pytest.mark.parametrize("strict", [False, True])
def test_closed_over(rng, strict):
    draw = rng.uniform()

    def loop():
        return jscan.scan(lambda: draw, n_steps=4, strict=strict)

    assert two_calls(rng, loop) == (draws(0, 4), draws(4, 8))


@pytest.mark.parametrize(
    "name",
    [
        *("uniform", "normal", "bernoulli", "binomial", "multinomial", "poisson"),
        *("random_integers", "choice", "permutation"),
    ],
)
def test_a_strict_step_may_draw(rng, name):
    draw = getattr(rng, name)()
    free, strict = (
        jscan.function(
            lambda s=s: jscan.scan(lambda: draw, n_steps=3, strict=s).outputs
        )
        for s in (False, True)
    )
    assert free().shape == strict().shape


def test_a_number_to_choose_below_is_all_numbers_below_it():
    numbers, array = (
        jscan.RandomStreams(SEED).choice((50,), a=a) for a in (5, range(5))
    )
    np.testing.assert_array_equal(numbers, array)
    assert numbers.dtype == jnp.result_type(int)


def test_closed_over_and_also_an_output(rng):
    draw = rng.uniform()
    f = jscan.function(lambda: [jscan.scan(lambda: draw, n_steps=2).outputs, draw])
    loop, single = f()
    assert (loop.tolist(), [float(single)]) == (draws(0, 2), draws(2, 3))


def test_drawn_outside_as_a_sequence(rng):
    draw = rng.uniform(size=4)
    loop = jscan.function(lambda: jscan.scan(lambda d: d, sequences=draw))
    key = jax.random.key(SEED)
    for call in range(2):
        expected = jax.random.uniform(jax.random.fold_in(key, call), (4,))
        np.testing.assert_array_equal(loop(), expected)


def test_two_draws_per_step(rng):
    one, two = rng.uniform(), rng.uniform()
    f = jscan.function(lambda: jscan.scan(lambda: [one, two, one * 1.0], n_steps=2))
    first, second, again = f()
    assert first.tolist() == again.tolist() == draws(0, 4)[::2]
    assert second.tolist() == draws(0, 4)[1::2]
    assert rng.state.value.counter == 4


def test_one_step(rng):
    def loop():
        return jscan.scan(lambda: rng.uniform(), n_steps=1)

    assert two_calls(rng, loop) == (draws(0, 1), draws(1, 2))


# -------------------------------------------------------------------- where it is drawn


def test_top_level_draw_is_fixed_once_drawn(rng):
    draw = rng.uniform()
    assert draw.shape == ()  # asking draws nothing
    assert rng.state.value.counter == 0
    assert [float(draw.value), float(draw * 1.0)] == draws(0, 1) * 2
    assert float(rng.uniform().value) == draws(1, 2)[0]
    loop, _ = jscan.scan(lambda: draw, n_steps=2)  # a step has samples of its own
    assert loop.tolist() == draws(2, 4)


def test_nested_loops(rng):
    outer = rng.uniform()

    def step():
        inner = rng.uniform()
        rows, _ = jscan.scan(
            lambda o: [o, outer, inner], non_sequences=outer, n_steps=2
        )
        return [*rows, inner, outer]

    passed, closed, inner_rows, inner, own = jscan.scan(step, n_steps=2).outputs
    # A step takes: outer (passed), two steps of two draws, inner.
    assert own.tolist() == [draws(0, 12)[0], draws(0, 12)[6]]
    assert passed.tolist() == [[own[0]] * 2, [own[1]] * 2]
    assert closed.tolist() == [draws(0, 12)[1:5:2], draws(0, 12)[7:11:2]]
    assert inner_rows.tolist() == [draws(0, 12)[2:6:2], draws(0, 12)[8:12:2]]
    assert inner.tolist() == [draws(0, 12)[5], draws(0, 12)[11]]


def loop_with_state(rng, **options):
    draw = rng.normal(std=0.5)

    def run(x, w):
        rows, _ = jscan.scan(
            lambda a, h: jnp.tanh(h * w + a) + draw + rng.uniform(), x, 0.0, **options
        )
        return rows

    return run


@pytest.mark.parametrize(
    "options",
    [
        dict(unroll=3),
        dict(checkpoint=3),
        dict(mode="FAST_COMPILE"),
        dict(mode="DEBUG"),
        dict(name="named"),
    ],
    ids=["unroll", "checkpoint", "FAST_COMPILE", "DEBUG", "name"],
)
def test_same_numbers_whatever_way_the_loop_runs(options):
    x = jnp.linspace(-1, 1, 7)
    expected = loop_with_state(jscan.RandomStreams(SEED))(x, 0.5)
    actual = loop_with_state(jscan.RandomStreams(SEED), **options)(x, 0.5)
    np.testing.assert_allclose(actual, expected, 1e-12)


@pytest.mark.parametrize("bound", [dict(max_steps=5), dict(sequences=np.zeros(5))])
@pytest.mark.parametrize("count", ["of the step", "array", "int", "none"])
def test_inner_loops_of_unknown_length_take_the_same_numbers(count, bound):
    """A step moves streams by the bound of its loops, whatever runs the step."""

    def run(mode=None):
        rng = jscan.RandomStreams(seed=7)
        given = {"array": jnp.asarray(3), "int": 3, "none": jnp.asarray(0)}

        def inner(*arguments):
            return arguments[-1] + rng.normal()

        def step(n, h):
            n_steps = given.get(count, n % 4)
            rows = jscan.scan(inner, outputs_info=h, n_steps=n_steps, **bound).outputs
            return rows.sum() if count == "none" else rows[-1]

        rows = jscan.scan(step, jnp.arange(1, 4), 0.5, mode=mode).outputs
        return rows, rng.state.value.counter

    expected = run()
    assert_close(run("DEBUG"), expected, 1e-12)
    with jax.disable_jit():
        assert_close(run(), expected, 1e-12)


def test_jit_vmap_and_gradients():
    x = jnp.linspace(-1, 1, 5)

    def run(seed, x, w):
        return loop_with_state(jscan.RandomStreams(seed))(x, w)

    expected = run(SEED, x, 0.5)
    np.testing.assert_allclose(jax.jit(run)(SEED, x, 0.5), expected, 1e-12)
    # Forward and backward pass see the same numbers: compare with differences.
    cost = lambda w: (run(SEED, x, w) ** 2).sum()
    slope = (cost(0.5 + 1e-6) - cost(0.5 - 1e-6)) / 2e-6
    np.testing.assert_allclose(jax.grad(cost)(0.5), slope, 1e-6)
    np.testing.assert_allclose(jax.grad(jax.checkpoint(cost))(0.5), slope, 1e-6)
    np.testing.assert_allclose(jax.jvp(cost, (0.5,), (1.0,))[1], slope, 1e-6)
    curvature = (jax.grad(cost)(0.5 + 1e-5) - jax.grad(cost)(0.5 - 1e-5)) / 2e-5
    np.testing.assert_allclose(jax.hessian(cost)(0.5), curvature, 1e-5)
    # One stream for all lanes: the same noise. A key for each: different noise.
    rng = jscan.RandomStreams(SEED)
    lanes = jax.vmap(lambda w: loop_with_state(rng)(x, w))(jnp.array([0.5, 0.5]))
    np.testing.assert_allclose(lanes, [expected, expected], 1e-12)
    keys = jax.random.split(jax.random.key(3), 2)
    lanes = jax.vmap(lambda key: run(key, x, 0.5))(keys)
    for lane, key in zip(lanes, keys, strict=True):
        np.testing.assert_allclose(lane, run(key, x, 0.5), 1e-12)


def test_backwards_long_taps_and_last_row_only(rng):
    """Whatever layout the loop chooses, step i draws the numbers of step i."""
    draw = rng.uniform()
    x = jnp.zeros(40)
    assert jscan.scan(lambda a: a + draw, x, go_backwards=True)[0].tolist() == draws(
        0, 40
    )
    initial = dict(initial=jnp.zeros(17), taps=[-17])
    rows, _ = jscan.scan(lambda a, old: a + 0 * old + draw, x, initial)
    assert rows.tolist() == draws(40, 80)
    last, _ = jscan.reduce(lambda a, total: a + draw, x, 0.0)
    assert float(last) == draws(119, 120)[0]


def test_no_key_is_carried():
    """A loop with draws and no other recurrence is one batch of independent steps."""

    def run(key):
        rng = jscan.RandomStreams(key)
        return jscan.scan(lambda x: x + rng.normal(size=3), jnp.zeros((5, 3))).outputs

    outer = jax.make_jaxpr(run)(jax.random.key(1)).jaxpr
    (equation,) = [e for e in outer.eqns if "jscan_loop" in e.params.get("name", "")]
    inner = equation.params["jaxpr"].jaxpr
    (loop,) = [e for e in inner.eqns if e.primitive.name == "scan"]
    assert len(loop.outvars) == 1  # the stacked rows; a carry would come out, too


@pytest.mark.parametrize("mode", [None, "DEBUG"])
def test_early_stop_takes_the_numbers_of_the_executed_steps(rng, mode):
    draw = rng.uniform()
    numbers = draws(0, 40)
    last = next(i for i, number in enumerate(numbers) if number > 0.9)

    def loop():
        return jscan.scan(
            lambda: (draw.value, jscan.until(draw > 0.9)), n_steps=40, mode=mode
        )

    result = loop()
    assert result.outputs.tolist() == numbers[: last + 1]
    assert rng.state.value.counter == last + 1
    assert float(draw.value) == numbers[last + 1]
    # Inside a step every loop takes the numbers of its bound: no step has to wait.
    rng.seed(SEED)
    first, _ = jscan.scan(lambda: loop().outputs[0], n_steps=3, mode=mode)
    assert first.tolist() == [draws(40 * i, 40 * i + 1)[0] for i in range(3)]
    assert rng.state.value.counter == 120


def test_streams_restart_and_seeds(rng):
    first = rng.uniform(size=5).value
    rng.seed(SEED)
    np.testing.assert_array_equal(rng.uniform(size=5), first)
    other = jscan.RandomStreams(SEED + 1).uniform(size=5).value
    assert not np.any(np.asarray(other) == np.asarray(first))
    assert (
        jscan.RandomStreams().uniform().value != jscan.RandomStreams().uniform().value
    )
    from_key = jscan.MRG_RandomStreams(jax.random.key(SEED)).uniform(size=5)
    np.testing.assert_array_equal(from_key, first)


def test_plain_jit_with_a_stream_from_outside_is_refused(rng):
    draw = rng.uniform()
    with pytest.raises(ValueError, match=r"read inside jax.jit"):
        jax.jit(lambda: draw.value)()
    assert rng.state.value.counter == 0
    fixed = draw.value
    assert jax.jit(lambda: draw.value)() == fixed  # fixed: nothing can go stale


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda rng: rng.uniform(size=1.5), "size: needed an integer"),
        (lambda rng: rng.uniform(size=(2, 3), ndim=1), "ndim: needed the rank.*2"),
        (lambda rng: jscan.RandomStreams("seed"), "seed: needed an integer"),
        (lambda rng: jnp.tanh(rng.uniform()), r"draw\.value"),
        (lambda rng: jax.jit(lambda n: rng.uniform(size=n))(3), "size.*traced"),
        (
            lambda rng: jscan.RandomStreams(jax.random.key(1, impl="rbg")),
            "implementation threefry2x32",
        ),
    ],
    ids=["size", "ndim", "seed", "tanh", "traced size", "key"],
)
def test_bad_use(call, message, rng):
    with pytest.raises((TypeError, ValueError), match=message):
        call(rng)


@pytest.mark.parametrize("mode", [None, "FAST_COMPILE", "DEBUG"])
@pytest.mark.parametrize(
    "seed",
    [lambda key: 3, lambda key: key, lambda key: None],
    ids=["number", "key of the step", "none"],
)
def test_a_stream_made_in_a_step_is_refused(mode, seed):
    """Every step would start it again; Theano makes it once, when it traces."""

    def step(key):
        return jscan.RandomStreams(seed(key)).normal()

    keys = jax.random.split(jax.random.key(0), 3)
    nested = lambda keys: jscan.scan(step, keys, mode=mode)
    called = jscan.function(lambda key: step(key).value, mode=mode)
    for run in (
        lambda: jscan.map(step, keys, mode=mode),
        lambda: jax.jit(lambda: jscan.map(step, keys, mode=mode).outputs)(),
        lambda: jscan.map(nested, keys[None], mode=mode),
        lambda: jscan.map(called, keys, mode=mode),
    ):
        with pytest.raises(
            ValueError, match=r"(?s)made in a step.*outside of the step"
        ):
            run()


def test_what_the_refusal_says_works():
    """By a stream from outside, and by JAX with the keys of the steps."""
    keys = jax.random.split(jax.random.key(0), 3)
    rng = jscan.RandomStreams(3)
    rows = jscan.map(lambda key: [rng.normal(), jax.random.normal(key)], keys).outputs
    assert all(len(set(row.tolist())) == 3 for row in rows)
    lanes = jax.vmap(lambda key: jscan.RandomStreams(key).normal().value)(keys)
    assert len(set(lanes.tolist())) == 3


# ------------------------------------------------------------------------ distributions

N = 20_000


def chi_square(sample: np.ndarray, probabilities: np.ndarray) -> float:
    counts = np.bincount(sample.ravel(), minlength=len(probabilities))
    assert len(counts) == len(probabilities)  # nothing outside of the support
    wide = probabilities * sample.size > 5
    observed = [*counts[wide], counts[~wide].sum()]
    expected = [*probabilities[wide], probabilities[~wide].sum()]
    observed, expected = np.array(observed), np.array(expected) * sample.size
    keep = expected > 0
    return scipy.stats.chisquare(observed[keep], expected[keep]).pvalue


CONTINUOUS: dict[str, Any] = {
    "uniform": (dict(low=-1.0, high=3.0), scipy.stats.uniform(-1, 4)),
    "normal": (dict(avg=2.0, std=3.0), scipy.stats.norm(2, 3)),
}
WHOLE: dict[str, Any] = {
    "bernoulli": (dict(p=0.3), scipy.stats.bernoulli(0.3), 2),
    "binomial": (dict(n=9, p=0.4), scipy.stats.binom(9, 0.4), 10),
    "poisson": (dict(lam=4.0), scipy.stats.poisson(4.0), 40),
    "random_integers": (dict(low=0, high=6), scipy.stats.randint(0, 7), 7),
    "choice": (dict(a=5), scipy.stats.randint(0, 5), 5),
}


def assert_moments(sample: np.ndarray, distribution) -> None:
    mean, variance = distribution.stats("mv")
    error = 4.5 * np.sqrt(variance / sample.size)
    assert abs(sample.mean() - mean) < error
    assert abs(sample.var() / variance - 1) < 0.06


@pytest.mark.parametrize("name", CONTINUOUS)
def test_continuous_distribution(name, rng):
    parameters, distribution = CONTINUOUS[name]
    sample = np.asarray(getattr(rng, name)(size=(N,), **parameters))
    assert sample.dtype == np.float64
    assert_moments(sample, distribution)
    assert distribution.pdf(sample).min() > 0  # inside of the support
    assert scipy.stats.kstest(sample, distribution.cdf).pvalue > 1e-3


@pytest.mark.parametrize("name", WHOLE)
def test_distribution_of_whole_numbers(name, rng):
    parameters, distribution, size = WHOLE[name]
    sample = np.asarray(getattr(rng, name)(size=(N,), **parameters))
    assert sample.dtype == np.int64
    assert_moments(sample, distribution)
    assert chi_square(sample, distribution.pmf(np.arange(size))) > 1e-3


def test_binomial_at_its_ends_and_with_one_trial(rng):
    p = jnp.array([0.0, 1.0, 0.5])
    sample = np.asarray(rng.binomial(size=(50, 3), n=4, p=p))
    assert set(sample[:, 0]) == {0}
    assert set(sample[:, 1]) == {4}
    assert 0 < sample[:, 2].mean() < 4
    assert set(np.asarray(rng.binomial(size=50)).tolist()) == {0, 1}


def test_choice(rng):
    a = jnp.array([1.5, 2.5, 7.5])
    p = jnp.array([0.2, 0.3, 0.5])
    sample = np.asarray(rng.choice(size=N, a=a, p=p))
    assert chi_square(np.searchsorted(a, sample), np.asarray(p)) > 1e-3
    whole = np.asarray(rng.choice(size=3, a=a, replace=False))
    assert sorted(whole) == [1.5, 2.5, 7.5]
    assert rng.choice(a=4).value.shape == ()


def test_multinomial(rng):
    pvals = jnp.array([0.2, 0.5, 0.3])
    sample = np.asarray(rng.multinomial(size=4000, n=6, pvals=pvals))
    assert sample.shape == (4000, 3)
    assert sample.dtype == np.int64
    assert np.all(sample.sum(1) == 6)
    distribution = scipy.stats.multinomial(6, np.asarray(pvals))
    np.testing.assert_allclose(sample.mean(0), distribution.mean(), atol=0.1)
    np.testing.assert_allclose(np.cov(sample.T), distribution.cov(), atol=0.15)
    marginal = scipy.stats.binom.pmf(np.arange(7), 6, 0.5)
    assert chi_square(sample[:, 1], marginal) > 1e-3
    rows = rng.multinomial(n=1, pvals=jnp.array([[1.0, 0.0], [0.0, 1.0]]))
    np.testing.assert_array_equal(rows, np.eye(2))


def test_permutations_are_all_alike(rng):
    sample = np.asarray(rng.permutation(size=6000, n=3))
    assert sample.dtype == np.int64
    assert np.all(np.sort(sample, 1) == np.arange(3))
    code = sample @ np.array([9, 3, 1])
    kinds, positions = np.unique(code, return_inverse=True)
    assert len(kinds) == 6
    assert chi_square(positions, np.full(6, 1 / 6)) > 1e-3


def test_rows_are_shuffled_one_by_one(rng):
    rows = jnp.tile(jnp.arange(10.0), (300, 1))
    sample = np.asarray(rng.shuffle_row_elements(rows))
    assert np.all(np.sort(sample, 1) == np.asarray(rows))
    assert len({tuple(row) for row in sample}) == 300
    firsts = sample[:, 0].astype(int)
    assert chi_square(firsts, np.full(10, 0.1)) > 1e-3


def test_parameters_are_arrays_variables_and_draws(rng):
    scale = jscan.shared(jnp.array([1.0, 100.0]), name="scale")
    sample = np.asarray(rng.normal(size=(2000, 2), std=scale))
    np.testing.assert_allclose(sample.std(0), [1.0, 100.0], rtol=0.1)
    assert rng.uniform(low=jnp.zeros((3, 1)), high=jnp.ones(4)).shape == (3, 4)
    inner = rng.random_integers(low=5, high=5)
    assert rng.binomial(size=(), n=inner, p=1.0).value == 5
    small = rng.normal(size=2, dtype="float32")
    assert small.value.dtype == jnp.float32


def test_sample_follows_a_parameter_that_the_step_updates(rng):
    level = jscan.shared(0.0, name="level")
    noise = rng.normal(avg=level, std=1e-9)
    rows, _ = jscan.scan(lambda: (noise, {level: level + 1.0}), n_steps=3)
    np.testing.assert_allclose(rows, [0.0, 1.0, 2.0], atol=1e-7)
