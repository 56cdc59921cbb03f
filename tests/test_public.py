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
        for name, value in vars(jscan).items()
        if not name.startswith("_") and not isinstance(value, INCIDENTAL)
    }
    assert reachable == set(jscan.__all__)


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
