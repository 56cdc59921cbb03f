"""`optimize` and `explain`: the scan optimizer for functions.

The optimizer itself (`optimize/`) rewrites traced programs and knows nothing of shared
variables or compiled functions; what a user hands over is turned into programs here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from . import _frames
from ._errors import ScanNotImplementedError, Subject, explain_error
from ._frames import Scope
from ._function import Function
from ._regions import evaluate_rewritten
from ._shared import SharedVariable
from ._types import Leaf, is_array, is_number
from ._updates import Updates
from .optimize import Report, enabled, make_options, report

AnyFunction = TypeVar("AnyFunction", bound=Callable[..., Any])


def optimize(
    fun: AnyFunction,
    *,
    passes: Iterable[str] | None = None,
    memory_budget: int | None = None,
) -> AnyFunction:
    """Make the `lax.scan` loops inside a function faster.

    The result computes the same and composes with `jax.jit`, `jax.grad`, `jax.vmap`
    and the rest in either order: the loops are rewritten when the program is lowered,
    after it was differentiated, so that the backward loops are seen, too.

    Args:
        fun: Any JAX function of pytrees, or a `jscan.function`. It is traced at every
            call, as `jax.grad` does; numbers and arrays are traced, other arguments
            (booleans, strings, ...) are handed to it as they are. It may read shared
            variables but not draw from random streams; put `optimize` around a
            `jscan.function` for that.
        passes: Names of the passes to run; all but `"associate"` by default, which
            makes an associative scan of a linear recurrence: on a GPU much faster,
            with other rounding. Of two calls, one inside the other, the outer counts.
        memory_budget: Bytes one rewrite may add; 32 MiB by default.

    Returns:
        A function with the signature of `fun`; of a `jscan.function` again one.

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
    if isinstance(fun, Function):
        return fun.with_options(options)  # pyright: ignore[reportReturnType]

    @functools.wraps(fun)
    def optimized(*args: Any, **kwargs: Any) -> Any:
        if not enabled() or jax.config.jax_disable_jit:  # type: ignore[attr-defined]
            return fun(*args, **kwargs)
        traced = _trace(fun, args, kwargs)
        traced.check_variables(fun)
        results = evaluate_rewritten(traced.program, traced.operands, options)
        return jax.tree.unflatten(traced.structure, results)

    return optimized  # pyright: ignore[reportReturnType]


def explain(
    fun: Callable[..., Any],
    *,
    passes: Iterable[str] | None = None,
    memory_budget: int | None = None,
) -> Callable[..., Report]:
    """Say what `optimize` does to the loops of a function, and what not, and why.

    Args:
        fun: Any JAX function of pytrees, or a `jscan.function`: then the report is of
            a whole call, updates included.
        passes: As in `optimize`.
        memory_budget: As in `optimize`.

    Returns:
        A function of the same arguments that returns a `Report`. It compiles the
        program twice, to ask XLA for its temporary memory, and does not run it: no
        shared variable changes.

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

    def explained(*args: Any, **kwargs: Any) -> Report:
        platform = jax.default_backend()
        if isinstance(fun, Function):
            program = fun.traced(*args, **kwargs).jaxpr
            return report(program, platform=platform, options=options)
        traced = _trace(fun, args, kwargs)
        return report(
            traced.program,
            platform=platform,
            options=options,
            operands=traced.operands,
        )

    return explained


@dataclass(frozen=True)
class _Traced:
    """A traced call.

    Attributes:
        program: The closed jaxpr.
        operands: Its inputs.
        structure: The tree of the results.
        frame: What it read of shared variables.
    """

    program: Any
    operands: list[Leaf]
    structure: Any
    frame: _frames.Frame

    def check_variables(self, fun: Callable[..., Any]) -> None:
        """Refuse draws, and reads that JAX would freeze where the call stands."""
        if self.frame.draws:
            raise ScanNotImplementedError(
                explain_error(
                    Subject("jscan.optimize"),
                    getattr(fun, "__name__", "fun"),
                    needed="a function that draws no random numbers from a stream",
                    came=f"draws from {[*self.frame.draws]!r}",
                    fix="make it a jscan.function and optimize that",
                )
            )
        for variable in self.frame.reads:
            _frames.value_of(variable)


def _trace(fun: Callable[..., Any], args: Any, kwargs: Any) -> _Traced:
    """Trace a call; shared variables are worth what they are worth outside."""
    leaves, tree = jax.tree.flatten((args, kwargs))
    places = [index for index, leaf in enumerate(leaves) if _is_operand(leaf)]
    frame = _frames.Frame({}, Scope.REWRITTEN)
    structure: Any = None

    def flat(*operands: Any) -> list[Any]:
        nonlocal structure
        here = list(leaves)
        for place, operand in zip(places, operands, strict=True):
            here[place] = operand
        here_args, here_kwargs = jax.tree.unflatten(tree, here)
        with _frames.enter(frame):
            returned = fun(*here_args, **here_kwargs)
        returned = jax.tree.map(_as_updates, returned, is_leaf=_are_updates)
        results, structure = jax.tree.flatten(returned)
        return results

    operands = [jnp.asarray(leaves[place]) for place in places]
    program = jax.make_jaxpr(flat)(*operands)
    return _Traced(program, operands, structure, frame)


def _are_updates(value: Any) -> bool:
    """Whether this is a plain dict of new values, whose keys JAX would try to sort."""
    is_dict = type(value) is dict and bool(value)
    return is_dict and all(isinstance(key, SharedVariable) for key in value)


def _as_updates(value: Any) -> Any:
    return Updates(value) if _are_updates(value) else value


def _is_operand(leaf: Any) -> bool:
    """Whether an argument is traced: numbers and arrays, but no Python flag."""
    return not isinstance(leaf, bool) and (is_array(leaf) or is_number(leaf))
