"""The entry points: `optimize` for functions, `rewrite` for traced programs."""

import functools
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import jax
from jax.core import eval_jaxpr

from jscan.optimize._jaxpr import open_jaxpr
from jscan.optimize._measure import measure
from jscan.optimize._options import Context, Options, Stage, make_options
from jscan.optimize._pipeline import debugging, enabled, failure
from jscan.optimize._program import Session, has_loops, is_explicitly_sharded
from jscan.optimize._report import LoopReport, Report, loop_name

Function = TypeVar("Function", bound=Callable[..., Any])


def rewrite(
    closed_jaxpr: Any,
    *,
    platform: str,
    options: Options | None = None,
    stage: Stage = "lowering",
) -> Any:
    """Rewrite the loops of a traced program.

    Never raises for a program it does not understand: that part, or the whole, comes
    back as it was (`JSCAN_DEBUG=1` raises instead).

    Args:
        closed_jaxpr: The program, as `jax.make_jaxpr` returns it.
        platform: Where it will run: `"cpu"`, `"cuda"`, ...
        options: Passes and memory budget; `None` for the defaults.
        stage: `"lowering"` if no derivative can follow, `"trace"` if one probably
            will, `"whole"` for all passes that leave derivatives as they are.

    Returns:
        A program with the same inputs and outputs, weak types included.
    """
    session = Session(Context(options or Options(), platform, stage))
    return _rewrite(closed_jaxpr, session)[0]


def _rewrite(closed_jaxpr: Any, session: Session) -> tuple[Any, str | None]:
    """The rewritten program, and why it is the old one if it is."""
    opened, _ = open_jaxpr(closed_jaxpr)
    if not enabled():
        return closed_jaxpr, "the optimizer is switched off by JSCAN_OPTIMIZE=0"
    if is_explicitly_sharded(opened):
        return closed_jaxpr, "its arguments have explicit shardings"
    if not has_loops(opened):
        return closed_jaxpr, None
    try:
        return session.rewritten(closed_jaxpr), None
    except Exception as error:
        if debugging():
            raise
        return closed_jaxpr, failure(error)


def optimize(
    fun: Function,
    *,
    passes: Iterable[str] | None = None,
    memory_budget: int | None = None,
) -> Function:
    """Make the `lax.scan` loops inside a function faster.

    The result computes the same and composes with `jax.jit`, `jax.grad` and
    `jax.vmap` in either order. Most is gained *around* a gradient, where the backward
    loops are seen: ``jax.jit(jscan.optimize(jax.grad(loss)))``.

    ``"merge"`` also works across loops: one that is written twice runs once, and small
    ones of the same length run as one. ``"save_memory"`` keeps the last rows of a loop,
    or their sum, mean, maximum, minimum or logsumexp, where nothing else is read.

    Args:
        fun: Any JAX function of pytrees of arrays.
        passes: Names of the passes to run; all but the opt-in ones by default.
        memory_budget: Bytes one rewrite may add; 32 MiB by default.

    Returns:
        A function with the signature of `fun`.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from jscan.optimize import optimize
        >>> def total(xs):
        ...     return jax.lax.scan(lambda c, x: (c + x, None), 0.0, xs)[0]
        >>> float(jax.jit(optimize(total))(jnp.arange(4.0)))
        6.0
    """
    options = make_options(passes, memory_budget)

    @functools.wraps(fun)
    def optimized(*args: Any, **kwargs: Any) -> Any:
        traced, leaves, structure = _trace(fun, args, kwargs)
        platform = jax.default_backend()
        new = rewrite(traced, platform=platform, options=options, stage="whole")
        opened, constants = open_jaxpr(new)
        results = eval_jaxpr(opened, constants, *leaves)
        return jax.tree.unflatten(structure, results)

    return optimized  # pyright: ignore[reportReturnType]


def explain(
    fun: Callable[..., Any],
    *,
    passes: Iterable[str] | None = None,
    memory_budget: int | None = None,
) -> Callable[..., Report]:
    """Say what `optimize` does to the loops of a function, and what not, and why.

    Args:
        fun: Any JAX function of pytrees of arrays.
        passes: As in `optimize`.
        memory_budget: As in `optimize`.

    Returns:
        A function of the same arguments that returns a `Report`. It compiles the
        program twice, to ask XLA for its temporary memory, and does not run it.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from jscan.optimize import explain
        >>> def last(x):
        ...     step = lambda c, _: (c * x, c * x)
        ...     return jax.lax.scan(step, x, length=100)[1][-1]
        >>> explain(last)(jnp.ones(3)).loops[0].fired
        ('save_memory', 'unroll')
    """
    options = make_options(passes, memory_budget)

    def explained(*args: Any, **kwargs: Any) -> Report:
        traced, leaves, _ = _trace(fun, args, kwargs)
        session = Session(Context(options, jax.default_backend(), "whole"))
        new, failed = _rewrite(traced, session)
        loops = tuple(
            LoopReport(
                name=loop_name(before.scope, position),
                steps=before.length,
                notes=after.notes,
                before=measure(before),
                after=measure(after, before.length),
            )
            for position, (_, before, after) in enumerate(session.records.values(), 1)
        )
        old_bytes = _temporary_bytes(traced, leaves)
        new_bytes = _temporary_bytes(new, leaves)
        if old_bytes is None or new_bytes is None:
            return Report(loops, None, failed)
        return Report(loops, (old_bytes, new_bytes), failed)

    return explained


def _trace(fun: Callable[..., Any], args: Any, kwargs: Any) -> tuple[Any, Any, Any]:
    """The traced program, its flat operands, and the structure of its results."""
    leaves, structure = jax.tree.flatten((args, kwargs))
    out_structure: Any = None

    def flat(*values: Any) -> list[Any]:
        nonlocal out_structure
        here_args, here_kwargs = jax.tree.unflatten(structure, values)
        results, out_structure = jax.tree.flatten(fun(*here_args, **here_kwargs))
        return results

    return jax.make_jaxpr(flat)(*leaves), leaves, out_structure


def _temporary_bytes(closed_jaxpr: Any, leaves: Any) -> int | None:
    opened, constants = open_jaxpr(closed_jaxpr)
    run = jax.jit(lambda *values: eval_jaxpr(opened, constants, *values))
    analysis = run.lower(*leaves).compile().memory_analysis()
    return None if analysis is None else int(analysis.temp_size_in_bytes)
