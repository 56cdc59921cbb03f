"""merge: nothing is carried, read or computed twice, or in vain.

* A carry nothing reads is dropped, with what only it needs.
* A carry that never changes becomes a constant.
* Two carries that start and continue alike become one.
* A sequence passed twice becomes one.
* A carry that adds a constant integer becomes a counter, whose value at each step is
  known beforehand: work that depends on the step number is then sequence work.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from jscan._jax.jaxprs import Atom, is_variable
from jscan._optimizer.record.cleanup import (
    drop_unused,
    resolve_finals,
    substitute,
)
from jscan._optimizer.record.context import Context
from jscan._optimizer.record.loop import Carry, Counter, Loop


def run(loop: Loop, context: Context) -> Loop:
    """Apply all rules of the pass."""
    del context
    loop = _unread_carries(loop)
    loop = _constant_carries(loop)
    loop = _same_sequences(loop)
    loop = _same_carries(loop)
    return _counters(_unread_carries(loop))


def _unread_carries(loop: Loop) -> Loop:
    kept = drop_unused(loop)
    dropped = len(loop.carries) - len(kept.carries)
    if not dropped:
        return kept
    return kept.fired(f"{_count(dropped, 'carry')} that nothing reads")


def _constant_carries(loop: Loop) -> Loop:
    same = [c for c in loop.carries if c.update is c.variable]
    if not same:
        return loop
    values = {carry.variable: carry.initial for carry in same}
    loop = replace(
        loop,
        carries=tuple(c for c in loop.carries if c.variable not in values),
        constants={**loop.constants, **values},
        results=resolve_finals(loop.results, values),
    )
    return loop.fired(f"{_count(len(same), 'carry')} that never changes")


def _same_sequences(loop: Loop) -> Loop:
    first: dict[int, Any] = {}
    names: dict[Any, Atom] = {}
    for variable, value in loop.sequences.items():
        kept = first.setdefault(id(value), variable)
        if kept is not variable:
            names[variable] = kept
    if not names:
        return loop
    return substitute(loop, names).fired(
        f"{_count(len(names), 'sequence')} passed twice"
    )


def _same_carries(loop: Loop) -> Loop:
    """Unite carries with one initial value and one update."""
    first: dict[tuple[int, int], Any] = {}
    names: dict[Any, Atom] = {}
    for carry in loop.carries:
        if not is_variable(carry.update):
            continue
        kept = first.setdefault((id(carry.initial), id(carry.update)), carry.variable)
        if kept is not carry.variable and kept.aval == carry.variable.aval:
            names[carry.variable] = kept
    if not names:
        return loop
    loop = replace(
        loop, carries=tuple(c for c in loop.carries if c.variable not in names)
    )
    return substitute(loop, names).fired(
        f"{_count(len(names), 'carry')} equal to another"
    )


def _counters(loop: Loop) -> Loop:
    found: dict[Any, Counter] = {}
    producers = {v: e for e in loop.equations for v in e.outvars}
    for carry in loop.carries:
        increment = _increment(carry, producers)
        if increment is not None:
            found[carry.variable] = Counter(carry.initial, increment)
    if not found:
        return loop
    values: dict[Any, Any] = {}
    rows: dict[Any, Any] = {}
    for variable, counter in found.items():
        dtype = variable.aval.dtype
        step = jnp.arange(loop.length, dtype=dtype)
        step = loop.length - 1 - step if loop.reverse else step
        initial = jax.lax.convert_element_type(counter.initial, dtype)
        increment = jnp.asarray(counter.increment, dtype)
        rows[variable] = initial + step * increment
        values[variable] = initial + jnp.asarray(loop.length, dtype) * increment
    return replace(
        loop,
        carries=tuple(c for c in loop.carries if c.variable not in found),
        sequences={**loop.sequences, **rows},
        counters={**(loop.counters or {}), **found},
        results=resolve_finals(loop.results, values),
    )


def _increment(carry: Carry, producers: Mapping[Any, Any]) -> int | None:
    """The constant a scalar integer carry grows by, if it does."""
    aval = carry.variable.aval
    equation = producers.get(carry.update) if is_variable(carry.update) else None
    if equation is None or equation.primitive.name != "add" or aval.shape:
        return None
    if aval.dtype not in (jnp.int32, jnp.int64, jnp.uint32, jnp.uint64):
        return None
    others = [atom for atom in equation.invars if atom is not carry.variable]
    if len(others) != 1 or is_variable(others[0]):
        return None
    return int(others[0].val)


def _count(number: int, noun: str) -> str:
    plural = {"carry": "carries"}.get(noun, noun + "s")
    return f"removed {number} {noun if number == 1 else plural}"
