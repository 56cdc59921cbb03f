"""Every kind of loop under every transformation and tool, against `lax.scan`."""

from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType

import jscan
from support.comparing import assert_close
from support.matrix_kinds import KINDS, SIZE, Loop
from support.matrix_tools import SPECS, TOOLS, arguments, cell, cost, mesh_of


class Refusal(NamedTuple):
    """A cell that does not work: with what error, and why."""

    error: type[Exception]
    reason: str


LENGTH_IN_PARTS = Refusal(
    jscan.ScanNotImplementedError, "parts of a symbolic number of steps have no length"
)
ENDS_ALONE = Refusal(
    jscan.ScanNotImplementedError,
    "a gradient by what is the same on all devices is a sum over them at every step, "
    "and a device whose loop is over takes no part in it; JAX has no while_loop with a "
    "gradient, and a scan runs all steps on all devices",
)
REF_IN_PARTS = Refusal(
    jscan.ScanNotImplementedError, "JAX does not differentiate a checkpointed Ref"
)
CALLBACK = Refusal(NotImplementedError, "jax.export stores no callbacks to the host")

UNSUPPORTED: dict[tuple[str, str], Refusal] = {
    ("chunked", "export_with_symbolic_length"): LENGTH_IN_PARTS,
    ("truncated", "export_with_symbolic_length"): LENGTH_IN_PARTS,
    ("bars", "export_with_symbolic_length"): LENGTH_IN_PARTS,
    ("chunked", "ref_captured"): REF_IN_PARTS,
    ("truncated", "ref_captured"): REF_IN_PARTS,
    ("bars", "export_with_symbolic_batch"): CALLBACK,
    ("bars", "export_for_two_platforms"): Refusal(
        TypeError, "JAX lowers jax.debug.callback for one platform at a time"
    ),
    ("bars", "checking_leaks"): Refusal(
        Exception, "JAX keeps the count that a scan's step calls back with"
    ),
    **{
        (kind, tool): ENDS_ALONE
        for kind in ("until", "traced_length")
        for tool in ("shard_map", "grad_in_shard_map")
    },
}
"""Cells that do not work. One that comes to work makes its test fail."""

CELLS = [(kind, tool) for tool in TOOLS for kind in KINDS]


def maker(loop: Loop) -> Any:
    return lambda step=cell: partial(loop, step)


def run(loop: Loop, tool: str) -> Any:
    return TOOLS[tool](maker(loop), arguments())


by_hand = cache(run)  # some kinds have one plain loop


@pytest.mark.parametrize(("kind", "tool"), CELLS, ids=map("-".join, CELLS))
def test_cell(kind, tool):
    ours, plain = KINDS[kind]
    if (kind, tool) in UNSUPPORTED:
        refusal = UNSUPPORTED[kind, tool]
        with pytest.raises(refusal.error):
            run(ours, tool)
        if not issubclass(refusal.error, jscan.ScanError):
            with pytest.raises(refusal.error):  # JAX cannot do it, either
                run(plain, tool)
        return
    assert_close(run(ours, tool), by_hand(plain, tool))


def test_a_state_of_constants_becomes_varying_inside_shard_map():
    """`lax.scan` asks for `pcast`; a state of ours takes the type of its step."""
    w, x, h = arguments()

    def own(w, x):
        step = lambda x, h, w: cell(w, x, h)
        start = jnp.zeros((1, SIZE), jnp.float32)
        return jscan.scan(step, x, start, w).outputs

    mesh = mesh_of(AxisType.Auto)
    specs = SPECS[:2]
    mapped = jax.shard_map(own, mesh=mesh, in_specs=specs, out_specs=SPECS[1])
    whole = lambda w, x: KINDS["plain"].plain(cell, w, x, jnp.zeros_like(h))
    both = lambda f: jax.jit(jax.value_and_grad(cost(f), (0, 1)))(w, x)
    mine, theirs = both(mapped), both(whole)
    assert_close(mine, theirs)
