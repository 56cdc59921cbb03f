"""Theano's `scan` on JAX, and an optimizer for every `lax.scan`.

A loop is a step, what it runs over, and what it starts from. This one looks two steps
back, and stops by itself; it goes through `jax.jit`, `jax.grad` and `jax.vmap`:

    >>> import jax.numpy as jnp, jscan
    >>> def step(x, before_last, last):
    ...     y = x + 1.5 * last - 0.6 * before_last
    ...     return y, jscan.until(y > 3)
    >>> past = dict(initial=jnp.zeros(2), taps=[-2, -1])
    >>> rows, updates = jscan.scan(step, sequences=jnp.ones(50), outputs_info=past)
    >>> rows.shape, rows[:2].tolist()
    ((3,), [1.0, 2.5])

Loops
    scan                    a step over sequences, states, constants; returns...
    ScanResult              ... outputs, updates, the number of steps
    until                   returned by a step: stop after this one
    map, reduce             over elements: all results, or the last one
    foldl, foldr            from the first element, or from the last
    scan_checkpoints        Theano's: rows at chunk ends, less memory

State
    shared, SharedVariable  a value that lives between calls
    Updates                 new values of variables; OrderedUpdates is the same
    function, Function      compile Python code that reads and updates variables
    grad, value_and_grad    derivatives of a cost with respect to variables
    RandomStreams, Draw     draws, fresh at every step; MRG_RandomStreams is the same

Seeing, speed
    optimize                any JAX function, its loops made faster
    draw, Drawing           the data flow of a call, as text or a picture
    explain                 what that does to each loop, and what not, and why:
    Report, LoopReport      ... in text, in a notebook, and as data
    profile, LoopProfile    what loops cost while they run
    clear_caches            forget what was traced and compiled

Errors
    ScanError               every error of jscan's, each also a built-in one:
    ScanTypeError, ScanValueError, ScanAttributeError, ScanImportError,
    ScanNotImplementedError, UpdateCollision, NonFiniteError

`jscan.data` has measured series to try things on. In a shell, ``python -m jscan`` is
a tour, ``python -m jscan info`` says what is installed and how it is set, and
``python -m jscan calibrate`` measures this machine, by which loops can be planned.
"""

from __future__ import annotations

import sys as _sys

from jscan._base.caches import clear_caches
from jscan._base.errors import (
    NonFiniteError,
    ScanAttributeError,
    ScanError,
    ScanImportError,
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

__version__ = "0.1.0"

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
