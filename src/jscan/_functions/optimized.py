"""`optimize` and `explain`: the scan optimizer for functions.

The optimizer itself (`_optimizer/`) rewrites traced programs and knows nothing of
shared variables or compiled functions; what a user hands over is made programs here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar, overload

import jax
import jax.numpy as jnp

from jscan._base.errors import ScanNotImplementedError, ScanTypeError
from jscan._base.kinds import brief
from jscan._base.lists import pick
from jscan._base.types import Leaf, PyTree, is_array, is_number
from jscan._base.verbs import shortened, verb
from jscan._frontend.hints import add_call
from jscan._functions.function_type import Function
from jscan._functions.named_types import typed
from jscan._jax.naming import name_after
from jscan._jax.traces import is_staging
from jscan._optimizer import Report, enabled, make_options, report
from jscan._programs.program import Program
from jscan._programs.regions import evaluate_rewritten, traced_anew
from jscan._state import frames
from jscan._state.updates import with_updates

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
) -> AnyFunction: ...


@overload
def optimize(
    *, passes: str | Iterable[str] | None = None, memory_budget: int | None = None
) -> Callable[[AnyFunction], AnyFunction]: ...


@verb("write jscan.optimize(f)(x), with the arguments behind it", _OF_JIT)
def optimize(
    fun: Any = None,
    *,
    passes: str | Iterable[str] | None = None,
    memory_budget: int | None = None,
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
            ``"small_dots"``, ``"unroll"``, ``"associate"``; or ``"default"`` for all
            but the last, which makes an associative scan of a linear recurrence: on a
            GPU, or split in time over devices, much faster, with other rounding.
            ``"default+associate"`` adds it. Of nested calls the outer one counts.
        memory_budget: Bytes one rewrite may add; 32 MiB by default.

    Returns:
        A function with the signature of `fun`; of a `jscan.function` again one.

    Raises:
        ScanTypeError: Something that is no function, or passes that are no names.
        ScanValueError: An unknown pass, a negative budget.

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
    options = make_options(passes, memory_budget)
    if fun is None:
        return functools.partial(optimize, passes=passes, memory_budget=memory_budget)
    _check_callable("optimize", fun)
    if isinstance(fun, Function):
        return fun._with_options(options)
    numbers = _Numbers()

    @shortened
    @functools.wraps(fun)
    def optimized(*args: Any, **kwargs: Any) -> Any:
        if not enabled() or jax.config.jax_disable_jit:  # type: ignore[attr-defined]
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
) -> Callable[P, Report]:
    """Say what `optimize` does to the loops of a function, and what not, and why.

    Args:
        fun: Any JAX function of pytrees, or a `jscan.function`: then the report is of
            a whole call, updates included.
        passes: As in `optimize`.
        memory_budget: As in `optimize`.

    Returns:
        A function of the same arguments that returns a `Report`. It compiles the
        program twice, to ask XLA for its temporary memory, and does not run it: no
        shared variable changes. What a call takes `Report.measure` tells, which runs
        both forms on these arguments.

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
    options = make_options(passes, memory_budget)
    _check_callable("explain", fun)
    numbers = _Numbers()

    @shortened
    @functools.wraps(fun)
    def explained(*args: P.args, **kwargs: P.kwargs) -> Report:
        with traced_anew():
            if isinstance(fun, Function):
                whole, operands = fun._traced(*args, **kwargs)
                program = whole.jaxpr
            else:
                traced = numbers.trace(fun, args, kwargs)
                program, operands = traced.program, traced.operands
        platform = jax.default_backend()
        return report(program, platform=platform, options=options, operands=operands)

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


@dataclass(frozen=True)
class _Traced:
    """A traced call."""

    program: Any
    operands: list[Leaf]
    returned: PyTree  # by the function: what is no array, and `_RESULT` for what is
    frame: frames.Frame  # what it read of shared variables

    def with_results(self, results: Sequence[Leaf]) -> Any:
        """What the function returns, with these results of the program."""
        fresh = iter(results)
        fill = lambda leaf: next(fresh) if leaf is _RESULT else leaf
        return jax.tree.map(fill, self.returned)


_RESULT = object()


class _Numbers:
    """How the Python numbers among a function's arguments are handed to it.

    They are traced, so that another number does not compile anew, until a trace needs
    the value of one. Those of a call inside a trace are constants of that.
    """

    needed = False

    def trace(self, fun: Callable[..., Any], args: Any, kwargs: Any) -> _Traced:
        has_numbers = any(map(_is_python_number, jax.tree.leaves((args, kwargs))))
        if self.needed or is_staging() or not has_numbers:
            return _trace(fun, args, kwargs, numbers=False)
        try:
            return _trace(fun, args, kwargs, numbers=True)
        except Exception:
            # A number may have been needed; an error for another reason comes again.
            traced = _trace(fun, args, kwargs, numbers=False)
            self.needed = True
            return traced


def _trace(
    fun: Callable[..., Any], args: Any, kwargs: Any, *, numbers: bool
) -> _Traced:
    """Trace a call; shared variables are worth what they are worth outside."""
    keyed, tree = jax.tree.flatten_with_path((args, kwargs))
    leaves = [leaf for _, leaf in keyed]
    places = [
        index
        for index, leaf in enumerate(leaves)
        if is_array(leaf) or _is_ref(leaf) or (numbers and _is_python_number(leaf))
    ]
    frame = frames.Frame({}, frames.Scope.REWRITTEN)
    marked: PyTree = None

    def flat(*args: Any, **kwargs: Any) -> list[Any]:
        nonlocal marked
        here = list(leaves)
        operands = jax.tree.leaves((args, kwargs))
        for place, operand in zip(places, operands, strict=True):
            here[place] = operand
        with frame:
            returned = with_updates(_called(fun, *jax.tree.unflatten(tree, here)))
        results, structure = jax.tree.flatten(returned)
        computed = [is_array(x) or is_number(x) or _is_ref(x) for x in results]
        pairs = zip(computed, results, strict=True)
        marks = [_RESULT if flag else leaf for flag, leaf in pairs]
        marked = jax.tree.unflatten(structure, marks)
        return pick(results, computed)

    operands = [_as_operand(leaves[place]) for place in places]
    given, named = typed(args, kwargs, [keyed[place][0] for place in places], operands)
    name_after(flat, fun)
    program = jax.make_jaxpr(flat)(*given, **named)
    return _Traced(program, operands, marked, frame)


def _called(fun: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    try:
        return fun(*args, **kwargs)
    except Exception as error:
        fix = "; or pass a Python number"
        add_call(error, "the function to be optimized", fun, args, kwargs, "f", fix)
        raise


def _as_operand(leaf: Any) -> Leaf:
    # To JAX an array's `asarray` is a copy, which a derivative would store beside it.
    return leaf if isinstance(leaf, jax.Array) or _is_ref(leaf) else jnp.asarray(leaf)


def _is_ref(leaf: Any) -> bool:
    return isinstance(leaf, jax.Ref)


def _is_python_number(leaf: Any) -> bool:
    """Whether an argument is a number of Python or NumPy, but no flag."""
    return is_number(leaf) and not isinstance(leaf, bool)
