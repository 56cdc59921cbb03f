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
    explain                 what that does to each loop, and what not, and why:
    Report, LoopReport      ... in text, in a notebook, and as data
    draw, Drawing           the data flow of a call, as text or a picture
    profile, LoopProfile    what loops cost while they run
    clear_caches            forget what was traced and compiled

Errors
    ScanError               every error of jscan's, each also a built-in one:
    ScanTypeError, ScanValueError, ScanAttributeError, ScanImportError,
    ScanKeyError, ScanNotImplementedError, UpdateCollision, NonFiniteError

`jscan.data` has measured series to try things on. In a shell, ``python -m jscan`` is
a tour, ``python -m jscan info`` says what is installed and how it is set, and
``python -m jscan calibrate`` measures this machine, by which loops can be planned.
"""

from __future__ import annotations

import importlib as _importlib
import sys as _sys
import types as _types
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

if _TYPE_CHECKING:
    from jscan._public import *  # noqa: F403

__version__ = "0.1.0"

if not _TYPE_CHECKING:  # a checker would take every name for one of these

    def __getattr__(name: str) -> _Any:
        """Load the public names when one is asked for: `import jscan` takes no time."""
        if name == "__all__" or not name.startswith("_"):
            public = _importlib.import_module("jscan._public")
            names = {known: getattr(public, known) for known in public.__all__}
            globals().update(names, __all__=public.__all__)
            if name in globals():
                return globals()[name]
        raise AttributeError(f"module 'jscan' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_sys.modules[__name__].__all__})


class _Moved(_types.ModuleType):
    """A module of version 0.1.0, for pickles; what was in it lies elsewhere."""

    def __getattr__(self, name: str) -> _Any:
        if name.startswith("__"):
            raise AttributeError(name)
        module = f"jscan.{_MOVED[self.__name__.removeprefix('jscan.')]}"
        return getattr(_importlib.import_module(module), name)


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
for _old in _MOVED:
    _sys.modules[f"{__name__}.{_old}"] = _Moved(f"{__name__}.{_old}")
