"""Progress bars: one bar a loop, moved by one host callback a chunk.

The compiled loop reports the steps it has done through `tick_p`, a primitive with a
debugging effect: `vmap` turns the lanes' reports into one (that of the furthest lane),
and no derivative and no recomputation repeats it. Reports may arrive late or out of
order; a bar only moves forwards.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from ._errors import ScanImportError, explain_error
from ._program import Program, open_jaxpr
from ._spec import Options
from ._types import Leaf, PyTree
from .optimize import flops

tick_p = Primitive("jscan_tick")
tick_p.multiple_results = True


@dataclass(frozen=True)
class Bar:
    """A bar, whether or not it is open.

    Attributes:
        total: Steps of the loop, at most.
        settings: Options of `tqdm`.
        stride: Steps from one report to the next.
        chunk: Steps of an inner loop, of which `stride` is a multiple.
    """

    total: int
    settings: tuple[tuple[str, Any], ...]
    stride: int = 1
    chunk: int = 1


FEWEST, MOST = 10, 100  # reports of a loop
PAUSE = 0.1  # seconds between them, about: `tqdm` does not draw more often
CHUNK_BYTES = 2**17  # rows of a chunk: they are copied once more, so from a cache


def plan_bar(n_steps: int, options: Options, step: Program | None = None) -> Bar | None:
    """The bar that the options ask for.

    A report interrupts the compiled loop for up to a millisecond, so a loop that
    will not take long makes few of them.

    Args:
        n_steps: Most steps of the loop.
        options: The options.
        step: The compiled step; without one every step is reported.
    """
    if options.progress is None:
        return None
    settings = {"desc": options.name or "scan", **dict(options.progress)}
    bar = Bar(n_steps, tuple(settings.items()))
    if step is None or not n_steps:
        return bar
    reports = min(MOST, max(FEWEST, round(n_steps * _seconds(step) / PAUSE)))
    stride = settings.get("miniters") or -(-n_steps // reports)
    row = sum(aval.size * aval.dtype.itemsize for aval in step.out_avals)
    chunks = -(-stride // max(1, CHUNK_BYTES // max(1, row)))
    chunk = -(-stride // chunks)
    return dataclasses.replace(bar, stride=chunks * chunk, chunk=chunk)


def _seconds(step: Program) -> float:
    """About how long a step takes on a CPU core."""
    equations = open_jaxpr(step.jaxpr).eqns
    return 1e-7 + 2e-8 * len(equations) + flops(equations) / 50e9


# ---------------------------------------------------------------------- on the host

_open: dict[Bar, Any] = {}
_lock = threading.RLock()


def open_bar(bar: Bar) -> None:
    """Show an empty bar, unless it is on the screen already."""
    with _lock:
        if bar not in _open:
            _open[bar] = tqdm_class(None)(total=bar.total, **dict(bar.settings))


def move_bar(bar: Bar, done: int, *, last: bool = False) -> None:
    """Show `done` steps; the last report also closes the bar."""
    with _lock:
        if done == 0 and not last and bar in _open and _open[bar].n:
            close_bar(bar)  # of an earlier run that failed where nobody could see it
        open_bar(bar)
        shown = _open[bar]
        if done > shown.n:
            shown.update(done - shown.n)
        if last:
            shown.total = shown.n  # a loop that stopped early is complete
            close_bar(bar)


def close_bar(bar: Bar) -> None:
    """Take the bar off, if it is there."""
    with _lock:
        shown = _open.pop(bar, None)
        if shown is not None:
            shown.refresh()
            shown.close()


@contextlib.contextmanager
def closed_on_error() -> Iterator[None]:
    """Around a call that may run loops: an error closes the bars they opened."""
    before = set(_open)
    try:
        yield
    except BaseException:
        for bar in set(_open) - before:
            close_bar(bar)
        raise


@contextlib.contextmanager
def running(bar: Bar | None) -> Iterator[None]:
    """Around an eager call: opened before the first step, closed on any error."""
    with closed_on_error():
        if bar is None:
            yield
            return
        open_bar(bar)
        try:
            yield
            jax.effects_barrier()  # the last report
        finally:
            close_bar(bar)


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


# ------------------------------------------------------------------- in the program


def tick(
    bar: Bar, done: Leaf, *, start: int = 0, every: int = 1, last: bool = False
) -> None:
    """Report `done` steps when the program gets here, if it is time to.

    Args:
        bar: The bar.
        done: Steps done.
        start: Steps of the bar before the loop's first one.
        every: Report only multiples of so many steps after `start`.
        last: Close the bar.
    """
    done = jnp.asarray(done, jnp.int32)
    tick_p.bind(done, bar=bar, start=start, every=every, last=last)


def after(done: Leaf, results: PyTree) -> Leaf:
    """`done`, but known no sooner than `results`.

    The compiler knows how many steps a loop will have done and would report it before
    the loop has run. It does not know that the number added here is zero.
    """
    leaves = [jax.lax.stop_gradient(leaf) for leaf in jax.tree.leaves(results)]
    known = [leaf for leaf in leaves if leaf.size and not _is_key(leaf)]
    if not known:
        return done
    number = jnp.real(known[0]).reshape(-1)[0].astype(jnp.int32)
    return done + ((number & 1) >> 1)


def _is_key(leaf: Leaf) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.extended)


def _report(done: Leaf, *, bar: Bar, start: int, every: int, last: bool) -> list[Leaf]:
    def report(done: Leaf) -> None:
        jax.debug.callback(lambda done: move_bar(bar, int(done), last=last), done)

    if every == 1:
        report(done)
    else:
        due = (done - start) % every == 0
        jax.lax.cond(due, report, lambda _: None, done)
    return []


def _evaluate(
    done: Leaf, *, bar: Bar, start: int, every: int, last: bool
) -> list[Leaf]:
    if (int(done) - start) % every == 0:
        move_bar(bar, int(done), last=last)
    return []


@functools.lru_cache(maxsize=1)
def _effects() -> Any:
    """The effect of `jax.debug.callback`, which every transformation knows."""
    return jax.make_jaxpr(lambda x: jax.debug.callback(lambda _: None, x))(0).effects


def _abstract(_: Any, **__: Any) -> tuple[list[Any], Any]:
    return [], _effects()


def _differentiate(primals: Any, _: Any, **params: Any) -> tuple[list[Any], list[Any]]:
    tick_p.bind(*primals, **params)
    return [], []


def _batch(inputs: Any, axes: Any, **params: Any) -> tuple[list[Any], list[Any]]:
    tick_p.bind(inputs[0].max(axes[0]), **params)
    return [], []


tick_p.def_impl(_evaluate)
tick_p.def_effectful_abstract_eval(_abstract)
mlir.register_lowering(tick_p, mlir.lower_fun(_report, multiple_results=True))
ad.primitive_jvps[tick_p] = _differentiate
batching.primitive_batchers[tick_p] = _batch
