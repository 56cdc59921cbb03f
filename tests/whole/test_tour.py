"""The tour: its answers against NumPy, statsmodels and finite differences."""

import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jscan
from jscan import __main__ as shell
from jscan import data
from jscan._tour import speed, sunspots, tutorial
from jscan.data import sunspots as load_sunspots

statsmodels = pytest.importorskip(
    "statsmodels.api", reason="compares with statsmodels: extra oracles"
)
pytestmark = [pytest.mark.oracles, pytest.mark.any_jax]


@pytest.fixture(autouse=True)
def as_users_have_it() -> Iterator[None]:
    """The tour mixes types and ranks as users do; only 64 bits are asked for."""
    with (
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
    ):
        yield


@pytest.fixture(scope="module")
def series() -> np.ndarray:
    return load_sunspots().numbers / sunspots.SCALE


@pytest.fixture(scope="module")
def fitted(series: np.ndarray) -> sunspots.Fit:
    with jax.numpy_dtype_promotion("standard"):
        return sunspots.fit(series)


@pytest.mark.parametrize(
    "example", tutorial.EXAMPLES, ids=lambda example: example.with_jscan.__name__
)
def test_tutorial_example_agrees_with_numpy(example: tutorial.Example):
    np.testing.assert_allclose(
        example.with_jscan(), example.with_numpy(), rtol=1e-12, atol=1e-14
    )


def test_record_is_the_published_one():
    published = statsmodels.datasets.sunspots.load_pandas()["data"]
    years, numbers = load_sunspots()
    np.testing.assert_array_equal(years, published["YEAR"])
    np.testing.assert_array_equal(numbers, published["SUNACTIVITY"])


def test_fit_ends_where_the_gradient_vanishes(fitted: sunspots.Fit):
    assert fitted.gradient_norm < 1e-10


def test_coefficients_are_those_of_least_squares(
    fitted: sunspots.Fit, series: np.ndarray
):
    np.testing.assert_allclose(
        fitted.model, sunspots.least_squares(series), rtol=1e-8, atol=1e-10
    )


def test_coefficients_are_those_of_statsmodels(
    fitted: sunspots.Fit, series: np.ndarray
):
    theirs = statsmodels.tsa.AutoReg(series, lags=9).fit().params
    constant, youngest_first = theirs[0], theirs[1:]
    np.testing.assert_allclose(fitted.model[0], constant, rtol=1e-8)
    np.testing.assert_allclose(fitted.model[1:], youngest_first[::-1], rtol=1e-8)


def test_gradient_of_the_loss_is_that_of_finite_differences(series: np.ndarray):
    model = np.linspace(-0.3, 0.4, 10)
    gradient = jax.grad(sunspots.mean_squared_error)(model, series)
    loss = jax.jit(sunspots.mean_squared_error)
    step = 1e-6
    differences = [
        (loss(model + offset, series) - loss(model - offset, series)) / (2 * step)
        for offset in step * np.eye(10)
    ]
    np.testing.assert_allclose(gradient, differences, rtol=1e-6)


def test_forecast_is_that_of_a_plain_loop(fitted: sunspots.Fit, series: np.ndarray):
    constant, *weights = np.asarray(fitted.model)
    values = list(series[-9:])
    for _ in range(20):
        values.append(constant + np.dot(weights, values[-9:]))
    path = sunspots.forecast(fitted.model, series[-9:], 20)
    np.testing.assert_allclose(path, values[9:], rtol=1e-10)


def test_forecast_is_that_of_statsmodels(fitted: sunspots.Fit, series: np.ndarray):
    theirs = statsmodels.tsa.AutoReg(series, lags=9).fit().forecast(20)
    path = sunspots.forecast(fitted.model, series[-9:], 20)
    np.testing.assert_allclose(path, theirs, rtol=1e-8)


def test_deviation_of_the_forecast_is_that_of_simulated_futures(
    fitted: sunspots.Fit, series: np.ndarray
):
    constant, *weights = np.asarray(fitted.model)
    rng = np.random.default_rng(1)
    values = np.repeat(series[-9:][:, None], 40_000, axis=1)
    for _ in range(20):
        noise = fitted.deviation * rng.standard_normal(values.shape[1])
        step = constant + np.tensordot(weights, values[-9:], axes=1) + noise
        values = np.vstack([values, step])
    np.testing.assert_allclose(
        sunspots.forecast_deviation(fitted, 20), values[9:].std(axis=1), rtol=0.02
    )


def test_what_came_is_on_the_scale_of_the_record():
    """NOAA's numbers, scaled by statsmodels's regression through the origin."""
    old, new = data.sunspots(), data.sunspots_since_1997()
    both = slice(0, 12)
    assert new.years[both].tolist() == old.years[-12:].tolist()
    scale = statsmodels.OLS(old.numbers[-12:], new.numbers[both]).fit().params[0]
    came = sunspots.what_came()
    assert came.years.tolist() == [*range(2009, 2025)]
    np.testing.assert_allclose(came.numbers, scale * new.numbers[12:], rtol=1e-12)
    # The record of 1997 to 2008 is met within what two ways to count differ.
    np.testing.assert_allclose(scale * new.numbers[both], old.numbers[-12:], rtol=0.15)


def test_the_optimized_gradient_is_that_of_finite_differences():
    weights, series = speed.problem()
    optimized = jax.jit(jscan.optimize(jax.grad(speed.loss)))(weights, series)
    wide = jax.tree.map(lambda x: x.astype(float), (weights, series))
    step = 1e-5
    for field in range(3):
        one = [np.zeros(x.shape) for x in wide[0]]
        one[field].flat[7] = step
        up, down = (
            speed.loss(
                speed.Weights(*map(jnp.asarray, map(move, wide[0], one))), wide[1]
            )
            for move in (np.add, np.subtract)
        )
        np.testing.assert_allclose(
            optimized[field].ravel()[7], (up - down) / (2 * step), rtol=1e-3, atol=1e-6
        )


def test_times_are_those_of_programs_that_agree():
    times = speed.measure(turns=5)
    assert 0 < times.optimized < times.plain
    assert times.difference < 1e-5
    assert "accumulate.sums_out" in speed.decisions()


def test_tour_runs_and_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    shell.main(["tour"])
    printed = capsys.readouterr().out
    assert "12. A stop" in printed
    assert "t-9               0.253491        0.253491" in printed
    assert "times as fast" in printed
    assert "2014      63.0    27 to  99     78.5" in printed
    assert "2020      49.8    10 to  89      5.3  outside" in printed
    assert "The band held what came in 10 of 16 years." in printed
    assert (tmp_path / "forecast.png").read_bytes().startswith(b"\x89PNG")


def test_tour_without_matplotlib_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    for name in [n for n in sys.modules if n.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.chdir(tmp_path)
    shell.main([])
    assert "matplotlib is missing" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
