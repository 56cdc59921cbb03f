"""The scan optimizer: rewrites the loops of a traced JAX program.

`rewrite` makes the loops of a program faster; `report` says what was done and what was
not, and why. `jscan.optimize` and `jscan.explain` do so for functions.
"""

from jscan._jax.marks import PLAIN, marked
from jscan._optimizer.analysis.index import has_loops
from jscan._optimizer.analysis.size import flops
from jscan._optimizer.choices import chosen, make_options
from jscan._optimizer.entry import report, rewrite
from jscan._optimizer.lowering import rewritten
from jscan._optimizer.options import Options, Plan
from jscan._optimizer.pipeline import storing_less
from jscan._optimizer.record.names import STRETCHES
from jscan._optimizer.reports.report import LoopReport, Report
from jscan._optimizer.rules import PASS_NAMES, RULE_NAMES
from jscan._optimizer.switches import enabled, plans

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
