"""Programs derived from programs: derivative, linear part, transpose, batch, pruning.

Every function here is a pure map from `Program` to `Program`, cached by structure, so
a fresh lambda under `jax.grad` finds what the last one derived.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
from jax.core import eval_jaxpr
from jax.extend.core import ClosedJaxpr  # pyright: ignore[reportPrivateImportUsage]
from jax.extend.core.primitives import broadcast_in_dim_p
from jax.interpreters import partial_eval

from ._program import Program, as_structs, open_jaxpr
from ._types import Leaf
from .optimize import Options, store_less

CACHE_SIZE = 512
P = ParamSpec("P")
R = TypeVar("R")


def cached(derive: Callable[P, R]) -> Callable[P, R]:
    """A bounded cache keyed by the arguments and by the modes that steer tracing."""

    @functools.lru_cache(maxsize=CACHE_SIZE)
    def lookup(modes: tuple[Any, ...], *args: Any) -> R:
        return derive(*args)  # type: ignore[call-arg]

    @functools.wraps(derive)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        return lookup(_tracing_modes(), *args)

    wrapper.cache_clear = lookup.cache_clear  # type: ignore[attr-defined]
    wrapper.cache_info = lookup.cache_info  # type: ignore[attr-defined]
    return wrapper


def _tracing_modes() -> tuple[Any, ...]:
    config = jax.config
    return (
        config.jax_enable_x64,  # type: ignore[attr-defined]
        config.jax_default_matmul_precision,  # type: ignore[attr-defined]
        config.jax_numpy_dtype_promotion,  # type: ignore[attr-defined]
    )


def is_differentiable(aval: Any) -> bool:
    """True for an abstract value that has a tangent of its own type."""
    return jnp.issubdtype(aval.dtype, jnp.inexact)


# ---------------------------------------------------------------------------- forward


@cached
def jvp(program: Program, moving: tuple[bool, ...]) -> Program:
    """``(inputs, tangents of the moving inputs) -> (outputs, their tangents)``.

    Tangents come for the differentiable outputs only. Nothing is stored per step:
    this is the forward mode whose memory does not grow with the loop.
    """
    inexact = [is_differentiable(aval) for aval in program.out_avals]

    def joint(inputs: Sequence[Leaf], tangents: Sequence[Leaf]) -> list[Leaf]:
        primals = _pick(inputs, moving)
        outputs, rates = jax.jvp(
            lambda *live: program(*_fill(inputs, moving, live)), primals, list(tangents)
        )
        return [*outputs, *_pick(rates, inexact)]

    inputs = as_structs(program.in_avals)
    return Program.trace(joint, inputs, _pick(inputs, moving))


# ---------------------------------------------------------------------------- reverse

Source = tuple[Literal["input", "output", "residual"], int]


@dataclass(frozen=True)
class Linearized:
    """A program split into what is known and what is linear in the tangents.

    Attributes:
        forward: ``inputs -> outputs + residuals``.
        linear: ``(residuals, moving tangents) -> tangents of differentiable outputs``.
        sources: For each residual that `linear` reads, where it comes from. Inputs and
            outputs are used in place instead of being returned twice.
    """

    forward: Program
    linear: Program
    sources: tuple[Source, ...]


@cached
def linearize(program: Program, moving: tuple[bool, ...]) -> Linearized:
    """Split `program` at `moving` inputs into forward and linear programs."""
    inputs = as_structs(program.in_avals)
    inexact = [is_differentiable(aval) for aval in program.out_avals]
    tangents = _pick(inputs, moving)
    linear_body: list[Any] = []

    def forward(*values: Leaf) -> list[Leaf]:
        def live(*moving_values: Leaf) -> tuple[list[Leaf], list[Leaf]]:
            outputs = program(*_fill(values, moving, moving_values))
            return _pick(outputs, inexact), _pick(outputs, [not i for i in inexact])

        smooth, push, discrete = jax.linearize(
            live, *_pick(values, moving), has_aux=True
        )
        closed = jax.make_jaxpr(lambda *rates: push(*rates))(*tangents)
        linear_body.append(open_jaxpr(closed))
        return [*_merge(smooth, discrete, inexact), *closed.consts]

    traced = jax.make_jaxpr(forward)(*inputs)
    kept, sources = _residual_sources(open_jaxpr(traced), len(program.out_avals))
    body = linear_body[0]
    residuals = as_structs([variable.aval for variable in body.constvars])

    def linear(known: Sequence[Leaf], rates: Sequence[Leaf]) -> list[Leaf]:
        return eval_jaxpr(body, known, *rates)

    return Linearized(
        forward=_select_outputs(traced, kept),
        linear=Program.trace(linear, residuals, tangents),
        sources=sources,
    )


@cached
def with_fewer_residuals(
    split: Linearized, outputs: int, options: Options
) -> Linearized:
    """The same split with fewer residuals, where the optimizer can compute some.

    Args:
        split: A program that was split.
        outputs: The number of its outputs.
        options: How its loops are rewritten.
    """
    parts = open_jaxpr(split.forward.jaxpr), open_jaxpr(split.linear.jaxpr)
    platform = jax.default_backend()
    less = store_less(*parts, split.sources, outputs, options, platform)
    if less is None:
        return split
    forward, linear, sources = less
    every = [True] * len(forward.outvars)
    forward, _ = partial_eval.dce_jaxpr(forward, every, instantiate=True)
    return Linearized(Program(_closed(forward)), Program(_closed(linear)), sources)


def _residual_sources(
    jaxpr: Any, outputs: int
) -> tuple[list[bool], tuple[Source, ...]]:
    """Which outputs of the forward jaxpr to keep, and where each residual is found."""
    seen: dict[Any, Source] = {}
    for index, variable in enumerate(jaxpr.invars):
        seen[variable] = ("input", index)
    for index, atom in enumerate(jaxpr.outvars[:outputs]):
        if not hasattr(atom, "val"):
            seen.setdefault(atom, ("output", index))
    keep, sources, residuals = [True] * outputs, [], 0
    for atom in jaxpr.outvars[outputs:]:
        key = _key(atom)
        keep.append(key not in seen)
        if key not in seen:
            seen[key] = ("residual", residuals)
            residuals += 1
        sources.append(seen[key])
    return keep, tuple(sources)


@cached
def transpose(
    program: Program, linear: tuple[bool, ...], wanted: tuple[bool, ...]
) -> Program:
    """``(other inputs, cotangents of wanted outputs) -> cotangents of linear inputs``.

    `program` is linear in its inputs marked `linear`; outputs that are not `wanted`
    have cotangent zero and are left out of the computation altogether.
    """
    inputs = as_structs(program.in_avals)
    cotangents = _pick(as_structs(program.out_avals), wanted)
    known = [not is_linear for is_linear in linear]
    pruned, used = prune(program, wanted)

    def pull(values: Sequence[Leaf], incoming: Sequence[Leaf]) -> list[Leaf]:
        def push(*rates: Leaf) -> list[Leaf]:
            return pruned(*_pick(_merge(rates, values, linear), used))

        pulled = jax.linear_transpose(push, *_pick(inputs, linear))(list(incoming))
        return list(pulled)

    return Program.trace(pull, _pick(inputs, known), cotangents)


# ---------------------------------------------------------------------- batch and prune


@cached
def batch(
    program: Program, axes: tuple[int | None, ...], size: int
) -> tuple[Program, tuple[bool, ...]]:
    """The program over a batch of inputs along `axes`.

    Returns:
        The batched program, and which of its outputs have a batch axis 0; the others
        do not depend on the batch and are returned once.
    """
    inputs = [
        struct
        if axis is None
        else jax.ShapeDtypeStruct(
            (*struct.shape[:axis], size, *struct.shape[axis:]), struct.dtype
        )
        for struct, axis in zip(as_structs(program.in_avals), axes, strict=True)
    ]
    closed = jax.make_jaxpr(jax.vmap(program, in_axes=axes, axis_size=size))(*inputs)
    body = open_jaxpr(closed)
    single = _broadcast_sources(body.eqns, size)
    outputs = [single.get(_key(atom), atom) for atom in body.outvars]
    batched = [_key(atom) not in single for atom in body.outvars]
    jaxpr = body.replace(outvars=outputs)
    jaxpr, _ = partial_eval.dce_jaxpr(jaxpr, [True] * len(outputs), instantiate=True)
    return Program.close(_closed(jaxpr, closed.consts))[0], tuple(batched)


def _broadcast_sources(equations: Sequence[Any], size: int) -> dict[Any, Any]:
    """Values that only repeat another value along a new axis 0, with that value."""
    sources = {}
    for equation in equations:
        if equation.primitive is not broadcast_in_dim_p:
            continue
        operand, result = equation.invars[0], equation.outvars[0]
        shape = result.aval.shape
        kept = tuple(range(1, len(shape)))
        if (
            shape == (size, *operand.aval.shape)
            and equation.params["broadcast_dimensions"] == kept
        ):
            sources[_key(result)] = operand
    return sources


def _key(atom: Any) -> Any:
    return id(atom) if hasattr(atom, "val") else atom


@cached
def prune(
    program: Program, wanted: tuple[bool, ...]
) -> tuple[Program, tuple[bool, ...]]:
    """The program with only the wanted outputs, and which inputs it still reads."""
    jaxpr, used = partial_eval.dce_jaxpr(open_jaxpr(program.jaxpr), list(wanted))
    return Program(_closed(jaxpr)), tuple(used)


def _select_outputs(closed: Any, kept: list[bool]) -> Program:
    """The traced program with some outputs left out and every input kept."""
    body = open_jaxpr(closed)
    jaxpr, _ = partial_eval.dce_jaxpr(body, kept, instantiate=True)
    return Program.close(_closed(jaxpr, closed.consts))[0]


def _closed(jaxpr: Any, constants: Sequence[Any] = ()) -> Any:
    """A closed jaxpr; on new JAX versions a plain one is closed already."""
    if ClosedJaxpr is type(jaxpr) and not constants:
        return jaxpr
    return ClosedJaxpr(jaxpr, list(constants))


def _pick(values: Sequence[Any], mask: Sequence[bool]) -> list[Any]:
    return [value for value, wanted in zip(values, mask, strict=True) if wanted]


def _fill(
    values: Sequence[Leaf], mask: Sequence[bool], replacements: Sequence[Leaf]
) -> list[Leaf]:
    fresh = iter(replacements)
    return [
        next(fresh) if replaced else value
        for value, replaced in zip(values, mask, strict=True)
    ]


def _merge(
    marked: Sequence[Leaf], others: Sequence[Leaf], mask: Sequence[bool]
) -> list[Leaf]:
    first, second = iter(marked), iter(others)
    return [next(first) if is_marked else next(second) for is_marked in mask]
