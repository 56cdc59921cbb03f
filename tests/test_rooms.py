"""The house rule: a room imports from rooms below it, never beside or above it."""

import ast
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from conftest import SLOW

pytestmark = pytest.mark.any_jax

PACKAGE = Path(__file__).parents[1] / "src" / "jscan"

# From the roof down; rooms in one set stand side by side and do not see each other.
FLOORS = [
    {"__main__"},
    {"_tour"},
    {"__init__"},
    {"_public"},
    {"_scan"},
    {"_execution", "_functions"},
    {"_frontend"},
    {"_loops", "_state"},
    {"_programs"},
    {"_optimizer"},
    {"_jax"},
    {"_base", "data"},
]
OPTIMIZER = [
    {"__init__"},
    {"lowering"},
    {"entry"},
    {"program", "choices"},
    {"pipeline", "planning"},
    {"rules"},
    {"passes"},
    {"writing", "reports"},
    {"analysis"},
    {"record"},
    {"options"},
    {"costs", "switches"},
]
# Only this room may name them: what JAX may change without notice.
JAX_INSIDES = ("jax.core", "jax.extend", "jax.interpreters", "jax._src")


def imports(path: Path) -> list[tuple[int, str]]:
    """Every module that a file imports, TYPE_CHECKING and functions included."""
    found = []
    base = ["jscan", *path.relative_to(PACKAGE).with_suffix("").parts]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = base[: -node.level] if node.level else []
            module = ".".join([*start, *filter(None, [node.module])])
            found += [(node.lineno, f"{module}.{a.name}") for a in node.names]
    return found


def floor_of(module: str, floors: list[set[str]], depth: int) -> tuple[int, str] | None:
    parts = module.split(".")
    room = parts[depth] if len(parts) > depth else "__init__"
    for floor, rooms in enumerate(floors):
        if room in rooms:
            return floor, room
    return None


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_down(path: Path):
    here = ".".join(["jscan", *path.relative_to(PACKAGE).with_suffix("").parts])
    for line, module in imports(path):
        if module.startswith(JAX_INSIDES):
            assert "._jax." in here, f"{path}:{line}: {module} belongs into _jax/"
        if not module.startswith("jscan."):
            continue
        for floors, depth in ((FLOORS, 1), (OPTIMIZER, 2)):
            if depth == 2 and (here + module).count("jscan._optimizer") != 2:
                continue
            mine, theirs = (
                floor_of(here, floors, depth),
                floor_of(module, floors, depth),
            )
            if mine and theirs and mine[1] != theirs[1]:
                assert theirs[0] > mine[0], (
                    f"{path}:{line}: {mine[1]} imports {theirs[1]}"
                )


def test_pass_families_do_not_see_each_other():
    for path in (PACKAGE / "_optimizer" / "passes").rglob("*.py"):
        family = path.relative_to(PACKAGE / "_optimizer" / "passes").parts[0]
        for line, module in imports(path):
            if ".passes." in module:
                other = module.split(".passes.")[1].split(".")[0]
                assert other == family.removesuffix(".py"), f"{path}:{line}: {module}"


def lengths(path: Path) -> Iterator[tuple[str, int]]:
    """Functions of a file with their lines, docstrings aside."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            first = node.body[0]
            doc = ast.get_docstring(node) is not None
            docs = (first.end_lineno or 0) - first.lineno + 1 if doc else 0
            yield node.name, (node.end_lineno or 0) - node.lineno + 1 - docs


def test_files_and_functions_are_short():
    """A file has one idea, a function fits on a screen."""
    lines = {path: len(path.read_text().splitlines()) for path in FILES}
    assert max(lines.values()) <= 300
    assert statistics.median(lines.values()) <= 130
    assert sum(lines.values()) <= 26_720  # it grows with features alone
    long = {
        f"{path.name}: {name}"
        for path in FILES
        for name, size in lengths(path)
        if size > 40
    }
    assert not long


def test_what_needs_another_library_runs_where_that_is():
    """`make test` skips it; `make test-rest` runs what is slow, or bears the mark."""
    here = Path(__file__).parent
    lost = []
    for path in here.rglob("test_*.py"):
        module = ast.parse(path.read_text())
        marks = [node for node in module.body if "pytestmark" in ast.unparse(node)[:10]]
        if path.relative_to(here).as_posix().startswith(SLOW) or _asks(marks):
            continue
        for node in module.body:
            if _skips(node) and not _asks(getattr(node, "decorator_list", [])):
                lost.append(f"{path.name}: {getattr(node, 'name', node.lineno)}")
    assert not lost


def test_what_is_slow_is_there():
    """A place that is mistyped would take others along, or none."""
    assert [p for p in SLOW if not (Path(__file__).parent / p).exists()] == []


def _skips(node: ast.AST) -> bool:
    calls = (n for n in ast.walk(node) if isinstance(n, ast.Attribute))
    return any(call.attr == "importorskip" for call in calls)


def _asks(nodes: Sequence[ast.AST]) -> bool:
    return any("oracles" in ast.unparse(node) for node in nodes)


def test_parameters_of_tests_have_names(request: pytest.FixtureRequest):
    """What pytest would number, as `value0`, ends the collection: see conftest.py."""
    hook = request.config.hook.pytest_make_parametrize_id
    named = {1.5: "1.5", (1, "a"): "(1,a)", len: "len", None: "None"}
    for value, name in named.items():
        assert hook(config=request.config, val=value, argname="value") == name
    for value in (object(), lambda: 0, [object()]):
        with pytest.raises(pytest.UsageError, match="a parameter value needs ids="):
            hook(config=request.config, val=value, argname="value")
