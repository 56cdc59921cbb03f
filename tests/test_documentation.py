"""What the documentation shows is run: docstrings, and the README's Python blocks."""

import contextlib
import doctest
import importlib
import json
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest

import jscan

# Long messages are wrapped where they are shown.
AS_SHOWN = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE

CHECKOUT = Path(__file__).parents[1]
README = CHECKOUT / "README.md"
NOTEBOOKS = sorted((CHECKOUT / "notebooks").glob("*.ipynb"))


def modules() -> list[str]:
    found = pkgutil.walk_packages(jscan.__path__, prefix="jscan.")
    return ["jscan", *sorted(m.name for m in found if not m.name.endswith("__main__"))]


@contextlib.contextmanager
def jax_as_it_comes() -> Iterator[None]:
    """Undo the strict settings of the tests: examples are written for users."""
    with (
        jax.enable_x64(False),
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
    ):
        yield


def run_examples(test: doctest.DocTest) -> doctest.TestResults:
    with jax_as_it_comes():
        return doctest.DocTestRunner(optionflags=AS_SHOWN).run(test)


@pytest.mark.parametrize("module", modules())
def test_examples_of_module(module: str):
    for test in doctest.DocTestFinder().find(importlib.import_module(module)):
        assert run_examples(test).failed == 0


def test_every_python_block_of_the_readme(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert blocks
    # One reader, one session: a block may use what an earlier one made.
    session: dict[str, object] = {}
    for number, block in enumerate(blocks):
        name = f"README block {number}"
        test = doctest.DocTestParser().get_doctest(block, session, name, None, 0)
        assert test.examples, f"{name} holds no >>> lines, so nothing checks it"
        runner = doctest.DocTestRunner(optionflags=AS_SHOWN)
        with jax_as_it_comes():
            assert runner.run(test, clear_globs=False).failed == 0
        session.update(test.globs)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_stored_as_it_ran(path: Path):
    cells = json.loads(path.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == [*range(1, len(code) + 1)]
    outputs = [output for cell in code for output in cell["outputs"]]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not [output for output in outputs if output["output_type"] == "error"]
