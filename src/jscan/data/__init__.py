"""Measured series that ship with the package, for the tour and the notebooks."""

import csv
import importlib.resources
from typing import NamedTuple

import numpy as np

__all__ = ["Sunspots", "sunspots", "sunspots_since_1997"]


class Sunspots(NamedTuple):
    """A yearly sunspot record.

    Attributes:
        years: The calendar years, int64 of shape `[T]`.
        numbers: The mean sunspot number of each year, float64 of shape `[T]`.
    """

    years: np.ndarray
    numbers: np.ndarray


def sunspots() -> Sunspots:
    """Load the yearly mean sunspot numbers of 1700 to 2008.

    The record comes from SIDC, Royal Observatory of Belgium, by way of the
    National Geophysical Data Center, and is in the public domain. It is the
    series before the revision of 2015, the one that textbooks print.

    Returns:
        The years and the numbers, both of shape `[309]`.

    Example:
        >>> from jscan.data import sunspots
        >>> years, numbers = sunspots()
        >>> int(years[numbers.argmax()]), float(numbers.max())
        (1957, 190.2)
    """
    return _record("sunspots.csv")


def sunspots_since_1997() -> Sunspots:
    """Load the yearly mean sunspot numbers of 1997 to 2024, as NOAA counts them.

    The means of the monthly means of the Space Weather Prediction Center, NOAA (its
    ``observed_swpc_ssn``), a work of the US government in the public domain. They are
    on a scale of their own: about one and a half times the numbers of `sunspots`.

    Returns:
        The years and the numbers, both of shape `[28]`.

    Example:
        >>> from jscan.data import sunspots, sunspots_since_1997
        >>> years, numbers = sunspots_since_1997()
        >>> int(years[-1]), float(numbers[-1])
        (2024, 147.2)
        >>> old = sunspots().numbers[-12:]  # of 1997 to 2008, in both
        >>> round(float(old @ numbers[:12] / (numbers[:12] @ numbers[:12])), 2)
        0.65
    """
    return _record("sunspots_since_1997.csv")


def _record(name: str) -> Sunspots:
    text = importlib.resources.files(__name__).joinpath(name).read_text()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    rows = list(csv.DictReader(lines))
    years = np.array([int(row["year"]) for row in rows])
    numbers = np.array([float(row["sunspots"]) for row in rows])
    return Sunspots(years, numbers)
