"""The tour: Theano's loop tutorial, the optimizer, and a model of the sunspots.

The examples of the tutorial stand beside NumPy's answers. The model of the yearly
sunspot numbers is fitted and run on by loops, and its forecast held against what came.
Writes `forecast.png` where matplotlib is installed.
"""

import inspect
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

import jscan
from jscan._tour import speed, sunspots, tutorial
from jscan._tour.plot import BAND, save_forecast
from jscan.data import sunspots as load_sunspots

YEARS_AHEAD = 20
PICTURE = Path("forecast.png")


def heading(text: str) -> None:
    """Print `text` as a heading."""
    print(f"\n{text}\n{'=' * len(text)}")


def show_tutorial() -> None:
    """Run every example with jscan and with NumPy, and print code and both answers."""
    heading("Theano's loop tutorial, with jscan and with NumPy")
    for number, example in enumerate(tutorial.EXAMPLES, start=1):
        ours = np.asarray(example.with_jscan())
        theirs = np.asarray(example.with_numpy())
        np.testing.assert_allclose(ours, theirs, rtol=1e-10)
        print(f"\n{number}. {inspect.getdoc(example.with_jscan)}\n")
        print(textwrap.indent(body_of(example.with_jscan), "       "), end="\n\n")
        print(side_by_side(f"jscan  {pretty(ours, 7)}", f"NumPy  {pretty(theirs, 7)}"))


def pretty(array: np.ndarray, indent: int) -> str:
    """`array` with four digits, its further lines indented."""
    text = np.array2string(array, precision=4, suppress_small=True, floatmode="fixed")
    return text.replace("\n", "\n" + " " * indent)


def side_by_side(left: str, right: str) -> str:
    """Two texts of as many lines, in two columns."""
    pairs = zip(left.splitlines(), right.splitlines(), strict=True)
    return "\n".join(f"   {first:<40}{second}" for first, second in pairs)


def body_of(function: Callable[..., object]) -> str:
    """The source of `function` between its docstring and its last line."""
    lines = inspect.getsource(function).splitlines()
    return textwrap.dedent("\n".join(lines[2:-1])).strip()


def show_sunspots() -> None:
    """Fit the model, compare it with least squares, forecast and draw."""
    years, numbers = load_sunspots()
    series = numbers / sunspots.SCALE
    heading(f"Sunspots {years[0]}-{years[-1]}: an autoregressive model of order 9")

    fit = sunspots.fit(series)
    exact = sunspots.least_squares(series)
    print(
        "\nThe loss is a scan over windows of ten years; jax.grad and jax.hessian go"
        f"\nthrough it. Newton steps: {fit.iterations}, norm of the gradient: "
        f"{fit.gradient_norm:.1e}\n"
    )
    print("   lag     fitted through scan   least squares")
    # The model holds the oldest lag first; people read the youngest first.
    for lag in range(1, 1 + len(sunspots.TAPS)):
        print(f"   t-{lag}  {fit.model[-lag]:21.6f} {exact[-lag]:15.6f}")
    scale = sunspots.SCALE
    print(f"   const {fit.model[0] * scale:20.6f} {exact[0] * scale:15.6f}")
    np.testing.assert_allclose(fit.model, exact, rtol=1e-6)
    show_forecast(fit, years, numbers)


def show_forecast(fit: sunspots.Fit, years: np.ndarray, numbers: np.ndarray) -> None:
    """Run the fitted model on, hold what it expects against what came, and draw it."""
    scale = sunspots.SCALE
    past = numbers[-len(sunspots.TAPS) :] / scale
    expected = scale * np.asarray(sunspots.forecast(fit.model, past, YEARS_AHEAD))
    deviation = scale * np.asarray(sunspots.forecast_deviation(fit, YEARS_AHEAD))
    came = sunspots.what_came()
    print(
        f"\nThe {YEARS_AHEAD} years that follow, by a scan over its own last nine, and "
        "what came. (NOAA's\nnumbers; "
        f"{came.scale:.2f} of one is one of the record, in the years of both.)\n"
    )
    low = np.maximum(expected - BAND * deviation, 0)
    high = expected + BAND * deviation
    count = len(came.numbers)
    inside = (low[:count] <= came.numbers) & (came.numbers <= high[:count])
    print("   year  expected  80 % band     came")
    for k in range(YEARS_AHEAD):
        line = (
            f"   {years[-1] + 1 + k} {expected[k]:9.1f} {low[k]:5.0f} to {high[k]:3.0f}"
        )
        if k < count:
            line += f" {came.numbers[k]:8.1f}" + ("" if inside[k] else "  outside")
        print(line)
    print(f"\nThe band held what came in {inside.sum()} of {count} years.")
    draw_forecast(years, numbers, expected, deviation, came)


def draw_forecast(*series: Any) -> None:
    """Save the picture, where matplotlib is installed."""
    try:
        save_forecast(PICTURE, *series)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "matplotlib":
            raise
        print("\nNo picture: matplotlib is missing (pip install matplotlib).")
    else:
        print(f"\nThe picture is in {PICTURE.resolve()}")


def show_speed() -> None:
    """Time a gradient before and after `optimize`, and say what was done."""
    heading("The optimizer: a gradient through an LSTM in plain lax.scan")
    times = speed.measure()
    print("\n" + textwrap.indent(inspect.getsource(speed.loss), "       "))
    gain = times.plain / times.optimized
    print(f"   jax.jit(jax.grad(loss))                   {times.plain:8.2f} ms")
    print(f"   jax.jit(jscan.optimize(jax.grad(loss)))   {times.optimized:8.2f} ms")
    print(f"   {gain:.2f} times as fast: medians of {times.turns} turns")
    print(f"   largest difference of a derivative: {times.difference:.0e}\n")
    print("What jscan.explain says of the backward loop:\n")
    print(textwrap.indent(speed.decisions(), "   "))


def take_tour() -> None:
    """Take the whole tour."""
    start = time.perf_counter()
    print(f"jscan {jscan.__version__} on JAX {jax.__version__}")
    show_speed()
    # NumPy computes in 64 bits; to be compared with it, so must the loops.
    jax.config.update("jax_enable_x64", True)
    show_tutorial()
    show_sunspots()
    print(f"\nThe tour took {time.perf_counter() - start:.1f} s.")
