"""The scan optimizer: rewrites the loops of a traced JAX program.

`rewrite` makes the loops of a program faster; `report` says what was done and what was
not, and why. `jscan.optimize` and `jscan.explain` do so for functions.
"""

from jscan.optimize._api import report, rewrite
from jscan.optimize._calls import register_call
from jscan.optimize._measure import flops
from jscan.optimize._options import PASS_NAMES, Options, make_options
from jscan.optimize._pipeline import enabled
from jscan.optimize._program import has_loops, is_explicitly_sharded
from jscan.optimize._region import Parts, split
from jscan.optimize._report import LoopReport, Report

__all__ = [
    "PASS_NAMES",
    "LoopReport",
    "Options",
    "Parts",
    "Report",
    "enabled",
    "flops",
    "has_loops",
    "is_explicitly_sharded",
    "make_options",
    "register_call",
    "report",
    "rewrite",
    "split",
]
