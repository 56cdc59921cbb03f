"""Theano's scan on JAX: loops with taps, states and shared variables."""

from __future__ import annotations

import sys as _sys

from jscan._base.caches import clear_caches
from jscan._base.errors import (
    NonFiniteError,
    ScanError,
    ScanImportError,
    ScanNotImplementedError,
    ScanTypeError,
    ScanValueError,
    UpdateCollision,
)
from jscan._execution.profile import profile
from jscan._frontend.drawing import Drawing
from jscan._frontend.result import ScanResult
from jscan._frontend.until import until
from jscan._functions.callable import Function
from jscan._functions.function import function
from jscan._functions.gradients import grad, value_and_grad
from jscan._functions.optimized import explain, optimize
from jscan._optimizer.reports.report import Report
from jscan._scan.checkpoints import scan_checkpoints
from jscan._scan.draw import draw
from jscan._scan.scan import scan
from jscan._scan.views import foldl, foldr, map, reduce
from jscan._state.random_streams import MRG_RandomStreams, RandomStreams
from jscan._state.updates import OrderedUpdates, Updates
from jscan._state.variables import SharedVariable, shared

__version__ = "0.1.0"

__all__ = [
    "Drawing",
    "Function",
    "MRG_RandomStreams",
    "NonFiniteError",
    "OrderedUpdates",
    "RandomStreams",
    "Report",
    "ScanError",
    "ScanImportError",
    "ScanNotImplementedError",
    "ScanResult",
    "ScanTypeError",
    "ScanValueError",
    "SharedVariable",
    "UpdateCollision",
    "Updates",
    "clear_caches",
    "draw",
    "explain",
    "foldl",
    "foldr",
    "function",
    "grad",
    "map",
    "optimize",
    "profile",
    "reduce",
    "scan",
    "scan_checkpoints",
    "shared",
    "until",
    "value_and_grad",
]

# Where pickles of version 0.1.0 look for what is in them.
_MOVED = {
    "_distributions": "_state.distributions",
    "_draw": "_state.draws",
    "_errors": "_base.errors",
    "_profile": "_execution.profile",
    "_random": "_state.random_streams",
    "_results": "_frontend.result",
    "_shared": "_state.variables",
    "_streams": "_state.streams",
    "_until": "_frontend.until",
    "_updates": "_state.updates",
    "optimize._loop": "_optimizer.record.loop",
    "optimize._measure": "_optimizer.analysis.size",
    "optimize._report": "_optimizer.reports.report",
}
for _old, _new in _MOVED.items():
    _sys.modules[f"{__name__}.{_old}"] = _sys.modules[f"{__name__}.{_new}"]

for _public in [globals()[name] for name in __all__]:  # in pickles and tracebacks
    _public.__module__ = __name__
