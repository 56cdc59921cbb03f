"""The scan optimizer: rewrites the loops of a traced JAX program.

`rewrite` makes the loops of a program faster; `report` says what was done and what was
not, and why. `jscan.optimize` and `jscan.explain` do so for functions.
"""

from jscan.optimize._api import report, rewrite
from jscan.optimize._flat import has_loops
from jscan.optimize._jaxpr import evaluate
from jscan.optimize._lowering import rewritten
from jscan.optimize._marks import is_marked, marked
from jscan.optimize._measure import flops
from jscan.optimize._options import PASS_NAMES, Options, make_options
from jscan.optimize._pipeline import enabled
from jscan.optimize._report import STRETCHES, LoopReport, Report
from jscan.optimize._stored import storing_less

__all__ = [
    "PASS_NAMES",
    "STRETCHES",
    "LoopReport",
    "Options",
    "Report",
    "enabled",
    "evaluate",
    "flops",
    "has_loops",
    "is_marked",
    "make_options",
    "marked",
    "report",
    "rewrite",
    "rewritten",
    "storing_less",
]
