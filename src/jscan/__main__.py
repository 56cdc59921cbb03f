"""`python -m jscan`: a tour on real data.

First the examples of Theano's loop tutorial, beside NumPy; then a model of the yearly
sunspot numbers that is fitted and run on by loops. Writes `forecast.png` where
matplotlib is installed.
"""

import inspect
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

import jscan
from jscan._tour import sunspots, tutorial
from jscan._tour.plot import save_forecast
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
    """Run the fitted model on, print what it expects, and draw it."""
    scale = sunspots.SCALE
    past = numbers[-len(sunspots.TAPS) :] / scale
    expected = scale * np.asarray(sunspots.forecast(fit.model, past, YEARS_AHEAD))
    deviation = scale * np.asarray(sunspots.forecast_deviation(fit, YEARS_AHEAD))
    print(f"\nThe {YEARS_AHEAD} years that follow, by a scan over its own last nine:\n")
    cells = [f"{years[-1] + 1 + k}: {value:5.1f}" for k, value in enumerate(expected)]
    for start in range(0, YEARS_AHEAD, 5):
        print("   " + "   ".join(cells[start : start + 5]))

    try:
        save_forecast(PICTURE, years, numbers, expected, deviation)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "matplotlib":
            raise
        print("\nNo picture: matplotlib is missing (pip install matplotlib).")
    else:
        print(f"\nThe picture is in {PICTURE.resolve()}")


def main() -> None:
    """Take the whole tour."""
    # NumPy computes in 64 bits; to be compared with it, so must the loops.
    jax.config.update("jax_enable_x64", True)
    start = time.perf_counter()
    print(f"jscan {jscan.__version__} on JAX {jax.__version__}")
    show_tutorial()
    show_sunspots()
    print(f"\nThe tour took {time.perf_counter() - start:.1f} s.")


if __name__ == "__main__":
    main()
