"""Who may touch the values of shared variables, and when.

A call that updates variables holds their locks until the new values are stored. A call
that only reads lets go of them while its program runs, so that readers do not wait for
each other; but it stays counted, and a call that is about to overwrite a value in place
waits for the readers of that value.
"""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._shared import SharedVariable

_readers: Counter[SharedVariable] = Counter()
_changed = (
    threading.Condition()
)  # guards `_readers`; nothing is locked while it is held


@contextlib.contextmanager
def locked(variables: Iterable[SharedVariable]) -> Iterator[contextlib.ExitStack]:
    """Hold the locks of variables, taken in one order that all threads share."""
    with contextlib.ExitStack() as stack:
        for variable in sorted(set(variables), key=lambda v: v.serial):
            stack.enter_context(variable.lock)
        yield stack


@contextlib.contextmanager
def reading(variables: Iterable[SharedVariable]) -> Iterator[None]:
    """Count the caller among the readers; it holds the locks when it enters."""
    variables = tuple(variables)
    with _changed:
        _readers.update(variables)
    try:
        yield
    finally:
        with _changed:
            for variable in variables:
                _readers[variable] -= 1
                if not _readers[variable]:
                    del _readers[variable]
            _changed.notify_all()


def wait_for_readers(variables: Iterable[SharedVariable]) -> None:
    """Return when nobody reads the variables; the caller holds their locks."""
    variables = tuple(variables)
    with _changed:
        _changed.wait_for(lambda: not any(_readers[v] for v in variables))
