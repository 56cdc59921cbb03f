"""The scan optimizer: rewrites the loops of a traced JAX program.

`rewrite` makes the loops of a program faster; `report` says what was done and what was
not, and why. `jscan.optimize` and `jscan.explain` do so for functions. What is needed
to mark a loop is loaded at once; the rules, and all that stands on them, with the first
loop.
"""

import importlib
from typing import TYPE_CHECKING, Any

from jscan._jax.marks import PLAIN, marked
from jscan._jax.scans import has_loops
from jscan._optimizer.lowering import rewritten
from jscan._optimizer.options import Options, Plan
from jscan._optimizer.record.names import STRETCHES
from jscan._optimizer.switches import enabled, plans

if TYPE_CHECKING:
    from jscan._optimizer.choices import chosen, make_options
    from jscan._optimizer.costs.flops import flops
    from jscan._optimizer.entry import report, rewrite
    from jscan._optimizer.pipeline import storing_less
    from jscan._optimizer.reports.report import LoopReport, Report
    from jscan._optimizer.rules import PASS_NAMES, RULE_NAMES

_LATER = {
    "LoopReport": "reports.report",
    "PASS_NAMES": "rules",
    "RULE_NAMES": "rules",
    "Report": "reports.report",
    "chosen": "choices",
    "flops": "costs.flops",
    "make_options": "choices",
    "report": "entry",
    "rewrite": "entry",
    "storing_less": "pipeline",
}

__all__ = [
    "PASS_NAMES",
    "PLAIN",
    "RULE_NAMES",
    "STRETCHES",
    "LoopReport",
    "Options",
    "Plan",
    "Report",
    "chosen",
    "enabled",
    "flops",
    "has_loops",
    "make_options",
    "marked",
    "plans",
    "report",
    "rewrite",
    "rewritten",
    "storing_less",
]


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_LATER[name]}")
    value = globals()[name] = getattr(module, name)
    return value
