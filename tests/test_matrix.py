"""Every kind of loop under every transformation and tool, against `lax.scan`."""

from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

import jscan
from matrix_kinds import KINDS, Loop
from matrix_tools import TOOLS, arguments, cell


class Refusal(NamedTuple):
    """A cell that does not work: with what error, and why."""

    error: type[Exception]
    reason: str


UNSUPPORTED: dict[tuple[str, str], Refusal] = {}

CELLS = [(kind, tool) for tool in TOOLS for kind in KINDS]


def maker(loop: Loop) -> Any:
    return lambda step=cell: partial(loop, step)


def run(loop: Loop, tool: str) -> Any:
    return TOOLS[tool](maker(loop), arguments())


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
    mine, theirs = run(ours, tool), run(plain, tool)
    assert jax.tree.structure(mine) == jax.tree.structure(theirs)
    for one, other in zip(jax.tree.leaves(mine), jax.tree.leaves(theirs), strict=True):
        assert one.shape == other.shape
        assert one.dtype == other.dtype
        np.testing.assert_allclose(one, other, 2e-5, 2e-5)
