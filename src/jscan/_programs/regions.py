"""Run a computation as a region: a `jax.jit` that the optimizer rewrites.

JAX differentiates, batches, shards and checks it by its own rules, forward and
backward, and keeps the marked name by which the optimizer knows it where it is lowered
(`_jax/marks.py`). What is to be run is looked up by its structure, so that an
eager call with a fresh lambda finds the executable, and JAX the derivative, of the last
one.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Protocol

import jax

from jscan import _optimizer
from jscan._base.caches import cached
from jscan._base.types import Leaf
from jscan._jax.jaxprs import open_jaxpr, run_jaxpr
from jscan._jax.traces import is_staging
from jscan._jax.types import is_traced
from jscan._optimizer import (
    PLAIN,
    Options,
    enabled,
    has_loops,
    marked,
    plans,
)
from jscan._programs.program import Program

UNASKED = Options(unasked=True)

_anew: ContextVar[bool] = ContextVar("anew", default=False)


class Computation(Protocol):
    """What a region computes; equal ones also have the same derivative rules."""

    @property
    def run_key(self) -> Hashable:
        """Computations of equal keys have the same values; they are looked up by it."""
        ...

    def __call__(self, *inputs: Leaf) -> list[Leaf]: ...

    def __hash__(self) -> int: ...


def usual_options(optimized: bool) -> Options | None:
    """How a loop of ours is rewritten where the user says no more than its mode.

    By all rules that keep rounding close; `None` if the loop is never rewritten.
    """
    if not optimized or not enabled():
        return None
    return _optimizer.chosen(UNASKED) if plans() else UNASKED


def run_region(
    computation: Computation, inputs: Sequence[Leaf], options: Options | None
) -> list[Leaf]:
    """Compute flat results; `options` say what is rewritten, `None`: nothing."""
    if is_staging():
        region = _region.__wrapped__ if _anew.get() else _region
        return region(computation, options)(*inputs)
    if any(map(is_traced, inputs)):
        return _entry(computation, options)(*inputs)
    return executable(computation, options)(*inputs)


@contextmanager
def traced_anew() -> Iterator[None]:
    """Regions of a trace in the block bear the user's lines of this very call.

    Elsewhere they are shared with what computed the same before, on other lines.
    """
    token = _anew.set(True)
    try:
        yield
    finally:
        _anew.reset(token)


def executable(
    computation: Computation, options: Options | None
) -> Callable[..., list[Leaf]]:
    """The jitted computation, shared by all that compute the same."""
    return _entry(_ByValue(computation.run_key, computation), options)


def evaluate_rewritten(
    program: Program, inputs: Sequence[Leaf], options: Options | None
) -> list[Leaf]:
    """The results of a traced program, whose loops are rewritten.

    Without `options` each of them is rewritten as it says itself.
    """
    if options is None or not has_loops(program.jaxpr):
        return program(*inputs)
    results = run_region(program, inputs, options)
    # What only passes through stays itself, for which JAX has rules of its own.
    body, _ = open_jaxpr(program.jaxpr)
    same = dict(zip(map(id, body.invars), inputs, strict=True))
    return [same.get(id(v), x) for v, x in zip(body.outvars, results, strict=True)]


@dataclass(frozen=True)
class _ByValue:
    """A computation that compares by what it computes, derivative rules aside."""

    run_key: Hashable
    computation: Computation = field(compare=False)

    def __call__(self, *inputs: Leaf) -> list[Leaf]:
        return self.computation(*inputs)


@cached
def _region(
    computation: Computation, options: Options | None
) -> Callable[..., list[Leaf]]:
    def region(*inputs: Leaf) -> list[Leaf]:
        if options is None:
            return computation(*inputs)
        written = jax.make_jaxpr(computation)(*inputs)
        program = _optimizer.storing_less(written, options)
        return run_jaxpr(program, *inputs)

    return marked(region, options.name if options else PLAIN)


@cached
def _entry(
    computation: Computation, options: Options | None
) -> Callable[..., list[Leaf]]:
    """A region in a `jit` of its own: JAX lowers only inner ones by a rule."""

    def jscan(*inputs: Leaf) -> list[Leaf]:
        return _region(computation, options)(*inputs)

    return jax.jit(jscan)
