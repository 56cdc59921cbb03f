"""Nothing is public by accident: attributes, reprs, help, and what a shell is told."""

from __future__ import annotations

import inspect
import os
import pydoc
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jscan
from jscan import __main__ as shell

pytestmark = pytest.mark.any_jax

API = Path(__file__).parents[1] / "docs" / "api"


@jscan.function
def double(x: jax.Array) -> jax.Array:
    return 2 * x


def collected() -> jscan.profile:
    with jscan.profile() as found:
        jscan.scan(jnp.tanh, np.ones(3), name="tanh")
    return found


def explained() -> jscan.Report:
    return jscan.explain(lambda x: jscan.map(jnp.tanh, x).outputs)(jnp.ones(3))


def caught() -> jscan.NonFiniteError:
    with pytest.raises(jscan.NonFiniteError) as error:
        jscan.scan(jnp.log, np.array([-1.0]), mode="DEBUG")
    return error.value


# An object of every public class.
SAMPLES: dict[str, Callable[[], Any]] = {
    "Draw": lambda: jscan.RandomStreams(1).normal(size=(2, 3)),
    "Drawing": lambda: jscan.draw(jnp.tanh, np.ones(3)),
    "Function": lambda: double,
    "LoopProfile": lambda: collected().loops["tanh"],
    "LoopReport": lambda: explained().loops[0],
    "MRG_RandomStreams": lambda: jscan.MRG_RandomStreams(1),
    "NonFiniteError": caught,
    "OrderedUpdates": lambda: jscan.OrderedUpdates(),
    "RandomStreams": lambda: jscan.RandomStreams(1),
    "Report": explained,
    "ScanResult": lambda: jscan.scan(jnp.tanh, np.ones(3)),
    "SharedVariable": lambda: jscan.shared(np.ones((3, 4), np.float32), name="W"),
    "Updates": lambda: jscan.Updates(),
    "profile": collected,
    "until": lambda: jscan.until(np.bool_(True)),
}
ERRORS = [name for name in jscan.__all__ if name.endswith(("Error", "Collision"))]
SAMPLES |= {
    name: (lambda name=name: getattr(jscan, name)("a text"))
    for name in ERRORS
    if name not in SAMPLES
}


def test_there_is_a_sample_of_every_class():
    classes = {n for n in jscan.__all__ if isinstance(getattr(jscan, n), type)}
    assert classes == {*SAMPLES}


def own(kind: type) -> list[type]:
    """The classes of jscan's that a class is made of."""
    return [c for c in kind.__mro__ if c.__module__.partition(".")[0] == "jscan"]


def listed(kind: type) -> set[str]:
    """What the class's docstring lists as attributes or arguments."""
    found = set()
    for part in own(kind):
        for heading in ("Attributes", "Args"):
            block = re.search(
                rf"^    {heading}:\n((?:        .*\n|\n)+)", part.__doc__ or "", re.M
            )
            if block:
                found |= set(re.findall(r"^        (\w+):", block[1], re.M))
    return found


@pytest.mark.parametrize("name", SAMPLES)
def test_every_attribute_is_documented(name: str):
    """Methods and properties by their docstrings, others in that of the class."""
    sample, kind = SAMPLES[name](), getattr(jscan, name)
    kept = {n for n in getattr(sample, "__dict__", {}) if not n.startswith("_")}
    if name in ("Function", *ERRORS):  # what Python and `functools.wraps` put there
        kept -= {"args"}
    defined = {n: v for c in own(kind) for n, v in vars(c).items() if n[0] != "_"}
    told = {
        n
        for n, v in defined.items()
        if inspect.getdoc(getattr(v, "fget", v) if isinstance(v, property) else v)
        and (callable(v) or isinstance(v, property))
    }
    assert kept | {*defined} <= told | listed(kind)
    attributes = {
        n for n in listed(kind) if n not in inspect.signature(kind).parameters
    }
    assert not [n for n in attributes if not hasattr(sample, n)]


@pytest.mark.parametrize("name", SAMPLES)
def test_no_repr_shows_an_address_or_an_empty_name(name: str):
    text = repr(SAMPLES[name]())
    assert not re.search(r"0x[0-9a-f]{6}|object at", text)
    assert text


def test_reprs_say_name_shape_and_dtype():
    weights = jscan.shared({"w": np.ones((3, 4), np.float32), "b": np.ones(2)}, "net")
    assert repr(SAMPLES["SharedVariable"]()) == "<SharedVariable W: float32[3,4]>"
    assert repr(weights) == "<SharedVariable net: {'b': float64[2], 'w': float32[3,4]}>"
    assert repr(jscan.shared(np.float32(0.1))) == (
        "<SharedVariable unnamed: float32[] = 0.1>"
    )
    many = jscan.shared([np.ones(2)] * 30, name="many")
    assert repr(many) == "<SharedVariable many: tree of 30 arrays>"
    assert repr(SAMPLES["Draw"]()) == "<Draw normal: float64[2,3]>"
    rng = jscan.RandomStreams(1)
    rng.normal().value  # noqa: B018
    assert repr(rng) == "<RandomStreams after 1 draw>"
    result = jscan.scan(lambda x: {COUNT: COUNT + x}, np.arange(3))
    assert repr(result) == (
        "ScanResult(outputs=None, "
        "updates={<SharedVariable count: int64[] = 0>: int64[]}, n_steps=3)"
    )
    assert repr(double) == "<Function double>"
    assert repr(collected()).splitlines()[1].startswith("tanh  1 ")


COUNT = jscan.shared(0, name="count")


def test_reprs_read_nothing():
    """In a trace, where a read would be an input of the program, and after a gift."""
    rng = jscan.RandomStreams(1)
    scale = jscan.shared(2.0, name="scale")
    draw = rng.normal(std=scale)
    said: list[str] = []

    @jscan.function
    def silent(x: Any) -> Any:
        said.extend(map(repr, (scale, draw, rng, rng.state)))
        return x

    silent(1.0)
    assert said == [
        "<SharedVariable scale: float64[]>",
        "<Draw normal>",
        "<RandomStreams>",
        "<SharedVariable RandomStreams>",
    ]
    said.clear()
    jax.jit(lambda x: said.append(repr(scale)) or x)(1.0)
    assert said == ["<SharedVariable scale: float64[] = 2.0>"]
    jax.tree.leaves(scale.value)[0].delete()
    assert repr(scale) == "<SharedVariable scale: float64[]>"
    jax.grad(lambda x: said.append(repr(jscan.shared(x, name="inner"))) or x)(1.0)
    assert said[1] == "<SharedVariable inner: float64[]>"


def test_signatures_are_kept():
    def power(x: float, exponent: int = 2, *, scale: float = 1.0) -> float:
        """Raise."""
        return scale * x**exponent

    for verb in (jscan.function, jscan.optimize, jscan.explain):
        kept = verb(power)
        assert inspect.signature(kept) == inspect.signature(power)
        assert kept.__doc__ == "Raise."


def test_help_is_a_page_that_lists_every_name():
    page = pydoc.plain(pydoc.render_doc(jscan))
    start = page[: page.index("PACKAGE CONTENTS")]
    assert ">>> rows, updates = jscan.scan(" in start
    assert not [n for n in jscan.__all__ if not re.search(rf"\b{n}\b", start)]
    rooms = page[page.index("PACKAGE CONTENTS") : page.index("CLASSES")]
    assert len(rooms.split()) < 30


def in_a_shell(*words: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "jscan", *words],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **environment},
    )
    return done.stdout


def test_info_says_what_is_installed_and_set(tmp_path: Path):
    set_to = {"JSCAN_OPTIMIZE": "0", "JSCAN_OPTIMISE": "0"}
    told = in_a_shell("info", XDG_CACHE_HOME=str(tmp_path), **set_to)
    for part in (
        f"jscan {jscan.__version__}\n",
        f"jax {jax.__version__}",
        "cpu",
        "JSCAN_OPTIMIZE=0\n",
        "JSCAN_OPTIMISE=0  (no switch",
        "calibrated: no, there is none",
        "cpu: measured",
        "512 entries",
    ):
        assert part in told


def test_info_counts_what_caches_hold(capsys: pytest.CaptureFixture[str]):
    jscan.clear_caches()
    shell.main(["info"])
    before = capsys.readouterr().out
    jscan.scan(jnp.tanh, np.ones(3))
    shell.main(["info"])
    after = capsys.readouterr().out
    entry = re.compile(r"(\d+) in jscan._programs.regions._entry")
    (first,), (second,) = entry.findall(before), entry.findall(after)
    assert (int(first), int(second)) == (0, 1)


def test_help_in_a_shell_takes_no_tour(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as end:
        shell.main(["--help"])
    assert end.value.code == 0
    told = capsys.readouterr().out
    for verb in ("tour", "info", "calibrate", "wisdom"):
        assert verb in told
    assert "Sunspots" not in told
    with pytest.raises(SystemExit) as end:
        shell.main(["turo"])
    assert end.value.code == 2
