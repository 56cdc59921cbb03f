"""Draw what a call of a program takes, before and after, as bars."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from jscan._base.errors import ScanImportError, Subject

_COLOURS = ("tab:gray", "tab:blue")

Panel = tuple[str, tuple[float, float] | None, Callable[[Any], str], str]
"""A title, two numbers or none, how one is written, and what is said without them."""


def draw(title: str, panels: Sequence[Panel]) -> Any:
    """A figure with two bars a panel, each with its number; or the title alone."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ScanImportError(
            "plot",
            needed="the package matplotlib",
            came="a Python without it",
            fix="pip install 'jscan[plot]', or print the report",
            owner=Subject("Report"),
        ) from error
    height = 2.4 if panels else 0.9
    figure = plt.figure(figsize=(8, height), layout="constrained")
    plt.close(figure)  # so that a notebook shows it once: where it is returned
    if not panels:
        figure.text(0.5, 0.5, title, ha="center", va="center", wrap=True)
        return figure
    figure.suptitle(title, fontsize="medium")
    for axes, (name, numbers, write, instead) in zip(
        figure.subplots(1, len(panels)), panels, strict=True
    ):
        axes.set_title(name, fontsize="medium")
        axes.spines[["top", "right", "bottom"]].set_visible(False)
        axes.set_xticks([])
        if numbers is None:
            axes.spines["left"].set_visible(False)
            axes.set_yticks([])
            axes.text(0.5, 0.5, instead, ha="center", va="center", wrap=True)
            continue
        bars = axes.barh(["before", "after"], numbers, color=_COLOURS, height=0.6)
        axes.bar_label(bars, list(map(write, numbers)), padding=4)
        axes.set_xlim(0, 1.35 * max(*numbers, 1e-12))  # room for the numbers
        axes.invert_yaxis()
    return figure
