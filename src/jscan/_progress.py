"""Progress bars: one bar a loop, moved by one host callback a stretch of steps.

A loop with a bar is a bounded loop (`_bounded.py`) with a `Meter`: between reports it
is as tight as without one, and derivatives and `vmap` keep or drop the meter where they
make new loops. Reports come in their order, perhaps late; a bar only moves forwards.
"""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from ._errors import ScanImportError, ScanValueError, explain_error
from ._lanes import last_lane
from ._program import Program, open_jaxpr
from ._spec import Options
from ._turns import Turn, to_update
from ._types import Leaf, PyTree
from .optimize import flops


@dataclass(frozen=True)
class Bar:
    """A bar, whether or not it is open.

    Attributes:
        total: Steps of the loop, at most.
        settings: Options of `tqdm`.
        stride: Steps from one report to the next.
    """

    total: int
    settings: tuple[tuple[str, Any], ...]
    stride: int = 1


@dataclass(frozen=True)
class Meter:
    """What a bounded loop tells its bar.

    Attributes:
        bar: The bar.
        start: Steps of the bar before the loop's first one.
        size: Steps of the bar that one step of the loop makes.
        every: Steps of the loop from one report to the next.
        closes: True when the bar ends with the loop.
        counter: Which carried value counts the bar's steps, if not every step of the
            loop makes `size` of them.
    """

    bar: Bar
    start: int = 0
    size: int = 1
    every: int = 1
    closes: bool = True
    counter: int | None = None

    def report(
        self, count: Leaf, carry: Sequence[Leaf] = (), *, last: bool = False
    ) -> None:
        """Tell the bar, when the program gets here, how many steps are done.

        `jax.debug.callback` is the one effect that `jax.checkpoint` takes, and what
        it runs a second time does not call back again.

        Args:
            count: Steps of the loop.
            carry: The carried values.
            last: The loop is over.
        """
        done = self.start + self.size * count
        if self.counter is not None:
            done = self.start + last_lane(carry[self.counter])
        move = functools.partial(_move, self.bar, last=last)
        jax.debug.callback(move, jnp.asarray(done, jnp.int32))


def _move(bar: Bar, done: Leaf, *, last: bool) -> None:
    move_bar(bar, int(done), last=last)


def after(count: Leaf, results: PyTree) -> Leaf:
    """`count`, but known no sooner than `results`.

    The compiler may know how many steps a loop will have done, and would report it
    before the loop has run. It does not know that the number added here is zero.
    """
    known = [leaf for leaf in jax.tree.leaves(results) if leaf.size]
    known = [x for x in known if not jnp.issubdtype(x.dtype, jax.dtypes.extended)]
    if not known:
        return count
    number = jnp.real(known[0])
    is_whole = not any(jax.typeof(number).sharding.spec)  # on an Explicit mesh
    number = number.reshape(-1)[0] if is_whole else jnp.max(number)
    number = number.astype(jnp.int32)
    return count + last_lane((number & 1) >> 1)


FEWEST, MOST = 5, 100  # reports of a loop
PAUSE = 0.2  # seconds between them, about: each stops the loop for a millisecond


def plan_bar(n_steps: int, options: Options, step: Program | None = None) -> Bar | None:
    """The bar that the options ask for.

    A loop that will not take long makes few reports.

    Args:
        n_steps: Most steps of the loop.
        options: The options.
        step: The compiled step; without one every step is reported.
    """
    if options.progress is None:
        return None
    settings = {"desc": options.name or "scan", **dict(options.progress)}
    if step is None or not n_steps:
        return Bar(n_steps, tuple(settings.items()))
    reports = min(MOST, max(FEWEST, round(n_steps * _seconds(step) / PAUSE)))
    stride = settings.get("miniters") or -(-n_steps // reports)
    return Bar(n_steps, tuple(settings.items()), stride)


def _seconds(step: Program) -> float:
    """At least how long a step takes on a CPU core.

    Within a factor of twenty; too much would mean too many reports of a loop whose
    steps are a few nanoseconds long.
    """
    equations = open_jaxpr(step.jaxpr).eqns
    work = flops(equations)
    known = work if isinstance(work, int | float) else 0  # else of symbolic shapes
    return 1e-9 * len(equations) + known / 50e9


# ---------------------------------------------------------------------- on the host

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
        return tqdm_class(None)(total=bar.total, **settings)
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        raise ScanValueError(
            explain_error(
                None,
                f"progress, the bar {settings['desc']!r}",
                needed="options that tqdm takes",
                came=f"{settings}, of which it says: {error}",
                fix="leave the options out that it does not take",
            )
        ) from error


def move_bar(bar: Bar, done: int, *, last: bool = False) -> None:
    """Show `done` steps; the last report also closes the bar.

    A device may run callbacks in any order. Only the first and the last report open a
    bar, and a first one that comes after its last one does not.
    """
    with Turn(_BARS):
        if last:
            _end(bar, done)
        elif done == 0 and bar in _overtaken:
            _overtaken.remove(bar)
        elif done == 0:
            if bar in _open and _open[bar].n:
                close_bar(bar)  # of an earlier run that failed where nobody saw it
            open_bar(bar)
            _begun.add(bar)
        elif bar in _open and done > _open[bar].n:
            _open[bar].update(done - _open[bar].n)


def _end(bar: Bar, done: int) -> None:
    open_bar(bar)
    shown = _open[bar]
    if done > shown.n:
        shown.update(done - shown.n)
    shown.total = shown.n  # a loop that stopped early is complete
    if done and bar not in _begun:
        _overtaken.add(bar)
    close_bar(bar)


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


@functools.lru_cache(maxsize=1)
def tqdm_class(name: str | None) -> Any:
    """The bar class of `tqdm` for a terminal or a notebook."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a notebook without widgets shows text
            from tqdm.auto import tqdm
    except ImportError as error:
        raise ScanImportError(
            explain_error(
                name,
                "progress",
                needed="the package tqdm",
                came="a Python without it",
                fix="pip install 'jscan[progress]', or leave progress out",
            )
        ) from error
    return tqdm
