"""The public names, loaded together when the first of them is asked for."""

from jscan._base.caches import clear_caches
from jscan._base.errors import (
    NonFiniteError,
    ScanAttributeError,
    ScanError,
    ScanImportError,
    ScanKeyError,
    ScanNotImplementedError,
    ScanTypeError,
    ScanValueError,
    UpdateCollision,
)
from jscan._execution.profile import LoopProfile, profile
from jscan._frontend.drawing import Drawing
from jscan._frontend.result import ScanResult
from jscan._frontend.until import until
from jscan._functions.function import function
from jscan._functions.function_type import Function
from jscan._functions.gradients import grad, value_and_grad
from jscan._functions.optimized import explain, optimize
from jscan._optimizer.reports.report import LoopReport, Report
from jscan._scan.checkpoints import scan_checkpoints
from jscan._scan.draw import draw
from jscan._scan.scan import scan
from jscan._scan.views import foldl, foldr, map, reduce
from jscan._state.draws import Draw
from jscan._state.random_streams import MRG_RandomStreams, RandomStreams
from jscan._state.updates import OrderedUpdates, Updates
from jscan._state.variables import SharedVariable, shared

__all__ = [
    "Draw",
    "Drawing",
    "Function",
    "LoopProfile",
    "LoopReport",
    "MRG_RandomStreams",
    "NonFiniteError",
    "OrderedUpdates",
    "RandomStreams",
    "Report",
    "ScanAttributeError",
    "ScanError",
    "ScanImportError",
    "ScanKeyError",
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

for _public in [globals()[name] for name in __all__]:  # in pickles and tracebacks
    _public.__module__ = "jscan"
