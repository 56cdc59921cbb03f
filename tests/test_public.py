"""The package as others meet it: names, documentation, imports, wheel."""

from __future__ import annotations

import re
import subprocess
import sys
import types
import zipfile
from pathlib import Path

import pytest

import jscan

pytestmark = pytest.mark.any_jax

# What a module holds besides its own names: modules, and `annotations` of __future__.
INCIDENTAL = (types.ModuleType, type(annotations))

CHECKOUT = Path(__file__).parents[1]


def python(code: str, folder: Path) -> str:
    """Run `code` in a Python of its own, in `folder`."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_names_are_sorted():
    assert list(jscan.__all__) == sorted(set(jscan.__all__))


def test_names_are_complete():
    reachable = {
        name
        for name in dir(jscan)
        if not name.startswith("_") and not isinstance(getattr(jscan, name), INCIDENTAL)
    }
    assert reachable == set(jscan.__all__)


def test_what_is_not_there_is_said_to_be_missing():
    with pytest.raises(AttributeError, match=r"^module 'jscan' has no attribute"):
        _ = jscan.scna  # type: ignore[attr-defined]
    assert not hasattr(jscan, "_gone")


@pytest.mark.parametrize("name", jscan.__all__)
def test_name_is_documented_with_an_example(name: str):
    documentation = getattr(jscan, name).__doc__
    assert documentation
    assert re.search(r"^\s*Examples?:$", documentation, re.MULTILINE)
    assert ">>> " in documentation


def test_import_leaves_optional_packages_alone(tmp_path: Path):
    loaded = python("import jscan, sys; print(*sys.modules)", tmp_path).split()
    assert "jscan" in loaded
    assert not {"tqdm", "matplotlib", "scipy", "IPython"} & set(loaded)


# What is loaded with the first loop.
WITH_A_LOOP = {"passes", "rules", "pipeline", "entry", "program", "writing"}


def test_import_loads_nothing_before_it_is_needed(tmp_path: Path):
    code = """
        import sys
        import jscan
        print(*sys.modules)
        from jscan import scan
        print(*sys.modules)
        scan(lambda x: 2 * x, sequences=[1.0, 2.0])
        print(*sys.modules)
    """
    text = python(re.sub(r"^ +", "", code, flags=re.MULTILINE), tmp_path)
    bare, named, used = (set(line.split()) for line in text.splitlines())
    rules = {f"jscan._optimizer.{room}" for room in WITH_A_LOOP}
    assert not {name for name in bare if name.startswith(("jscan._scan", "jax"))}
    assert "jscan._scan.scan" in named
    assert not {"jscan._tour", *rules} & named
    assert rules <= used


def test_built_wheel_works(tmp_path: Path):
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path],
        cwd=CHECKOUT,
        capture_output=True,
        check=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path / "site")
    assert {"jscan/py.typed", "jscan/data/sunspots.csv"} <= names
    assert {name.split("/")[0] for name in names if "dist-info" not in name} == {
        "jscan"
    }

    code = """
        import sys
        sys.path.insert(0, "site")
        import jax.numpy as jnp
        import jscan
        total = jscan.scan(lambda x, t: t + x, jnp.arange(5), 0).outputs[-1]
        print(jscan.__file__, int(total))
    """
    file, total = python(re.sub(r"^ +", "", code, flags=re.MULTILINE), tmp_path).split()
    assert (tmp_path / file).resolve().is_relative_to((tmp_path / "site").resolve())
    assert total == "10"
