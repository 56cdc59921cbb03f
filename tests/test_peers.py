"""`scripts/peers` finds what fails only under `optimize`; its patch goes unnoticed."""

import importlib.machinery
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = pytest.mark.any_jax

SCRIPT = Path(__file__).parents[1] / "scripts" / "peers"

# An optimizer that is wrong by one stands for every fault.
SUITE = """
import functools, inspect
from pathlib import Path
import jax, jscan, pytest

def power(x, n=3):
    return jax.lax.scan(lambda c, _: (c * x, None), x, length=n)[0]

@pytest.fixture
def wrong(monkeypatch):
    wrong = lambda fun: lambda *args: jax.tree.map(lambda x: x + 1, fun(*args))
    monkeypatch.setattr(jscan, "optimize", wrong)

def test_wrong_scan(wrong):
    assert power(2.0) == 16

def test_wrong_jit(wrong):
    assert jax.jit(lambda x: x * 2)(2.0) == 4

def test_wrong_jit_decorator(wrong):
    @functools.partial(jax.jit, static_argnames="n")
    def times(x, n):
        return x * n
    assert times(2.0, n=2) == 4

def test_in_a_jit_too():
    assert [e.primitive.name for e in jax.make_jaxpr(power)(2.0).eqns][-1] == "scan"

def test_wrong_anyway():
    assert power(2.0) == 17

def test_wrong_the_second_time():
    runs = Path("runs")
    done = len(runs.read_text()) if runs.exists() else 0
    runs.write_text("x" * (done + 1))
    assert done != 1

def test_unnoticed_static_arguments():
    @functools.partial(jax.jit, static_argnums=1, static_argnames="how")
    def powered(x, n, *, how):
        assert type(n) is int and type(how) is list_of_one
        return power(x, n)
    class list_of_one(list):
        __hash__ = object.__hash__
    assert powered(2.0, 3, how=list_of_one([1])) == 16
    assert [*inspect.signature(powered).parameters] == ["x", "n", "how"]

def test_unnoticed_traces():
    traces = []
    def once(x):
        traces.append(x)
        return x + 1
    first, second = jax.jit(once), jax.jit(once)
    assert first(1.0) == second(2.0) - 1 == first.lower(1.0).compile()(1.0) == 2
    assert len(traces) == 1 and first.__wrapped__ is once

def test_unnoticed_methods_and_callables():
    class Adder:
        def __init__(self, n):
            self.n = n
        def __call__(self, x):
            return x + self.n
        @jax.jit
        def added(self: None, x):
            return x + 1
    assert jax.jit(Adder(2))(1) == jax.jit(Adder(2).__call__)(1) == 3
    with pytest.raises(TypeError, match="callable"):
        jax.jit(3)

def test_unnoticed_by_jscan():
    assert jscan.scan(lambda x: x * 2, outputs_info=1.0, n_steps=3).outputs[-1] == 8
"""


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("peers", str(SCRIPT))
    spec = importlib.util.spec_from_loader("peers", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "peers", module)  # where dataclasses look
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    loader.exec_module(module)
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    return module


def run_main(peers: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run the script on the suite in a folder, which is its cache, too."""
    project = ("pytest", "test_*.py", "tiny", "")
    monkeypatch.setattr(peers, "PROJECTS", {"tiny": project})
    monkeypatch.setattr(peers, "CACHE", folder)
    options = ["--python", sys.executable, "--workers=0", f"--checkout=tiny={folder}"]
    monkeypatch.setattr(sys, "argv", ["peers", *options])
    return peers.main()


def test_what_fails_only_under_optimize_is_a_new_failure(
    peers: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "test_tiny.py").write_text(SUITE)
    assert run_main(peers, tmp_path, monkeypatch) == 1
    said = capsys.readouterr().out
    new = said.partition("tiny: in a jit")[0]
    named = [line.split("::")[1] for line in new.splitlines() if "::" in line]
    assert named == ["test_wrong_jit", "test_wrong_jit_decorator", "test_wrong_scan"]
    (row,) = (line.split() for line in said.splitlines() if line.startswith("tiny "))
    assert row == ["tiny", pytest.__version__, "9", "1", "5", "3", "1", "0"]
    assert "tiny: in a jit, too: test_tiny.py::test_in_a_jit_too" in said


def test_plain_results_are_kept_and_without_new_failures_the_exit_status_is_0(
    peers: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "test_tiny.py").write_text("def test_right(): pass")
    assert run_main(peers, tmp_path, monkeypatch) == 0
    (log,) = tmp_path.glob("*-plain.log")
    log.unlink()
    assert run_main(peers, tmp_path, monkeypatch) == 0
    assert not log.exists()


def test_what_ends_the_process_is_named(
    peers: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    suite = """
import os
def test_abort():
    if "PEERS_FORCE" in os.environ:
        os._exit(1)
"""
    (tmp_path / "test_tiny.py").write_text(suite)
    assert run_main(peers, tmp_path, monkeypatch) == 1
    assert "tiny: not judged: test_tiny.py::test_abort" in capsys.readouterr().out


def test_help_says_how_to_run_it() -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, "--help"], text=True, capture_output=True
    )
    assert done.returncode == 0
    assert "--checkout PROJECT=FOLDER" in done.stdout
