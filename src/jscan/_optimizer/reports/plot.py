"""Draw numbers of operations as bars."""

from collections.abc import Sequence
from typing import Any

from jscan._base.errors import ScanImportError, Subject


def draw(names: Sequence[str], in_loop: Sequence[int], at_once: Sequence[int]) -> Any:
    """A figure with one bar a name: operations a step, and on all steps at once."""
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
    figure, axes = plt.subplots(figsize=(7, 1.2 + 0.55 * max(2, len(names))))
    plt.close(figure)  # so that a notebook shows it once: where it is returned
    places = list(range(len(names)))
    axes.barh(places, in_loop, label="at every step", color="tab:orange")
    label = "for all steps at once"
    axes.barh(places, at_once, left=in_loop, label=label, color="tab:blue")
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.set_xlabel("operations")
    axes.legend()
    figure.tight_layout()
    return figure
