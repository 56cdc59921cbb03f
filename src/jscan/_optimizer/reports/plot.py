"""Draw a report: for each loop one bar before and one after."""

from typing import TYPE_CHECKING, Any

from jscan._base.errors import ScanImportError, Subject, explain_error

if TYPE_CHECKING:
    from jscan._optimizer.reports.report import Report


def draw(report: "Report") -> Any:
    """A figure with two bars a loop: operations a step, and on all steps at once."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ScanImportError(
            explain_error(
                Subject("Report"),
                "plot",
                needed="the package matplotlib",
                came="a Python without it",
                fix="pip install 'jscan[plot]', or print the report",
            )
        ) from error
    size = 7, 1.2 + 1.1 * max(1, len(report.loops))
    figure, axes = plt.subplots(figsize=size)
    plt.close(figure)  # so that a notebook shows it once: where it is returned
    labels: list[str] = []
    in_loop: list[int] = []
    at_once: list[int] = []
    for loop in report.loops:
        for when, size in (("before", loop.before), ("after", loop.after)):
            labels.append(f"{loop.name}, {when}")
            in_loop.append(size.operations)
            at_once.append(size.batched)
    places = list(range(len(labels)))
    axes.barh(places, in_loop, label="at every step", color="tab:orange")
    axes.barh(
        places, at_once, left=in_loop, label="for all steps at once", color="tab:blue"
    )
    axes.set_yticks(places, labels)
    axes.invert_yaxis()
    axes.set_xlabel("operations")
    axes.legend()
    figure.tight_layout()
    return figure
