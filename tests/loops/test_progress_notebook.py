"""The bar in a notebook that is really executed."""

import nbformat
import pytest
from nbclient import NotebookClient

pytestmark = pytest.mark.any_jax

CELL = """
import jax, jax.numpy as jnp, jscan
run = lambda x: jscan.scan(lambda a, h: h + a, x, 0.0, progress="storm").outputs
{call}
jax.effects_barrier()
"""


def executed(call: str) -> str:
    """What a notebook with one cell shows below it."""
    notebook = nbformat.v4.new_notebook()
    notebook.cells.append(nbformat.v4.new_code_cell(CELL.format(call=call)))
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    return "".join(o.get("text", "") for o in notebook.cells[0].outputs)


def test_the_bar_ends_at_the_last_step():
    shown = executed("jax.jit(run)(jnp.ones(250));")
    assert "storm" in shown
    assert "250/250" in shown
