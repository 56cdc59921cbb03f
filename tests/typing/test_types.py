"""Type checkers accept what is right, and refuse what is wrong, where it is."""

from __future__ import annotations

import ast
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import pytest

import jscan

HERE = Path(__file__).parent
PACKAGE = Path(jscan.__file__).parent

for checker in ("pyright", "mypy"):
    pytest.importorskip(checker, reason="is in the extra lint")
pytestmark = pytest.mark.any_jax

Found = set[tuple[str, int, str]]  # file, line, rule


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs, away from the settings of this project."""
    folder = tmp_path_factory.mktemp("programs")
    for name in ("program.py", "misuses.py"):
        shutil.copy(HERE / name, folder)
    return folder


@pytest.fixture(scope="module")
def by_pyright(folder: Path) -> Found:
    options = ["--outputjson", "--pythonpath", sys.executable]
    told = json.loads(run("pyright", *options, folder=folder))
    assert told["summary"]["filesAnalyzed"] == 2
    return {
        (
            Path(one["file"]).name,
            one["range"]["start"]["line"] + 1,
            one.get("rule", one["message"]),
        )
        for one in told["generalDiagnostics"]
    }


@pytest.fixture(scope="module")
def by_mypy(folder: Path) -> Found:
    options = ["--strict", "--follow-imports=silent", "--hide-error-context"]
    told = run("mypy", *options, folder=folder)
    assert "checked 2 source files" in told
    line = re.compile(r"^(\S+?):(\d+): error: .*\[(\S+)\]$", re.MULTILINE)
    return {(file, int(at), rule) for file, at, rule in line.findall(told)}


def run(checker: str, *options: str, folder: Path) -> str:
    found = subprocess.run(
        [sys.executable, "-m", checker, *options, "program.py", "misuses.py"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "MYPYPATH": str(PACKAGE.parent), "NO_COLOR": "1"},
    )
    assert found.returncode == 1, found.stderr  # one of the programs is wrong
    return found.stdout


def asked_for(position: int) -> dict[int, str]:
    """Of every misuse: its line, and the rule that one of the checkers names."""
    lines = (HERE / "misuses.py").read_text().splitlines()
    marked = {
        n: line.split("  # ")[1] for n, line in enumerate(lines, 1) if "  # " in line
    }
    return {number: rules.split()[position] for number, rules in marked.items()}


def test_a_right_program_is_accepted(by_pyright: Found, by_mypy: Found):
    assert not [one for one in by_pyright | by_mypy if one[0] == "program.py"]


@pytest.mark.parametrize("checker", ["pyright", "mypy"])
def test_misuses_are_refused_where_they_are(
    checker: str, request: pytest.FixtureRequest
):
    told: Found = request.getfixturevalue(f"by_{checker}")
    found = {(line, rule) for file, line, rule in told if file == "misuses.py"}
    wanted = asked_for(("pyright", "mypy").index(checker))
    assert len(wanted) >= 10
    assert {*wanted.items()} <= found
    assert {line for line, _ in found} == {*wanted}


def test_the_right_program_calls_every_public_name():
    tree = ast.parse((HERE / "program.py").read_text())
    called = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "jscan"
    }
    assert {*jscan.__all__} <= called


def test_the_right_program_runs():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        runpy.run_path(str(HERE / "program.py"))["main"]()
