"""Where regions are rewritten: in the lowering of `jit`, after all differentiation.

JAX lowers an inner `jit` by a rule of its own. The rule here hands the program of a
marked one to the optimizer and leaves everything else, effects, tokens and placement
included, to JAX's. Of two regions, one inside the other, the outer counts.
"""

import threading
from typing import Any

import jax

from jscan._base.caches import cached
from jscan._jax.marks import is_marked, lowering_rule
from jscan._jax.names import mlir, primitives
from jscan._optimizer.analysis.placement import is_split
from jscan._optimizer.options import Options, choices_of


class _Depth(threading.local):
    regions = 0


_depth = _Depth()
_NO_MESH = jax.sharding.AbstractMesh((), ())


@cached
def rewritten(
    jaxpr: Any,
    options: Options | None,
    platform: str,
    mesh: Any = _NO_MESH,
    is_split: bool = False,
) -> Any:
    """The program of a region, as it reaches the compiler.

    It is rewritten under the mesh that was set where it was traced.
    """
    if options is None or options.passes == frozenset():
        return jaxpr
    from jscan._optimizer.entry import rewrite  # the rules, with the first loop

    with jax.sharding.use_abstract_mesh(mesh):
        return rewrite(jaxpr, platform=platform, options=options, is_split=is_split)


def _install() -> None:
    """Put the rule in the place of JAX's; without it loops run as they are."""
    default = lowering_rule()
    if default is None:
        return

    def rule(ctx: Any, *values: Any, **params: Any) -> Any:
        if not is_marked(params["name"]) or _depth.regions:
            return default(ctx, *values, **params)
        platforms = ctx.module_context.platforms
        # One program for several platforms (`jax.export`) has no one cost to go by.
        if len(platforms) == 1:
            options = choices_of(params["name"])
            mesh = params["ctx_mesh"].abstract_mesh
            split = is_split(ctx.module_context)
            new = rewritten(params["jaxpr"], options, platforms[0], mesh, split)
            params = {**params, "jaxpr": new}
        _depth.regions += 1
        try:
            return default(ctx, *values, **params)
        finally:
            _depth.regions -= 1

    mlir.register_lowering(primitives.jit_p, rule, cacheable=False)


_install()
