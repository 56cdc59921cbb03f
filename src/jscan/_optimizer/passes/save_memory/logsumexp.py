"""save_memory, logsumexp: that of rows over time is kept, not the rows.

`jax.nn.logsumexp` finds the maximum of the rows, and then sums their exponentials
relative to it. The loop does both at once: it carries the maximum so far and the sum
relative to *that*, which is scaled anew where the maximum grows. What the program does
with maximum and sum afterwards (the logarithm, the case of no finite row) stays as it
is written, so infinities and NaN come out as they did.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from jscan._jax.equations import needed, splice, unique_variables
from jscan._jax.jaxprs import Atom, is_variable, open_jaxpr, stack_bytes, variable_like
from jscan._jax.structure import equation_key, value_key
from jscan._optimizer.costs.machine import LONGEST_ROUNDING, keeps_logsumexp_rows
from jscan._optimizer.passes.save_memory.last_row import stays_stacked
from jscan._optimizer.record.context import Context
from jscan._optimizer.record.inlining import inline_calls, is_plain_call
from jscan._optimizer.record.loop import Carry, Final, Loop, Stack

_MAKES_CONSTANT = frozenset({"stop_gradient", "broadcast_in_dim"})


def run(loop: Loop, context: Context) -> Loop:
    """Carry what the logsumexp of a stacked output needs."""
    for name, result in list(loop.results.items()):
        readers = context.consumers.get(name)
        if not isinstance(result, Stack) or not readers:
            continue
        found = _find(name, readers, context)
        if found is None:
            continue
        why = _refusal(loop, name, result.atom, found, context)
        if why is None:
            loop = _carry(loop, name, result.atom, found)
        else:
            loop = loop.refused(f"the rows of a logsumexp are kept: {why}")
    return loop


def _find(rows: Any, readers: Sequence[Any], context: Context) -> list[Any] | None:
    """The logsumexp over time that reads the rows, from its maximum to its sum."""
    for maximum in readers:
        if maximum.primitive.name != "reduce_max" or 0 not in maximum.params["axes"]:
            continue
        for keepdims in (False, True):
            found = _match(rows, maximum, keepdims, context)
            if found:
                return found
    return None


def _template(rows: Any, axes: tuple[int, ...], keepdims: bool) -> tuple[Any, list]:
    """The variable of the rows and the equations up to the sum, as JAX writes them."""
    logsumexp = functools.partial(jax.nn.logsumexp, axis=axes, keepdims=keepdims)
    aval = jax.ShapeDtypeStruct(rows.aval.shape, rows.aval.dtype)
    jaxpr, _ = open_jaxpr(jax.make_jaxpr(logsumexp)(aval))
    equations, _ = inline_calls(jaxpr.eqns, is_plain_call)
    sums = [e for e in equations if e.primitive.name == "reduce_sum"]
    return jaxpr.invars[0], needed(equations, sums[0].outvars) if sums else []


def _match(
    rows: Any, maximum: Any, keepdims: bool, context: Context
) -> list[Any] | None:
    """Follow the readers of the rows along the equations of the template.

    Comparing with what JAX itself writes needs no knowledge of its version.
    """
    start, template = _template(rows, tuple(maximum.params["axes"]), keepdims)
    made = {v: e for e in template for v in e.outvars}
    names: dict[Any, Any] = {start: rows}
    here: list[Any] = []
    for wanted in template:
        known = [v for v in unique_variables(wanted.invars) if v in names]
        if not known:
            continue  # a constant: compared where it is read
        readers = context.consumers.get(names[known[0]]) or ()
        if not here:
            readers = (maximum,)
        key = _key(wanted, made, names.get)
        alike = [e for e in readers if _key(e, context.producers) == key]
        if len(alike) != 1:
            return None
        here += alike
        names.update(zip(wanted.outvars, alike[0].outvars, strict=True))
    return here


def _key(
    equation: Any,
    producers: Mapping[Any, Any],
    name: Callable[[Any], Any] = lambda variable: variable,
) -> Any:
    """What the equation does to which variables of the program, as a key."""

    def operand(atom: Atom) -> Any:
        if not is_variable(atom):
            return (value_key(atom), atom.aval.dtype)
        producer = producers.get(atom)
        if producer is not None and not any(map(is_variable, producer.invars)):
            return equation_key(producer, operand)
        return id(name(atom))

    return equation_key(equation, operand)


def _refusal(
    loop: Loop, name: Any, atom: Any, found: Sequence[Any], context: Context
) -> str | None:
    """Why the rows are stored all the same, if so."""
    *before, total = found
    # Anything may read the maximum once it is a constant.
    inner = [e for e in before if e.primitive.name not in _MAKES_CONSTANT]
    inside = {name, *(v for e in inner for v in e.outvars)}
    for variable in inside:
        readers = context.consumers.get(variable)
        if readers is None or not set(map(id, readers)) <= set(map(id, found)):
            return "they, or what is made of them, are read otherwise too"
    if not jnp.issubdtype(atom.aval.dtype, jnp.floating):
        return "they are not real numbers"
    why = stays_stacked(loop, atom, context)
    if why is not None:
        return why
    rounding = loop.length * float(jnp.finfo(total.outvars[0].aval.dtype).eps)
    if rounding > LONGEST_ROUNDING:
        return f"the rounding of {loop.length} sums in a row would add up"
    size = stack_bytes([atom], loop.length)
    return keeps_logsumexp_rows(loop.equations, size, context.budget)


def _carry(loop: Loop, name: Any, atom: Any, found: Sequence[Any]) -> Loop:
    (peak,), (total,) = found[0].outvars, found[-1].outvars
    axes = tuple(axis - 1 for axis in found[0].params["axes"] if axis)
    variables = [variable_like(peak), variable_like(total)]
    updates = [variable_like(peak), variable_like(total)]
    starts = [
        jnp.full(peak.aval.shape, -jnp.inf, peak.aval.dtype),
        jnp.zeros(total.aval.shape, total.aval.dtype),
    ]
    equations = splice(
        functools.partial(_step, axes), [*variables, atom], found[0], updates
    )
    loop = replace(
        loop,
        carries=(*loop.carries, *map(Carry, variables, updates, starts)),
        equations=(*loop.equations, *equations),
    )
    loop = loop.with_results(
        name, dict(zip((peak, total), map(Final, variables), strict=True))
    )
    row_type = atom.aval.str_short()
    return loop.fired(f"logsumexp of {row_type} over time is kept, not rows")


def _step(axes: tuple[int, ...], peak: Any, total: Any, row: Any) -> tuple[Any, Any]:
    """One more row: the maximum so far, and the sum of exponentials relative to it.

    As in `jax.nn.logsumexp`, the maximum is a constant to derivatives, and zero takes
    its place in the exponent where it is not finite.
    """
    kept_axes = [axis for axis in range(row.ndim) if axis not in axes]
    top = jax.lax.max(peak, jnp.max(row, axes) if axes else row)
    top = jax.lax.stop_gradient(top)
    shift = jax.lax.select(jax.lax.is_finite(top), top, jax.lax.full_like(top, 0))
    # Equal infinities have no difference; nothing is to be scaled there. The type is
    # that of the sum: for 16-bit rows the rounding of the scales would add up.
    grown = jax.lax.convert_element_type(peak - top, total.dtype)
    scale = jax.lax.exp(grown)
    scale = jax.lax.select(peak == top, jax.lax.full_like(scale, 1), scale)
    terms = jax.lax.exp(row - jax.lax.broadcast_in_dim(shift, row.shape, kept_axes))
    terms = jax.lax.convert_element_type(terms, total.dtype)
    return top, total * scale + (jnp.sum(terms, axes) if axes else terms)
