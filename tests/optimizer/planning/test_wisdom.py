"""What was measured is remembered on disk, and trusted only where it was measured."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import jscan
from jscan.__main__ import main
from jscan._base.stores import load, save
from jscan._optimizer.planning import wisdom as book
from jscan._optimizer.record.verdict import Verdict
from support.optimizer.planning import kept_in, times, timing_of

X = jnp.linspace(-1.0, 1.0, 24).reshape(8, 3)


@pytest.fixture(autouse=True)
def wisdom(tmp_path: Path):
    with kept_in(tmp_path) as folder:
        yield folder


def fun(x):
    return jax.lax.scan(lambda h, x: (h + jnp.sin(x), h * x), x[0], x)[1]


def measured(function=fun, x=X):
    with times({"as written": 0.1}) as races:
        (loop,) = jscan.explain(function, plan="measure", plan_seconds=200)(x).loops
    return timing_of(loop), races


def test_a_loop_is_timed_once(wisdom):
    """Also when this process has forgotten it, and when another function has it."""
    first, races = measured()
    assert races
    assert not first.remembered
    assert len(list(wisdom.iterdir())) == 1
    for _ in range(2):
        again, races = measured(lambda x: fun(x))
        assert not races
        assert again.remembered
        assert again.times == first.times
        jscan.clear_caches()


def test_other_types_sizes_and_choices_are_another_loop(wisdom):
    measured()
    for other in (X.astype(jnp.float32), X[:5]):
        assert measured(x=other)[1]
    with times({}) as races:
        jscan.explain(fun, plan="measure", passes=["sink"])(X)
        assert races
    assert len(list(wisdom.iterdir())) == 4


DAMAGE = {
    "cut off": lambda text: text[: len(text) // 2],
    "empty": lambda text: "",
    "another kind": lambda text: "[1, 2]",
    "no text": lambda text: b"\xff\xfe",
    "changed by hand": lambda text: text.replace('"as written"', '"eager"', 1),
    "another jscan": lambda text: resigned(text, "jscan", "0.0.1"),
    "another JAX": lambda text: resigned(text, "jax", "0.9.0"),
    "another device": lambda text: resigned(text, "device", "Cray-1"),
    "other cores": lambda text: resigned(text, "cores", 640),
}


def resigned(text, name, value):
    """A whole file, made where something else is."""
    content = json.loads(text)
    made_for = {**content["made for"], name: value}
    path = Path(os.environ["XDG_CACHE_HOME"]) / "other.json"
    save(path, made_for, content["data"])
    return path.read_text()


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_damaged_or_foreign_is_not_there(damage, wisdom):
    measured()
    (path,) = wisdom.iterdir()
    changed = DAMAGE[damage](path.read_text())
    path.write_bytes(changed if isinstance(changed, bytes) else changed.encode())
    jscan.clear_caches()
    timing, races = measured()
    assert races
    assert not timing.remembered
    jscan.clear_caches()
    assert not measured()[1]  # it was written anew


@pytest.mark.parametrize(
    "data", [{}, {"form": "eager", "times": {}}, None, {"times": 3}]
)
def test_a_file_of_ours_that_says_nothing(data, wisdom):
    measured()
    (path,) = wisdom.iterdir()
    save(path, book.here(), data)
    jscan.clear_caches()
    assert measured()[1]


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(file))
    assert measured()[1]
    assert not measured()[1]  # this process knows it


PROGRAM = """
import sys, jax, jax.numpy as jnp
jax.config.update("jax_enable_x64", True)
import jscan
from jscan._optimizer.planning import planner
race, races = planner.race, []
planner.race = lambda *args: races.append(1) or race(*args)
x = jnp.linspace(-1.0, 1.0, 24).reshape(8, 3)
def fun(x):
    return jax.lax.scan(lambda h, x: (h + jnp.sin(x), h * x), x[0], x)[1]
jax.jit(jscan.optimize(fun, plan="measure", plan_seconds=200))(x)
print(len(races))
"""


def process():
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True
    )


def test_a_second_process_does_not_time_again():
    """Not even what two processes have timed, and written, at the same time."""
    for each in [process(), process()]:
        out, _ = each.communicate(timeout=300)
        assert int(out) >= 0
        assert each.returncode == 0
    out, _ = process().communicate(timeout=300)
    assert int(out) == 0


def test_writers_never_show_half_a_file(tmp_path):
    """Many write one file, and whoever reads it meanwhile finds it whole."""
    path = tmp_path / "one.json"
    save(path, {"a": 1}, [0] * 1000)
    done = threading.Event()

    def write(number):
        while not done.is_set():
            save(path, {"a": 1}, [number] * 1000)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(300):
        data, why = load(path, {"a": 1})
        assert why is None
        assert len({*data}) == 1
    done.set()
    for thread in threads:
        thread.join()
    assert [p.name for p in tmp_path.iterdir()] == ["one.json"]


def test_a_verdict_in_words():
    assert "not measured: x" in str(Verdict(why="x"))
    known = Verdict("eager", {"as written": 2.0, "eager": 1.0}, remembered=True)
    assert known.gain == 2
    assert str(known).startswith("measured: 2 s as written, 1 s eager, 2.00x as fast")


def test_wisdom_goes_from_one_folder_to_another(tmp_path, wisdom, capsys):
    measured()
    file = tmp_path / "wisdom.json"
    main(["wisdom", "export", str(file)])
    main(["wisdom", "forget"])
    assert not list(wisdom.iterdir())
    jscan.clear_caches()
    main(["wisdom", "import", str(file)])
    timing, races = measured()
    assert not races
    assert timing.remembered
    told = capsys.readouterr().out
    assert [line.split(",")[0][:6] for line in told.splitlines()] == ["1 loop"] * 3


def test_only_whole_files_are_taken(tmp_path, wisdom):
    measured()
    (known,) = wisdom.iterdir()
    entry = json.loads(known.read_text())
    entry["data"]["form"] = "eager"
    entries = {known.stem: entry, "../../outside": json.loads(known.read_text())}
    book.forget()
    file = tmp_path / "wisdom.json"
    save(file, {}, entries)
    main(["wisdom", "import", str(file)])
    assert not list(tmp_path.rglob("*outside*"))
    assert not list(wisdom.iterdir())
    file.write_text(file.read_text()[:-9])
    with pytest.raises(SystemExit, match="is not used: it is damaged"):
        main(["wisdom", "import", str(file)])
