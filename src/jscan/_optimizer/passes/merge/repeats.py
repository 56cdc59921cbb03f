"""merge: nothing is carried, read or computed twice, or in vain.

* A carry nothing reads is dropped, with what only it needs.
* A carry that never changes becomes a constant.
* Two carries that start and continue alike become one.
* A sequence passed twice becomes one.
* A carry that adds a constant integer becomes a counter, whose value at each step is
  known beforehand: work that depends on the step number is then sequence work.
"""

from dataclasses import replace
from typing import Any

import jax.numpy as jnp

from jscan._base.kinds import counted
from jscan._jax.jaxprs import Atom, is_variable
from jscan._optimizer.analysis.dependence import Dependence
from jscan._optimizer.record.cleanup import drop_unused, substitute, without_carries
from jscan._optimizer.record.context import Context
from jscan._optimizer.record.loop import Carry, Counter, Known, Loop, strong


def run(loop: Loop, _: Context) -> Loop:
    """Apply all of these, one after the other."""
    loop = _constant_carries(_unread_carries(loop))
    loop = _same_carries(_same_sequences(loop))
    return _counters(_unread_carries(loop))


def _unread_carries(loop: Loop) -> Loop:
    kept = drop_unused(loop)
    return _removed(kept, len(loop.carries) - len(kept.carries), "that nothing reads")


def _removed(loop: Loop, number: int, which: str, what: str = "carry") -> Loop:
    """The loop, which says how many of its carries or sequences are gone."""
    return loop.fired(f"removed {counted(number, what)} {which}") if number else loop


def _constant_carries(loop: Loop) -> Loop:
    same = {c.variable: c.initial for c in loop.carries if c.update is c.variable}
    kept = without_carries(loop, {v: Known(x) for v, x in same.items()})
    kept = replace(kept, constants={**loop.constants, **same})
    return _removed(kept, len(same), "that never changes")


def _same_sequences(loop: Loop) -> Loop:
    first: dict[int, Any] = {}
    kept = {v: first.setdefault(id(x), v) for v, x in loop.sequences.items()}
    names = {v: other for v, other in kept.items() if other is not v}
    return _removed(substitute(loop, names), len(names), "passed twice", "sequence")


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
    carries = tuple(c for c in loop.carries if c.variable not in names)
    loop = substitute(replace(loop, carries=carries), names)
    return _removed(loop, len(names), "equal to another")


def _counters(loop: Loop) -> Loop:
    dependence = Dependence(loop)
    found: dict[Any, Counter] = {}
    rows: dict[Any, Any] = {}
    ends: dict[Any, Any] = {}
    for carry in loop.carries:
        variable, increment = carry.variable, _increment(carry, dependence)
        if increment is None:
            continue
        found[variable] = Counter(carry.initial, increment)
        dtype = variable.aval.dtype
        step = jnp.arange(loop.length, dtype=dtype)
        step = loop.length - 1 - step if loop.reverse else step
        initial, each = strong(carry), jnp.asarray(increment, dtype)
        rows[variable] = initial + step * each
        ends[variable] = Known(initial + jnp.asarray(loop.length, dtype) * each)
    if not found:
        return loop
    return replace(
        without_carries(loop, ends),
        sequences={**loop.sequences, **rows},
        counters={**loop.counters, **found},
    )


def _increment(carry: Carry, dependence: Dependence) -> int | None:
    """The constant a scalar integer carry grows by, if it does."""
    aval = carry.variable.aval
    equation = dependence.producer(carry.update)
    if equation is None or equation.primitive.name != "add" or aval.shape:
        return None
    if aval.dtype not in (jnp.int32, jnp.int64, jnp.uint32, jnp.uint64):
        return None
    others = [atom for atom in equation.invars if atom is not carry.variable]
    if len(others) != 1 or is_variable(others[0]):
        return None
    return int(others[0].val)
