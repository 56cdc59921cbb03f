"""The bar that a loop gets, and how often it is told of a step."""

from __future__ import annotations

from jscan import _optimizer
from jscan._frontend.spec import Options
from jscan._jax.jaxprs import open_jaxpr
from jscan._loops.bars import Bar
from jscan._programs.program import Program

FEWEST, MOST = 5, 100  # reports of a loop

PAUSE = 0.2  # seconds between them, about: each stops the loop for a millisecond


def plan_bar(n_steps: int, options: Options, step: Program | None = None) -> Bar | None:
    """The bar that the options ask for.

    A loop that will not take long makes few reports.

    Args:
        n_steps: Most steps of the loop.
        options: The options.
        step: The traced step; without one every step is reported.
    """
    if options.progress is None:
        return None
    settings = {"desc": options.name or "scan", **dict(options.progress)}
    if step is None or not n_steps:
        return Bar(n_steps, tuple(settings.items()))
    reports = min(MOST, max(FEWEST, round(n_steps * _seconds(step) / PAUSE)))
    stride = settings.get("miniters") or -(-n_steps // reports)
    return Bar(n_steps, tuple(settings.items()), stride)


def _seconds(step: Program) -> float:
    """At least how long a step takes on a CPU core.

    Within a factor of twenty; too much would mean too many reports of a loop whose
    steps are a few nanoseconds long.
    """
    equations = open_jaxpr(step.jaxpr)[0].eqns
    work = _optimizer.flops(equations)
    known = work if isinstance(work, int | float) else 0  # else of symbolic shapes
    return 1e-9 * len(equations) + known / 50e9
