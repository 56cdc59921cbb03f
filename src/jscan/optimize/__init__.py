"""The scan optimizer: rewrites the loops of a traced JAX program.

`rewrite` makes the loops of a program faster; `report` says what was done and what was
not, and why. `jscan.optimize` and `jscan.explain` do so for functions.
"""

from jscan.optimize._api import report, rewrite
from jscan.optimize._calls import OwnLoop, register_call, register_loop
from jscan.optimize._flat import has_loops, is_explicitly_sharded
from jscan.optimize._jaxpr import free_variables, is_scan, read_scan
from jscan.optimize._jaxpr import program as plain_program
from jscan.optimize._measure import flops
from jscan.optimize._options import PASS_NAMES, Options, make_options
from jscan.optimize._pipeline import enabled
from jscan.optimize._region import Parts, split
from jscan.optimize._report import LoopReport, Report
from jscan.optimize._stored import store_less

__all__ = [
    "PASS_NAMES",
    "LoopReport",
    "Options",
    "OwnLoop",
    "Parts",
    "Report",
    "enabled",
    "flops",
    "free_variables",
    "has_loops",
    "is_explicitly_sharded",
    "is_scan",
    "make_options",
    "plain_program",
    "read_scan",
    "register_call",
    "register_loop",
    "report",
    "rewrite",
    "split",
    "store_less",
]
