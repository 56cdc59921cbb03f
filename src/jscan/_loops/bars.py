"""Bars on the screen, moved from whatever thread a report comes in."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax

from jscan._base.caches import cached
from jscan._base.errors import ScanImportError, ScanValueError
from jscan._base.turns import Turn, to_update


@dataclass(frozen=True)
class Bar:
    """A bar, whether or not it is open."""

    total: int  # steps of the loop, at most
    settings: tuple[tuple[str, Any], ...]  # options of `tqdm`
    stride: int = 1  # steps from one report to the next


_open: dict[Bar, Any] = {}
_begun: set[Bar] = set()  # whose loop has told of its beginning, not yet of its end
_overtaken: set[Bar] = set()  # whose loop has told of its end first
_BARS = to_update(("the bars on the screen",))


def open_bar(bar: Bar) -> None:
    """Show an empty bar, unless it is on the screen already."""
    with Turn(_BARS):
        if bar not in _open:
            _open[bar] = _made(bar)


def _made(bar: Bar) -> Any:
    settings = dict(bar.settings)
    try:
        return tqdm_class()(total=bar.total, **settings)
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        raise ScanValueError(
            f"progress, the bar {settings['desc']!r}",
            needed="options that tqdm takes",
            came=f"{settings}, of which it says: {error}",
            fix="leave the options out that it does not take",
        ) from None


def move_bar(bar: Bar, done: int, *, last: bool = False) -> None:
    """Show `done` steps; the last report also closes the bar.

    A device may run callbacks in any order. Only the first and the last report open a
    bar, and a first one that comes after its last one does not.
    """
    with Turn(_BARS):
        if last:
            open_bar(bar)
            shown = _open[bar]
            if done > shown.n:
                shown.update(done - shown.n)
            shown.total = shown.n  # a loop that stopped early is complete
            if done and bar not in _begun:
                _overtaken.add(bar)
            close_bar(bar)
        elif done == 0 and bar in _overtaken:
            _overtaken.remove(bar)
        elif done == 0:
            if bar in _open and _open[bar].n:
                close_bar(bar)  # of an earlier run that failed where nobody saw it
            open_bar(bar)
            _begun.add(bar)
        elif bar in _open and done > _open[bar].n:
            _open[bar].update(done - _open[bar].n)


def close_bar(bar: Bar) -> None:
    """Take the bar off, if it is there."""
    with Turn(_BARS):
        _begun.discard(bar)
        shown = _open.pop(bar, None)
        if shown is not None:
            shown.refresh()
            shown.close()


def opened() -> frozenset[Bar]:
    """The bars on the screen."""
    return frozenset(_open)


def close_since(before: frozenset[Bar]) -> None:
    """Take off the bars that were opened since; a call that failed does so."""
    for bar in opened() - before:
        close_bar(bar)


@contextlib.contextmanager
def running(bar: Bar | None) -> Iterator[None]:
    """Around an eager call: opened before the first step, closed on any error."""
    before = opened()
    try:
        if bar is not None:
            open_bar(bar)
        yield
        if bar is not None:
            jax.effects_barrier()  # the last report
            close_bar(bar)
    except BaseException:
        close_since(before)
        raise


@cached
def tqdm_class() -> Any:
    """The bar class of `tqdm` for a terminal or a notebook."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a notebook without widgets shows text
            from tqdm.auto import tqdm
    except ImportError as error:
        raise ScanImportError(
            "progress",
            needed="the package tqdm",
            came="a Python without it",
            fix="pip install 'jscan[progress]', or leave progress out",
        ) from error
    return tqdm
