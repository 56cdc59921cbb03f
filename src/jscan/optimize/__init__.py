"""The scan optimizer: rewrites the loops of a traced JAX program.

`optimize` makes the loops of any JAX function faster; `explain` says what was done
and what was not, and why. `rewrite` is the entry for programs already traced.
"""

from jscan.optimize._api import explain, optimize, rewrite
from jscan.optimize._calls import register_call
from jscan.optimize._measure import flops
from jscan.optimize._options import PASS_NAMES, Options, make_options
from jscan.optimize._pipeline import enabled
from jscan.optimize._report import LoopReport, Report

__all__ = [
    "PASS_NAMES",
    "LoopReport",
    "Options",
    "Report",
    "enabled",
    "explain",
    "flops",
    "make_options",
    "optimize",
    "register_call",
    "rewrite",
]
