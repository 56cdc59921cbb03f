"""`linear_call`: a linear function that brings its transpose along.

It is `jax.custom_derivatives.linear_call` with the rules that one lacks: `vmap`, and
derivatives along its residuals. A loop that may stop needs both, because JAX cannot
transpose a `while_loop`: the linear part of its derivative is a loop, and so is the
transpose of that. This is the only primitive of the project.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from jscan._base.types import Leaf
from jscan._jax.jaxprs import run_jaxpr

Flat = Callable[[Sequence[Leaf], Sequence[Leaf]], list[Leaf]]  # (residuals, linear)

linear_call_p = Primitive("jscan_linear_call")
linear_call_p.multiple_results = True


def linear_call(
    push: Flat, pull: Flat, residuals: Sequence[Leaf], operands: Sequence[Leaf]
) -> list[Leaf]:
    """``push(residuals, operands)``, whose transpose is `pull`.

    Args:
        push: Linear in its second argument. It may close over nothing that is traced.
        pull: ``(residuals, cotangents of the results) -> cotangents of the operands``.
        residuals: What the map depends on.
        operands: What it is applied to.
    """
    types = [list(map(jax.typeof, part)) for part in (residuals, operands)]
    program = jax.make_jaxpr(push)(*types)
    return linear_call_p.bind(
        *residuals, *operands, jaxpr=program, pull=pull, residuals=len(residuals)
    )


def _run(*inputs: Leaf, jaxpr: Any, **_: Any) -> list[Leaf]:
    return run_jaxpr(jaxpr, *inputs)


def _differentiate(
    primals: Sequence[Leaf], tangents: Sequence[Any], **params: Any
) -> tuple[list[Leaf], list[Any]]:
    """Along fixed residuals the map is its own derivative; else JAX finds it."""
    count = params["residuals"]
    moving = [type(tangent) is not ad.Zero for tangent in tangents]
    if not any(moving[:count]):
        results = linear_call_p.bind(*primals, **params)
        rates = list(map(ad.instantiate_zeros, tangents[count:]))
        return results, linear_call_p.bind(*primals[:count], *rates, **params)

    def run(*live: Leaf) -> list[Leaf]:
        fresh = iter(live)
        values = zip(primals, moving, strict=True)
        return _run(*[next(fresh) if m else value for value, m in values], **params)

    live = [value for value, m in zip(primals, moving, strict=True) if m]
    rates = [rate for rate, m in zip(tangents, moving, strict=True) if m]
    return jax.jvp(run, live, rates)


def _transpose(
    cotangents: Sequence[Any], *inputs: Any, jaxpr: Any, pull: Flat, residuals: int
) -> list[Any]:
    """Pull cotangents back by the function that was given for it."""
    known, linear = inputs[:residuals], inputs[residuals:]
    if all(type(ct) is ad.Zero for ct in cotangents):
        return [None] * residuals + [ad.Zero(x.aval) for x in linear]
    pulled = pull(known, list(map(ad.instantiate_zeros, cotangents)))
    return [None] * residuals + list(pulled)


@dataclass(frozen=True)
class _ByLane:
    """A transpose for all lanes of a `vmap`; all cotangents have a lane axis."""

    pull: Flat
    axes: tuple[int | None, ...]
    settings: tuple[tuple[str, Any], ...]

    def __call__(self, residuals: Sequence[Leaf], cts: Sequence[Leaf]) -> list[Leaf]:
        axes = (list(self.axes), 0)
        return jax.vmap(self.pull, axes, **dict(self.settings))(list(residuals), cts)


def _batch(
    lanes: Any, inputs: Sequence[Leaf], axes: Sequence[int | None], **params: Any
) -> tuple[list[Leaf], list[int]]:
    """Both maps by lane; what is linear has a lane axis in every case."""
    count = params["residuals"]
    settings = {"axis_size": lanes.size, "spmd_axis_name": lanes.spmd_name}
    if isinstance(lanes.name, str):
        settings["axis_name"] = lanes.name
    operands = [
        batching.bdim_at_front(leaf, axis, lanes.size)
        for leaf, axis in zip(inputs[count:], axes[count:], strict=True)
    ]
    places = tuple(axes[:count])

    def push(residuals: Sequence[Leaf], operands: Sequence[Leaf]) -> list[Leaf]:
        def run(known: Sequence[Leaf], values: Sequence[Leaf]) -> list[Leaf]:
            return _run(*known, *values, **params)

        return jax.vmap(run, (list(places), 0), **settings)(residuals, operands)

    pull = _ByLane(params["pull"], places, tuple(settings.items()))
    results = linear_call(push, pull, list(inputs[:count]), operands)
    return results, [0] * len(results)


linear_call_p.def_impl(_run)
linear_call_p.def_abstract_eval(lambda *_, jaxpr, **__: jaxpr.out_avals)
mlir.register_lowering(linear_call_p, mlir.lower_fun(_run, multiple_results=True))
ad.primitive_jvps[linear_call_p] = _differentiate
ad.primitive_transposes[linear_call_p] = _transpose
batching.fancy_primitive_batchers[linear_call_p] = _batch
