"""An autoregressive model of order 9 of the yearly sunspot numbers, in loops.

The model says `x[t] = c + w[0] x[t-9] + ... + w[8] x[t-1] + noise`. It is held as one
vector `[c, w[0], ..., w[8]]`, oldest lag first, as the loops hand over their taps.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

import jscan
from jscan import data

TAPS = tuple(range(-9, 0))  # x[t-9], ..., x[t-1]
SCALE = 100.0  # sunspot numbers in hundreds: values near 1 make a well scaled loss


@dataclass(frozen=True)
class Fit:
    """A fitted model.

    Attributes:
        model: `[c, w[0], ..., w[8]]`, in units of `SCALE` sunspots.
        gradient_norm: Length of the gradient of the loss at `model`.
        iterations: Newton steps taken.
        deviation: Standard deviation of the one-step errors.
    """

    model: jax.Array
    gradient_norm: float
    iterations: int
    deviation: float


def one_step_ahead(*past_and_model: jax.Array) -> jax.Array:
    """Predict `x[t]` from `x[t-9], ..., x[t-1]` and, as last argument, the model."""
    *past, model = past_and_model
    return model[0] + jnp.stack(past) @ model[1:]


def mean_squared_error(model: jax.Array, series: jax.Array) -> jax.Array:
    """The loss: a loop over windows of nine years and the year that follows them."""

    def squared_error(*window_and_model: jax.Array) -> jax.Array:
        *past, present, model = window_and_model
        return (present - one_step_ahead(*past, model)) ** 2

    errors, _ = jscan.scan(
        squared_error,
        sequences=dict(input=series, taps=[*TAPS, 0]),
        non_sequences=model,
        name="one step ahead",
    )
    return errors.mean()


def fit(series: np.ndarray, tolerance: float = 1e-10, most: int = 10) -> Fit:
    """Fit the model by Newton steps, with derivatives taken through the loop.

    Args:
        series: The series in units of `SCALE`, float64 of shape `[T]`.
        tolerance: The norm of the gradient at which to stop.
        most: The largest number of Newton steps.

    Returns:
        The fitted model.
    """
    loss = jax.jit(mean_squared_error)
    gradient = jax.jit(jax.grad(mean_squared_error))
    hessian = jax.jit(jax.hessian(mean_squared_error))

    model = jnp.zeros(1 + len(TAPS), series.dtype)
    slope = gradient(model, series)
    iterations = 0
    while jnp.linalg.norm(slope) > tolerance and iterations < most:
        model = model - jnp.linalg.solve(hessian(model, series), slope)
        slope = gradient(model, series)
        iterations += 1
    norm = float(jnp.linalg.norm(slope))
    return Fit(model, norm, iterations, float(jnp.sqrt(loss(model, series))))


def forecast(model: jax.Array, past: ArrayLike, years: int) -> jax.Array:
    """Run the model on by itself: a loop over nothing but its own last nine outputs.

    Args:
        model: `[c, w[0], ..., w[8]]`.
        past: The last nine known values, oldest first, `[9]`.
        years: How many years to go.

    Returns:
        The expected values, `[years]`.
    """
    path, _ = jscan.scan(
        one_step_ahead,
        outputs_info=dict(initial=past, taps=TAPS),
        non_sequences=model,
        n_steps=years,
        name="forecast",
    )
    return path


def forecast_deviation(fit: Fit, years: int) -> jax.Array:
    """The standard deviation of each year's forecast, `[years]`.

    A shock of one year runs on as the model does without its constant; the errors of
    a forecast are the sum of all shocks since its start.
    """
    quiet = fit.model.at[0].set(0.0)
    shock = jnp.zeros(len(TAPS), fit.model.dtype).at[-1].set(1.0)
    echo = jnp.append(1.0, forecast(quiet, shock, years - 1))
    return fit.deviation * jnp.sqrt(jnp.cumsum(echo**2))


def least_squares(series: np.ndarray) -> np.ndarray:
    """The closed-form answer, by NumPy: `[c, w[0], ..., w[8]]`."""
    windows = np.lib.stride_tricks.sliding_window_view(series, len(TAPS) + 1)
    design = np.column_stack([np.ones(len(windows)), windows[:, :-1]])
    return np.linalg.lstsq(design, windows[:, -1], rcond=None)[0]


class Came(NamedTuple):
    """What came in the years that were forecast, on the scale of the record."""

    years: np.ndarray
    numbers: np.ndarray
    scale: float  # numbers of the record for one of NOAA's


def what_came() -> Came:
    """The years since the record ends, as NOAA counts them, on the record's scale.

    The scale is that by which NOAA's numbers fit the record best in the years of both.
    """
    old, new = data.sunspots(), data.sunspots_since_1997()
    ours = old.numbers[np.isin(old.years, new.years)]
    theirs = new.numbers[np.isin(new.years, old.years)]
    scale = float(ours @ theirs / (theirs @ theirs))
    later = new.years > old.years[-1]
    return Came(new.years[later], scale * new.numbers[later], scale)
