"""Tables of costs that a user chooses: which decide, and which are not trusted."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import jscan
from jscan._base.stores import load, save
from jscan._jax.here import here
from jscan._optimizer.costs.speeds import Speeds
from jscan._optimizer.costs.tables import calibrated_file, choose
from jscan._optimizer.options import Options, choices_of
from jscan._tour import calibrate
from support.comparing import assert_close
from support.optimizer.loops import loop_lengths
from support.optimizer.machines import every_machine
from support.optimizer.planning import kept_in

pytestmark = pytest.mark.skipif(
    jax.default_backend() != "cpu", reason="the costs of a CPU are tested"
)
X = jnp.linspace(-1.0, 1.0, 60 * 8, dtype=jnp.float32).reshape(60, 8)
# Of 60 rows a batch saves 60 * 16 = 960 ns at functions of rows of 8.
COSTS = {"batch_start": 1400, "threads_start": 0}


@pytest.fixture(autouse=True)
def a_machine(tmp_path: Path, change_costs):
    known = {f.name for f in dataclasses.fields(calibrate.machine_for("cpu"))}
    change_costs(**{name: COSTS[name] for name in COSTS.keys() & known})
    with kept_in(tmp_path):
        yield


def mapped(x):
    return jax.lax.scan(lambda _, row: (None, jnp.tanh(row)), None, x)[1]


def is_batch(**options):
    return loop_lengths(jscan.optimize(mapped, **options), X) == []


def table(path: Path, made_for=None, **factors):
    save(path, made_for or here(), dataclasses.asdict(Speeds(**factors)))
    return path


def test_a_table_decides(tmp_path):
    """A machine on which vector instructions gain more; one whose threads wake up."""
    assert not is_batch()
    quick = table(tmp_path / "quick.json", narrow=2.0)
    assert is_batch(machine=quick)
    assert is_batch(machine=str(quick))
    slow = table(tmp_path / "slow.json", narrow=2.0, start=10.0)
    assert not is_batch(machine=slow)
    assert not is_batch()  # each by its own
    assert_close(jax.jit(jscan.optimize(mapped, machine=quick))(X), mapped(X))


@pytest.mark.parametrize("name", ["products", "draws", "wide", "memory"])
def test_other_factors_are_of_other_work(name, tmp_path):
    assert not is_batch(machine=table(tmp_path / "it.json", **{name: 20.0}))


def test_a_cheap_start_moves_no_cheap_work(tmp_path):
    machine = table(tmp_path / "it.json", start=0.05)
    cheap = lambda x: jax.lax.scan(lambda h, row: (h + row + 1, h), x[0], x)[1]
    (loop,) = jscan.explain(cheap, machine=machine)(X).loops
    assert "hoist" not in loop.fired


def test_the_environment_chooses_one(tmp_path, monkeypatch):
    monkeypatch.setenv("JSCAN_MACHINE", str(table(tmp_path / "it.json", narrow=2.0)))
    assert is_batch()
    fun = lambda x: jscan.map(jnp.tanh, x).outputs
    assert loop_lengths(fun, X) == []
    monkeypatch.setenv("JSCAN_MACHINE", "")
    assert not is_batch()
    assert loop_lengths(lambda x: fun(x), X) == [60]


def test_the_calibrated_one_is_that_of_this_machine():
    assert not is_batch(machine="calibrated")  # there is none yet
    table(calibrated_file(), narrow=2.0)
    assert is_batch(machine="calibrated")


def test_explain_names_the_table(tmp_path):
    assert "costs of the shipped table" in str(jscan.explain(mapped)(X))
    path = table(tmp_path / "it.json", narrow=2.0)
    report = jscan.explain(mapped, machine=path)(X)
    assert report.costs == f"the table {path}"
    assert str(path) in str(report)


FOREIGN = {
    "another jscan": {"jscan": "0.0.1"},
    "another JAX": {"jax": "0.9.0"},
    "another device": {"device": "Cray-1"},
    "other cores": {"cores": 640},
}


@pytest.mark.parametrize("what", FOREIGN)
def test_a_table_of_another_machine_is_not_used(what, tmp_path):
    made_for = {**here(), **FOREIGN[what]}
    path = table(tmp_path / "it.json", made_for, narrow=2.0)
    assert not is_batch(machine=path)
    ((name, value),) = FOREIGN[what].items()
    costs = jscan.explain(mapped, machine=path)(X).costs
    assert costs.startswith("the shipped table; ")
    assert f"was made for {name} {value}, here is" in costs


@pytest.mark.parametrize("data", [None, [2.0], {"narrow": "fast"}, {"narrow": 1e9}])
def test_a_damaged_table_is_not_used(data, tmp_path):
    path = tmp_path / "it.json"
    save(path, here(), data)
    assert not is_batch(machine=path)
    assert "is not used" in jscan.explain(mapped, machine=path)(X).costs
    table(path, narrow=2.0)
    assert is_batch(machine=path)  # it was mended
    path.write_text(path.read_text().replace("2.0", "1.0", 1))
    assert "it is damaged" in jscan.explain(mapped, machine=path)(X).costs


def test_no_table_at_all(tmp_path, monkeypatch):
    missing = tmp_path / "none.json"
    with pytest.raises(jscan.ScanValueError, match="machine: needed a file"):
        jscan.optimize(mapped, machine=missing)
    with pytest.raises(jscan.ScanTypeError, match="machine: needed a file"):
        jscan.optimize(mapped, machine=3)  # pyright: ignore
    monkeypatch.setenv("JSCAN_MACHINE", str(missing))
    with pytest.raises(jscan.ScanValueError, match="variable JSCAN_MACHINE"):
        jax.jit(lambda x: jscan.map(jnp.tanh, x).outputs)(X)


def test_names_of_regions_say_what_was_chosen(tmp_path):
    """What compares them, and jit's caches, sees all of it."""
    chosen = choose(table(tmp_path / "it.json"))
    for options in (
        Options(),
        Options(frozenset({"hoist.cut_rows", "sink"}), 7),
        Options(plan="measure", plan_ms=1),
        Options(unasked=True, machine=chosen),
        Options(frozenset(), 0, True, "measure", 20, chosen),
    ):
        assert choices_of(options.name) == options


def test_calibrate_measures_stores_and_is_used(monkeypatch, capsys):
    """A machine like the one of the shipped costs has factors of one."""
    for kind, there in calibrate.REFERENCE.items():
        factor = 2.0 if kind == "narrow" else 1.0
        monkeypatch.setitem(calibrate.PROBES, kind, lambda x=there, f=factor: f * x)
    calibrate.calibrate()
    told = capsys.readouterr().out
    assert str(calibrated_file()) in told
    data, why = load(calibrated_file(), here())
    assert why is None
    assert Speeds.read(data) == Speeds(narrow=2.0)
    assert is_batch(machine="calibrated")


def test_what_makes_no_sense_is_limited(monkeypatch, capsys):
    """A batch that saves nothing, or a clock that stood still."""
    for kind in calibrate.REFERENCE:
        taken = -3.0 if kind == "wide" else 1e12
        monkeypatch.setitem(calibrate.PROBES, kind, lambda taken=taken: taken)
    speeds = calibrate.measure()
    assert speeds == Speeds(20, 20, 0.05, 20, 20, 20)
    monkeypatch.setattr(calibrate, "_SECONDS", -1.0)
    assert calibrate.measure() == Speeds()
    assert capsys.readouterr().out.count("no time was left") == len(calibrate.PROBES)


def test_probes_run(monkeypatch):
    """On few steps, as fast as may be: what they take is not looked at."""
    race = calibrate.race
    monkeypatch.setattr(calibrate, "_STEPS", 4)
    monkeypatch.setattr(
        calibrate, "race", lambda *given, **how: race(*given, **{**how, "seconds": 0.0})
    )
    assert isinstance(calibrate.measure(), Speeds)


def test_where_nothing_is_weighed(capsys):
    with every_machine(
        dataclasses.replace(calibrate.machine_for("cpu"), batch_start=0)
    ):
        calibrate.calibrate()
    assert "nothing has to be weighed" in capsys.readouterr().out
    assert not calibrated_file().exists()
