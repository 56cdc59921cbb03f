"""What the documentation shows is run: docstrings, and the blocks of its pages."""

import contextlib
import doctest
import importlib
import json
import pkgutil
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest

import jscan
from jscan._optimizer.rules import RULE_NAMES

pytestmark = pytest.mark.any_jax

# Long messages are wrapped where they are shown.
AS_SHOWN = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE

CHECKOUT = Path(__file__).parents[1]
README = CHECKOUT / "README.md"
PAGES = [README, *sorted((CHECKOUT / "docs").glob("[!_]*/*.md"))]
PAGES += sorted((CHECKOUT / "docs").glob("*.md"))
LIBRARIES = ("equinox", "flax", "haiku", "optax", "orbax")
NOTEBOOKS = sorted((CHECKOUT / "notebooks").glob("*.ipynb"))
EXAMPLES = sorted((CHECKOUT / "notebooks" / "examples").glob("*.ipynb"))


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
    test.globs["__name__"] = "__main__"  # the example is a user's, not the package's
    with jax_as_it_comes():
        return doctest.DocTestRunner(optionflags=AS_SHOWN).run(test)


@pytest.mark.parametrize("module", modules())
def test_examples_of_module(module: str):
    for test in doctest.DocTestFinder().find(importlib.import_module(module)):
        assert run_examples(test).failed == 0


ROOMS = CHECKOUT / "src" / "jscan"
# From where a page may name a file.
PLACES = (CHECKOUT, ROOMS, ROOMS / "_optimizer", CHECKOUT / "benchmarks")
TEXTS = [*CHECKOUT.glob("*.md"), *PAGES, *ROOMS.rglob("*.md"), *ROOMS.rglob("*.py")]
MADE = {"docs/_build/html"}


@pytest.mark.parametrize("path", sorted({*TEXTS}), ids=lambda path: path.name)
def test_files_that_a_text_names_exist(path: Path):
    named = re.findall(r"`([a-z_.]*(?:/[\w.]+)+/?|\w+\.py)`", path.read_text())
    places = (*PLACES, path.parent)
    missing = [
        name
        for name in set(named) - MADE
        if not any(
            (at / f"{name}{end}").exists() for at in places for end in ("", ".py")
        )
    ]
    assert not missing


def python_blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.M)


def libraries_of(page: Path) -> list[str]:
    """Other libraries that the code on a page imports."""
    code = "\n".join(python_blocks(page))
    return [name for name in LIBRARIES if re.search(rf"\bimport {name}\b", code)]


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(
            page, id=page.stem, marks=pytest.mark.oracles if libraries_of(page) else ()
        )
        for page in PAGES
    ],
)
def test_every_python_block_of(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """One reader, one session: a block may use what an earlier one made.

    A block without prompts is run as it is, and a later one shows what it does. Code
    of other libraries that is only read stands in `{code-block}`.
    """
    monkeypatch.chdir(tmp_path)
    for library in libraries_of(page):
        pytest.importorskip(library, reason=f"shows {library}: extra oracles")
    session: dict[str, object] = {}
    unshown = None
    for number, block in enumerate(python_blocks(page)):
        name = f"{page.stem} block {number}"
        if ">>>" not in block:
            with jax_as_it_comes():
                exec(compile(block, name, "exec"), session)
            unshown = name
            continue
        test = doctest.DocTestParser().get_doctest(block, session, name, None, 0)
        runner = doctest.DocTestRunner(optionflags=AS_SHOWN)
        with jax_as_it_comes():
            assert runner.run(test, clear_globs=False).failed == 0
        session.update(test.globs)
        unshown = None
    assert unshown is None, f"nothing shows what {unshown} does"


def test_readme_is_short_and_its_links_lead_somewhere():
    text = README.read_text()
    assert ">>> " in text
    assert len(text.splitlines()) <= 150
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    base = re.escape(project["urls"]["Repository"])
    links = re.findall(rf"{base}/(?:blob|tree)/main/(\S+)", text)
    pictures = re.findall(r"\]\((docs/\S+?)\)", text)  # paths, seen offline
    assert len(links) > 10
    assert len(pictures) > 5
    assert not [path for path in links + pictures if not (CHECKOUT / path).exists()]
    # Whatever is no picture is absolute: a package index shows the page, too.
    assert not [
        x for x in re.findall(r"[^!]\[[^]]*\]\((\S+)\)", text) if "://" not in x
    ]


@pytest.mark.parametrize("name", jscan.__all__)
def test_name_has_an_entry_in_the_site(name: str):
    pages = [path.read_text() for path in (CHECKOUT / "docs" / "api").glob("*.md")]
    entry = re.compile(
        rf"^\.\. auto(class|function|exception):: {name}\n", re.MULTILINE
    )
    (where,) = [page for page in pages if entry.search(page)]
    found = getattr(jscan, name)
    if isinstance(found, type):  # the entry lists the methods, those with a docstring
        assert re.search(rf":: {name}\n   :members:", where)
        own = [c for c in found.__mro__ if c.__module__.split(".")[0] == "jscan"]
        methods = [(c, n) for c in own for n in vars(c) if not n.startswith("_")]
        functions = [(c, n) for c, n in methods if callable(getattr(c, n, None))]
        assert not [n for c, n in functions if not getattr(c, n).__doc__]


def test_citation_names_this_version():
    lines = (CHECKOUT / "CITATION.cff").read_text().splitlines()
    assert f"version: {jscan.__version__}" in lines


def test_figures_are_those_of_the_benchmarks():
    """After a change of the tables, the badges' facts or the script: draw again."""
    script = [sys.executable, CHECKOUT / "scripts" / "draw-figures", "--stamp"]
    stamp = subprocess.run(script, capture_output=True, text=True, check=True).stdout
    figures = sorted((CHECKOUT / "docs" / "figures").glob("*.svg"))
    drawn = [path for path in figures if path.stem != "icon"]
    assert len(drawn) > 8
    stale = [path.name for path in drawn if stamp.strip() not in path.read_text()]
    assert not stale, "run scripts/draw-figures"


@pytest.mark.parametrize("path", NOTEBOOKS + EXAMPLES, ids=lambda path: path.stem)
def test_notebook_is_stored_as_it_ran(path: Path):
    cells = json.loads(path.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == [*range(1, len(code) + 1)]
    outputs = [output for cell in code for output in cell["outputs"]]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not [output for output in outputs if output["output_type"] == "error"]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_is_listed_and_holds_somebody_elses_answer(path: Path):
    """On the site, in the table of the examples, in the one style, with a check."""
    index, table = (CHECKOUT / "docs" / f"{page}.md" for page in ("index", "examples"))
    assert f"notebooks/examples/{path.stem}\n" in index.read_text()
    assert f"(notebooks/examples/{path.stem})" in table.read_text()
    cells = json.loads(path.read_text())["cells"]
    code = "".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
    assert 'plt.style.use("../jscan.mplstyle")' in code
    assert "assert_allclose(" in code or "assert " in code


def test_the_page_of_the_optimizer_has_every_rule():
    page = (CHECKOUT / "docs" / "guide" / "optimizer.md").read_text()
    assert [name for name in RULE_NAMES if f"`{name}`" not in page] == []
