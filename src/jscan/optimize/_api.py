"""The entry points: `optimize` for functions, `rewrite` for traced programs."""

import functools
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import jax

from jscan.optimize._jaxpr import open_jaxpr
from jscan.optimize._options import Context, Options, Stage, make_options
from jscan.optimize._pipeline import debugging, enabled
from jscan.optimize._program import Session, has_loops, is_explicitly_sharded

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
        stage: `"trace"` if it may still be differentiated, else `"lowering"`.

    Returns:
        A program with the same inputs and outputs, weak types included.
    """
    opened, _ = open_jaxpr(closed_jaxpr)
    if not enabled() or not has_loops(opened) or is_explicitly_sharded(opened):
        return closed_jaxpr
    session = Session(Context(options or Options(), platform, stage))
    try:
        return session.rewritten(closed_jaxpr)
    except Exception:
        if debugging():
            raise
        return closed_jaxpr


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
        leaves, structure = jax.tree.flatten((args, kwargs))
        out_structure: Any = None

        def flat(*values: Any) -> list[Any]:
            nonlocal out_structure
            here_args, here_kwargs = jax.tree.unflatten(structure, values)
            results, out_structure = jax.tree.flatten(fun(*here_args, **here_kwargs))
            return results

        traced = jax.make_jaxpr(flat)(*leaves)
        platform = jax.default_backend()
        new = rewrite(traced, platform=platform, options=options, stage="lowering")
        opened, constants = open_jaxpr(new)
        results = jax.core.eval_jaxpr(opened, constants, *leaves)
        return jax.tree.unflatten(out_structure, results)

    return optimized  # pyright: ignore[reportReturnType]
