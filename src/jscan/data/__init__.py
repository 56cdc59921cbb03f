"""Measured series that ship with the package, for the tour and the notebooks."""

import csv
import importlib.resources
from typing import NamedTuple

import numpy as np

__all__ = ["Sunspots", "sunspots"]


class Sunspots(NamedTuple):
    """The yearly sunspot record.

    Attributes:
        years: The calendar years 1700 to 2008, int64 of shape `[309]`.
        numbers: The mean sunspot number of each year, float64 of shape `[309]`.
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
    text = importlib.resources.files(__name__).joinpath("sunspots.csv").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    rows = list(csv.DictReader(lines))
    years = np.array([int(row["year"]) for row in rows])
    numbers = np.array([float(row["sunspots"]) for row in rows])
    return Sunspots(years, numbers)
