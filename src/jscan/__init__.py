"""Theano's scan on JAX: loops with taps, states and shared variables."""

from __future__ import annotations

from ._checkpoint import scan_checkpoints
from ._errors import (
    NonFiniteError,
    ScanError,
    ScanImportError,
    ScanNotImplementedError,
    ScanTypeError,
    ScanValueError,
    UpdateCollision,
)
from ._function import Function, function
from ._grad import grad, value_and_grad
from ._optimize import Report, explain, optimize
from ._profile import profile
from ._random import MRG_RandomStreams, RandomStreams
from ._results import ScanResult
from ._scan import scan
from ._shared import SharedVariable, shared
from ._until import until
from ._updates import OrderedUpdates, Updates
from ._views import foldl, foldr, map, reduce

__version__ = "0.1.0"

__all__ = [
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
    _public.__module__ = __name__
