"""`optimize` and `explain`: the scan optimizer for functions.

The optimizer itself (`_optimizer/`) rewrites traced programs and knows nothing of
shared variables or compiled functions; what a user hands over is made programs here.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, TypeVar, overload

import jax

from jscan import _optimizer
from jscan._base.errors import ScanNotImplementedError, ScanTypeError
from jscan._base.kinds import brief
from jscan._base.verbs import shortened, verb
from jscan._functions.function_type import Function
from jscan._functions.plain_calls import Numbers
from jscan._programs.program import Program
from jscan._programs.regions import evaluate_rewritten, traced_anew
from jscan._state import frames

P = ParamSpec("P")
AnyFunction = TypeVar("AnyFunction", bound=Callable[..., Any])

_OF_JIT: dict[str, str] = dict.fromkeys(
    ("static_argnums", "static_argnames", "donate_argnums", "donate_argnames"),
    "give that to jax.jit around it, as in jax.jit(jscan.optimize(f), ...)",
)


@overload
def optimize(
    fun: AnyFunction,
    *,
    passes: str | Iterable[str] | None = None,
    memory_budget: int | None = None,
    plan: _optimizer.Plan | None = None,
    plan_seconds: float | None = None,
    machine: str | os.PathLike[str] | None = None,
) -> AnyFunction: ...


@overload
def optimize(
    *,
    passes: str | Iterable[str] | None = None,
    memory_budget: int | None = None,
    plan: _optimizer.Plan | None = None,
    plan_seconds: float | None = None,
    machine: str | os.PathLike[str] | None = None,
) -> Callable[[AnyFunction], AnyFunction]: ...


@verb("write jscan.optimize(f)(x), with the arguments behind it", _OF_JIT)
def optimize(
    fun: Any = None,
    *,
    passes: str | Iterable[str] | None = None,
    memory_budget: int | None = None,
    plan: _optimizer.Plan | None = None,
    plan_seconds: float | None = None,
    machine: str | os.PathLike[str] | None = None,
) -> Any:
    """Make the `lax.scan` loops inside a function faster.

    The result computes the same and composes with `jax.jit`, `jax.grad`, `jax.vmap`
    and the rest in either order: the loops are rewritten when the program is lowered,
    after it was differentiated, so that the backward loops are seen, too.

    Args:
        fun: Any JAX function of pytrees, or a `jscan.function`; left out, `optimize`
            is a decorator with options. It is traced at every call, as `jax.grad`
            does. Arrays are traced; Python numbers too, unless the call is part of a
            trace (`jax.jit(jscan.optimize(f), static_argnums=1)`) or `fun` needs their
            values. All else (flags, strings, functions in modules) is handed to it,
            and from it, as it is. It may read shared variables but not draw from
            random streams; put `optimize` around a `jscan.function` for that.
        passes: Names of the passes to run: ``"merge"``, ``"save_memory"``,
            ``"hoist"``, ``"accumulate"``, ``"vectorise"``, ``"sink"``,
            ``"small_dots"``, ``"reductions"``, ``"unroll"``, ``"calls"``,
            ``"associate"``, ``"regroup"``; or ``"default"`` for all but the last two,
            which round otherwise and run when asked for, as in ``"default+regroup"``:
            `associate` makes an associative scan of a linear recurrence, on a GPU or
            split in time over devices much faster; `regroup` multiplies two constants
            by each other once where a step multiplies by one and then by the other. Of
            nested calls the outer one counts.
        memory_budget: Bytes one rewrite may add; 32 MiB by default.
        plan: ``"estimate"``, the default: what pays is estimated from the costs of this
            kind of device. Or ``"measure"``: when the program is compiled, each loop is
            compiled in a few forms and run on made-up values of the same types, and the
            fastest form is kept, and remembered on disk for other processes. A loop
            that cannot be run alone goes by the estimate, and `explain` says why. Left
            out, the environment variable ``JSCAN_PLAN`` says it.
        plan_seconds: What measuring may add to one compilation, 10 by default. Loops
            for which nothing is left go by the estimate.
        machine: The costs that the estimate goes by: a file that ``python -m jscan
            calibrate`` wrote, or ``"calibrated"`` for the one it wrote for this machine
            and these versions. Left out, ``JSCAN_MACHINE`` says it; without, costs that
            jscan brings along. Those also count where a file is damaged or was written
            elsewhere, and `explain` says so.

    Returns:
        A function with the signature of `fun`; of a `jscan.function` again one.

    Raises:
        ScanTypeError: Something that is no function, or passes that are no names.
        ScanValueError: An unknown pass or plan, a negative budget, a missing file.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import jscan
        >>> def total(xs):
        ...     return jax.lax.scan(lambda c, x: (c + x, None), 0.0, xs)[0]
        >>> float(jax.jit(jscan.optimize(total))(jnp.arange(4.0)))
        6.0
        >>> jax.grad(jscan.optimize(total))(jnp.arange(4.0)).tolist()
        [1.0, 1.0, 1.0, 1.0]
    """
    options = _optimizer.make_options(
        passes, memory_budget, plan, plan_seconds, machine
    )
    if fun is None:
        return functools.partial(
            optimize,
            passes=passes,
            memory_budget=memory_budget,
            plan=plan,
            plan_seconds=plan_seconds,
            machine=machine,
        )
    _check_callable("optimize", fun)
    if isinstance(fun, Function):
        return fun._with_options(options)
    numbers = Numbers()

    @shortened
    @functools.wraps(fun)
    def optimized(*args: Any, **kwargs: Any) -> Any:
        if not _optimizer.enabled() or jax.config.jax_disable_jit:  # type: ignore[attr-defined]
            return fun(*args, **kwargs)
        traced = numbers.trace(fun, args, kwargs)
        _check_variables(traced.frame, fun)
        program, constants = Program.close(traced.program)
        results = evaluate_rewritten(program, [*constants, *traced.operands], options)
        return traced.with_results(results)

    return optimized


def _check_callable(verb: str, fun: Any) -> None:
    if not callable(fun):
        raise ScanTypeError(
            "fun",
            needed="a function",
            came=brief(fun),
            fix=f"write jscan.{verb}(f)(x), with the arguments behind it",
            owner=f"jscan.{verb}",
        )


@verb("write jscan.explain(f)(x), with the arguments behind it", _OF_JIT)
def explain(
    fun: Callable[P, Any],
    *,
    passes: str | Iterable[str] | None = None,
    memory_budget: int | None = None,
    plan: _optimizer.Plan | None = None,
    plan_seconds: float | None = None,
    machine: str | os.PathLike[str] | None = None,
) -> Callable[P, _optimizer.Report]:
    """Say what `optimize` does to the loops of a function, and what not, and why.

    Args:
        fun: Any JAX function of pytrees, or a `jscan.function`: then the report is of
            a whole call, updates included.
        passes: As in `optimize`.
        memory_budget: As in `optimize`.
        plan: As in `optimize`; each `LoopReport.timing` says what was measured.
        plan_seconds: As in `optimize`.
        machine: As in `optimize`; the end of the report names the costs that decided.

    Returns:
        A function of the same arguments that returns a `Report`. It compiles the
        program twice, to ask XLA for its temporary memory, and does not run it: no
        shared variable changes. What a call takes `Report.measure` tells, which runs
        both forms on these arguments.

    Raises:
        ScanError: As `optimize` does; and what a call of `fun` raises.

    Works in every transform: a call needs the types of its arguments alone.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import jscan
        >>> def last(x):
        ...     step = lambda c, _: (c * x, c * x)
        ...     return jax.lax.scan(step, x, length=100)[1][-1]
        >>> jscan.explain(last)(jnp.ones(3)).loops[0].fired
        ('save_memory', 'unroll')
    """
    options = _optimizer.make_options(
        passes, memory_budget, plan, plan_seconds, machine
    )
    _check_callable("explain", fun)
    numbers = Numbers()

    @shortened
    @functools.wraps(fun)
    def explained(*args: P.args, **kwargs: P.kwargs) -> _optimizer.Report:
        with traced_anew():
            if isinstance(fun, Function):
                whole, operands = fun._traced(*args, **kwargs)
                program = whole.jaxpr
            else:
                traced = numbers.trace(fun, args, kwargs)
                program, operands = traced.program, traced.operands
        how: Any = dict(platform=jax.default_backend(), options=options)
        return _optimizer.report(program, operands=operands, **how)

    return explained


def _check_variables(frame: frames.Frame, fun: Callable[..., Any]) -> None:
    """Refuse draws, and reads that JAX would freeze where the call stands."""
    lasting = [stream for stream in frame.draws if not frames.is_born_in(stream, frame)]
    if lasting:
        raise ScanNotImplementedError(
            getattr(fun, "__name__", "fun"),
            needed="a function that draws no random numbers from a stream",
            came=f"draws from {lasting!r}",
            fix="make it a jscan.function and optimize that",
            owner="jscan.optimize",
        )
    list(map(frames.value_of, frame.reads))
