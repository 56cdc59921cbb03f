"""The picture of the sunspot record and its forecast."""

from pathlib import Path
from typing import Any

import numpy as np

from jscan._tour.sunspots import Came

# Apart in lightness as well as in hue, so that they stay apart in print.
INK, MEASURED, EXPECTED, FRAME = "#222222", "#2f6690", "#d1495b", "#bbbbbb"
BAND = 1.2816  # deviations to each side that hold 80 % of the normal law


def save_forecast(
    path: Path,
    years: np.ndarray,
    numbers: np.ndarray,
    expected: np.ndarray,
    deviation: np.ndarray,
    came: Came,
    first_year: int = 1900,
) -> None:
    """Draw the record since `first_year` and the forecast with its 80 % band.

    Args:
        path: Where to write the PNG.
        years: The years of the record, `[T]`.
        numbers: The record, `[T]`.
        expected: The forecast of the years that follow, `[years]`.
        deviation: The standard deviation of each year's forecast, `[years]`.
        came: What was measured in those years.
        first_year: Where the drawing starts.
    """
    # Imported here: jscan itself does not need matplotlib.
    from matplotlib.figure import Figure

    shown = years >= first_year
    # The forecast starts at the last known year, so that the two lines meet.
    ahead = np.concatenate([years[-1:], years[-1] + 1 + np.arange(len(expected))])
    middle = np.concatenate([numbers[-1:], expected])
    reach = BAND * np.concatenate([[0.0], deviation])

    figure = Figure(figsize=(10, 4.6), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    axes.plot(
        years[shown], numbers[shown], color=MEASURED, linewidth=1.8, label="measured"
    )
    axes.plot(ahead, middle, color=EXPECTED, linewidth=2.2, label="expected")
    axes.fill_between(
        ahead,
        np.maximum(middle - reach, 0),
        middle + reach,
        color=EXPECTED,
        alpha=0.18,
        linewidth=0,
        label="80 % band",
    )
    axes.plot(came.years, came.numbers, "o", color=INK, markersize=4, label="came")
    axes.axvline(years[-1], color=FRAME, linewidth=1, linestyle=(0, (4, 3)))

    title = f"Yearly sunspot numbers, and the {len(expected)} years ahead by AR(9)"
    _frame(axes, title)
    axes.set_xlim(first_year, ahead[-1] + 1)
    figure.savefig(path)


def _frame(axes: Any, title: str) -> None:
    """What stands around the lines: few strokes, and the legend above."""
    axes.set_title(title, loc="left", color=INK, fontsize=13, pad=30)
    axes.set_ylabel("sunspot number", color=INK)
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", color="#eeeeee")
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, length=0, pad=7)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(FRAME)
    # In one row between title and drawing, where it covers nothing.
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1),
        borderaxespad=0.3,
        borderpad=0,
        ncols=4,
        frameon=False,
        labelcolor=INK,
    )
