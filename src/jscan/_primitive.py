"""A loop program as one JAX primitive, with all of JAX's transformations.

`loop_p` computes a `Program`. Bound eagerly, it runs an executable found by structure,
so that a fresh lambda does not recompile. Under `jit` it lowers to the program itself,
and this is the place where the scan optimizer sees a loop *after* differentiation:
`jax.grad` turns a `loop_p` into a forward and a backward `loop_p`.

How the derivative rules fit together:

* forward mode: `loop_p(jvp(program))`, which stores nothing per step;
* reverse mode: JAX splits that joint program at its known inputs, and `_split_known`
  answers with `loop_p(forward)` and `linear_p(linear)`;
* the transpose of `linear_p` is `loop_p(transpose(linear))`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir, partial_eval

from . import _derive
from ._program import Program
from ._silent import silent
from ._types import Leaf, is_traced
from .optimize import Options, enabled, register_call, rewrite

UNASKED = Options(unasked=True)

loop_p = Primitive("jscan_loop")
loop_p.multiple_results = True
linear_p = Primitive("jscan_linear")
linear_p.multiple_results = True


@dataclass(frozen=True)
class Joint:
    """Says that a program is the `jvp` of `base` at its `moving` inputs."""

    base: Program
    moving: tuple[bool, ...]


def usual_options(optimized: bool) -> Options | None:
    """How a loop of ours is rewritten where the user says no more than its mode.

    Returns:
        All passes that keep rounding close; `None` if the loop is never rewritten.
    """
    return UNASKED if optimized and enabled() else None


def run_program(
    program: Program, inputs: Sequence[Leaf], options: Options | None
) -> list[Leaf]:
    """Compute a program: eagerly from the executable cache, traced as a primitive.

    A program with effects (callbacks, collectives) is in-lined under a trace, where
    JAX orders and counts its effects itself.

    Args:
        program: The program.
        inputs: Its inputs.
        options: How it is rewritten when it is lowered; see `usual_options`.
    """
    if not program.jaxpr.effects:
        return loop_p.bind(*inputs, program=program, joint=None, options=options)
    if any(is_traced(leaf) for leaf in inputs):
        return program(*inputs)
    return executable(program, options)(*inputs)


# --------------------------------------------------------------- evaluation, lowering


class _RunKey:
    """Finds a program by what it computes, derivative rules of its parts aside."""

    __slots__ = ("program",)

    def __init__(self, program: Program) -> None:
        self.program = program

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, _RunKey) and self.program.run_key == other.program.run_key
        )

    def __hash__(self) -> int:
        return hash(self.program.run_key)


@functools.lru_cache(maxsize=_derive.CACHE_SIZE)
def _compiled(key: _RunKey, options: Options | None) -> Callable[..., list[Leaf]]:
    program = key.program

    def jscan_loop(*inputs: Leaf) -> list[Leaf]:
        if program.jaxpr.effects:
            return program(*inputs)
        return loop_p.bind(*inputs, program=program, joint=None, options=options)

    return jax.jit(jscan_loop)


def executable(program: Program, options: Options | None) -> Callable[..., list[Leaf]]:
    """The jitted program, shared by all programs that compute the same."""
    return _compiled(_RunKey(program), options)


def lowered(program: Program, options: Options | None, platform: str) -> Program:
    """The program that reaches XLA: rewritten here, after all differentiation."""
    if options is None or not options.passes:
        return program
    return _rewritten(program, options, platform)


@_derive.cached
def _rewritten(program: Program, options: Options, platform: str) -> Program:
    rewritten = rewrite(program.jaxpr, platform=platform, options=options)
    return program if rewritten is program.jaxpr else Program(rewritten)


def _evaluate(
    *inputs: Leaf, program: Program, options: Options | None, **_: Any
) -> list[Leaf]:
    return executable(program, options)(*inputs)


def _abstract(*_: Any, program: Program, **__: Any) -> list[Any]:
    return program.out_avals


def _lower(
    ctx: Any, *values: Any, program: Program, options: Options | None, **_: Any
) -> Any:
    platform = ctx.module_context.platforms[0]
    run = mlir.lower_fun(lowered(program, options, platform), multiple_results=True)
    return run(ctx, *values)


# ------------------------------------------------------------------------- forward mode


def _moving(tangents: Sequence[Any]) -> tuple[bool, ...]:
    return tuple(type(tangent) is not ad.Zero for tangent in tangents)


def _differentiate(
    primals: Sequence[Leaf],
    tangents: Sequence[Any],
    *,
    program: Program,
    options: Options | None,
    **_: Any,
) -> tuple[list[Leaf], list[Any]]:
    moving = _moving(tangents)
    if not any(moving):
        results = loop_p.bind(*primals, program=program, joint=None, options=options)
        return results, [_zero(aval) for aval in program.out_avals]
    live = [t for t, m in zip(tangents, moving, strict=True) if m]
    results = loop_p.bind(
        *primals,
        *live,
        program=_derive.jvp(program, moving),
        joint=Joint(program, moving),
        options=options,
    )
    count = len(program.out_avals)
    rates = iter(results[count:])
    return results[:count], [
        next(rates) if _derive.is_differentiable(aval) else _zero(aval)
        for aval in program.out_avals
    ]


def _zero(aval: Any) -> Any:
    return ad.Zero(aval.to_tangent_aval())


# ------------------------------------------------------------------------- reverse mode


def _split_known(
    trace: Any,
    *tracers: Any,
    program: Program,
    joint: Joint | None,
    options: Options | None,
) -> Any:
    """Partial evaluation of a joint program: forward is known, linear is not."""
    params = {"program": program, "joint": joint, "options": options}
    if joint is None or not all(t.is_known() for t in tracers[: len(joint.moving)]):
        return trace.default_process_primitive(loop_p, tracers, params)
    count = len(joint.moving)
    inputs = [t.pval.get_known() for t in tracers[:count]]
    split = _derive.linearize(joint.base, joint.moving)
    outputs = len(joint.base.out_avals)
    if options is not None:
        split = _derive.with_fewer_residuals(split, outputs, options)
    results = loop_p.bind(*inputs, program=split.forward, joint=None, options=options)
    found = {"input": inputs, "output": results, "residual": results[outputs:]}
    residuals = [found[kind][index] for kind, index in split.sources]
    rates = trace.default_process_primitive(
        linear_p,
        [*map(trace.to_jaxpr_tracer, residuals), *tracers[count:]],
        {"program": split.linear, "known": len(residuals), "options": options},
    )
    return [*map(trace.to_jaxpr_tracer, results[:outputs]), *rates]


def _split_checkpointed(
    saveable: Callable[..., Any],
    unknown: Sequence[bool],
    instantiated: Sequence[bool],
    equation: Any,
) -> tuple[Any, Any, list[bool], list[bool], list[Any]]:
    """Partial evaluation inside `jax.checkpoint`: what runs now, what runs again.

    What runs again has no progress bars.

    Returns:
        The equation of the forward pass, the one of the recomputation, which outputs
        are unknown in the former and which the latter provides, and the inputs to save.
    """
    params, outputs = equation.params, equation.outvars
    joint = params.get("joint")
    saved = [
        atom
        for atom, has in zip(equation.invars, instantiated, strict=True)
        if not has and not hasattr(atom, "val")
    ]
    if not any(unknown):
        avals = [atom.aval for atom in equation.invars]
        if saveable(equation.primitive, *avals, **params) is True:
            none = [False] * len(outputs)
            return equation, None, none, none, []
        none, every = [False] * len(outputs), [True] * len(outputs)
        return equation, _silent_equation(equation), none, every, saved
    count = len(joint.moving) if joint else 0
    every = [True] * len(outputs)
    if joint is None or any(unknown[:count]):
        return None, equation, every, every, saved
    primal = len(joint.base.out_avals)
    forward = equation.replace(
        invars=equation.invars[:count],
        outvars=outputs[:primal],
        params={**params, "program": joint.base, "joint": None},
    )
    unknown_outputs = [index >= primal for index in range(len(outputs))]
    return forward, _silent_equation(equation), unknown_outputs, every, saved


def _silent_equation(equation: Any) -> Any:
    """The equation of a loop without progress bars."""
    params, joint = equation.params, equation.params.get("joint")
    if joint is not None:
        joint = Joint(silent(joint.base), joint.moving)
    params = {**params, "program": silent(params["program"])}
    return equation.replace(
        params=params if joint is None else {**params, "joint": joint}
    )


def _transpose(
    cotangents: Sequence[Any],
    *inputs: Any,
    program: Program,
    options: Options | None,
    **_: Any,
) -> list[Any]:
    """Pull cotangents back to the inputs in which the program is linear."""
    linear = tuple(ad.is_undefined_primal(value) for value in inputs)
    wanted = _moving(cotangents)
    if not any(wanted):
        return [
            ad.Zero(v.aval) if lin else None
            for v, lin in zip(inputs, linear, strict=True)
        ]
    pulled = loop_p.bind(
        *[value for value, lin in zip(inputs, linear, strict=True) if not lin],
        *[ct for ct, wants in zip(cotangents, wanted, strict=True) if wants],
        program=_derive.transpose(program, linear, wanted),
        joint=None,
        options=options,
    )
    results = iter(pulled)
    return [next(results) if lin else None for lin in linear]


def _differentiate_linear(
    primals: Sequence[Leaf],
    tangents: Sequence[Any],
    *,
    program: Program,
    known: int,
    options: Options | None,
) -> tuple[list[Leaf], list[Any]]:
    """Along fixed residuals the map is its own derivative; else the general rule."""
    if any(_moving(tangents[:known])):
        return _differentiate(primals, tangents, program=program, options=options)
    bind = functools.partial(
        linear_p.bind, program=program, known=known, options=options
    )
    results = bind(*primals)
    if not any(_moving(tangents)):
        return results, [_zero(aval) for aval in program.out_avals]
    rates = [ad.instantiate_zeros(tangent) for tangent in tangents[known:]]
    return results, bind(*primals[:known], *rates)


# ------------------------------------------------------------------- vmap and pruning


def _batch_rule(primitive: Any) -> Callable[..., Any]:
    def rule(
        inputs: Sequence[Leaf],
        axes: Sequence[int | None],
        *,
        program: Program,
        **params: Any,
    ) -> Any:
        size = next(
            jnp.shape(leaf)[axis]
            for leaf, axis in zip(inputs, axes, strict=True)
            if axis is not None
        )
        batched, has_axis = _derive.batch(program, tuple(axes), size)
        if params.get("joint") is not None:
            joint = (
                _batched_joint(params["joint"], axes, size) if all(has_axis) else None
            )
            params = {**params, "joint": joint}
        results = primitive.bind(*inputs, program=batched, **params)
        return results, [0 if has else None for has in has_axis]

    return rule


def _batched_joint(joint: Joint, axes: Sequence[int | None], size: int) -> Joint | None:
    """The batched base, where it exists: tangents and primals batched alike."""
    primal = list(axes[: len(joint.moving)])
    live = [axis for axis, moves in zip(primal, joint.moving, strict=True) if moves]
    if live != list(axes[len(joint.moving) :]):
        return None
    base, has_axis = _derive.batch(joint.base, tuple(primal), size)
    return Joint(base, joint.moving) if all(has_axis) else None


def _prune_rule(used_outputs: Sequence[bool], *rest: Any) -> tuple[list[bool], Any]:
    """Drop outputs nobody reads; JAX 0.12 passes one argument more than 0.10."""
    equation = rest[-1]
    if not any(used_outputs):
        return [False] * len(equation.invars), None
    joint = equation.params.get("joint")
    if all(used_outputs) or joint is not None:
        return [True] * len(equation.invars), equation
    program, used = _derive.prune(equation.params["program"], tuple(used_outputs))
    params = {**equation.params, "program": program}
    if "known" in params:
        params["known"] = sum(used[: params["known"]])
    inputs = [v for v, u in zip(equation.invars, used, strict=True) if u]
    outputs = [v for v, u in zip(equation.outvars, used_outputs, strict=True) if u]
    return list(used), equation.replace(invars=inputs, outvars=outputs, params=params)


def _open(params: Any) -> Any:
    """For the optimizer: the program of a loop it may rewrite, else None."""
    return None if params["options"] is None else params["program"].jaxpr


def _register() -> None:
    for primitive in (loop_p, linear_p):
        primitive.def_impl(_evaluate)
        primitive.def_abstract_eval(_abstract)
        mlir.register_lowering(primitive, _lower)
        batching.primitive_batchers[primitive] = _batch_rule(primitive)
        partial_eval.dce_rules[primitive] = _prune_rule
        register_call(primitive, _open)
        ad.primitive_transposes[primitive] = _transpose
    ad.primitive_jvps[loop_p] = _differentiate
    ad.primitive_jvps[linear_p] = _differentiate_linear

    partial_eval.custom_partial_eval_rules[loop_p] = _split_known
    partial_eval.partial_eval_jaxpr_custom_rules[loop_p] = _split_checkpointed


_register()
