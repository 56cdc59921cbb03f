"""Everything public pickles and can be copied, or says why not."""

import copy
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jscan

pytestmark = pytest.mark.any_jax

OLD = Path(__file__).parent / "data" / "of_0_1_0.pickle"
COUNT = jscan.shared(0.0, name="count")


def double(x, times=2):
    return x * times + COUNT, {COUNT: COUNT + 1.0}


PLAIN = jscan.function(double, static_argnames="times", name="plain")


@jscan.function
def decorated(x):
    return x + COUNT


class Model:
    def __init__(self, scale: float) -> None:
        self.scale = scale

    @jscan.function
    def scaled(self, x):
        return self.scale * x

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Model) and self.scale == other.scale

    def __hash__(self) -> int:
        return hash(self.scale)


def pickled(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


def report() -> jscan.Report:
    return jscan.explain(lambda x: jscan.reduce(lambda a, b: a + b, x, 0.0)[0])(
        jnp.arange(4.0)
    )


def profile() -> jscan.profile:
    with jscan.profile() as found:
        jscan.scan(lambda x: x, jnp.arange(3.0), name="loop")
    return found


@pytest.mark.parametrize("through", [pickled, copy.deepcopy, copy.copy])
def test_errors(through: Any):
    with pytest.raises(jscan.NonFiniteError) as caught:
        jscan.scan(jnp.log, np.array([1.0, -1.0]), mode="DEBUG")
    error = through(caught.value)
    assert str(error) == str(caught.value)
    assert (error.step, error.output) == (1, "output 0")
    assert error.inputs == {"sequences[0][t]": -1.0}
    values = [getattr(jscan, name) for name in jscan.__all__]
    kinds = list(filter(_is_error, values))
    assert len(kinds) == 9
    for kind in kinds:
        again = through(kind("a text"))
        assert type(again) is kind
        assert again.args == ("a text",)


def _is_error(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, jscan.ScanError)


@pytest.mark.parametrize("through", [pickled, copy.deepcopy])
def test_values(through: Any):
    rng = jscan.RandomStreams(5)
    draw = rng.normal(size=(2,))
    result = jscan.scan(lambda x: (x * 2, {COUNT: COUNT + 1.0}), jnp.arange(3.0))
    again = through(result)
    assert again.outputs.tolist() == [0.0, 2.0, 4.0]
    assert [(v.name, float(x)) for v, x in again.updates.items()] == [
        ("count", float(COUNT.value) + 3.0)
    ]
    assert (again.n_steps, again.mask.tolist()) == (3, [True] * 3)
    found = report()
    assert str(through(found)) == str(found)
    assert through(profile()).loops["loop"].steps == 3
    one, other = through((rng, draw))
    assert other._stream is one.state
    assert other.value.tolist() == draw.value.tolist()
    assert through(jscan.until(True)).condition is True


@pytest.mark.parametrize("through", [pickled, copy.deepcopy])
def test_draws(through: Any):
    rng = jscan.RandomStreams(5)
    for draw in (rng.choice(size=(3,), a=5), rng.permutation(n=4), rng.multinomial()):
        again = through(draw)
        assert repr(again) == repr(draw)
        assert again.value.tolist() == draw.value.tolist()


@pytest.mark.parametrize("through", [pickled, copy.deepcopy])
def test_functions(through: Any):
    again = through(PLAIN)
    assert (again.name, again(1.0, times=3), PLAIN(1.0, times=3)) == ("plain", 3.0, 4.0)
    assert through(decorated) is decorated
    assert decorated(1.0) == 3.0
    COUNT.set_value(0.0)
    assert through(Model(3.0).scaled)(2.0) == 6.0
    with pytest.raises(jscan.ScanTypeError, match=r"function 'plain': a call"):
        again()


def test_a_function_without_a_module_says_so():
    local = jscan.function(lambda x: x)
    with pytest.raises((pickle.PicklingError, AttributeError), match=r"<lambda>"):
        pickle.dumps(local)
    assert copy.deepcopy(local)(2.0) == 2.0


def test_pickles_name_the_package():
    for value in (COUNT, jscan.Updates({COUNT: 1.0}), report(), PLAIN, profile()):
        text = pickle.dumps(value)
        assert b"jscan" in text
        assert b"jscan._shared" not in text
        assert b"jscan._updates" not in text
    for name in jscan.__all__:
        assert getattr(jscan, name).__module__ == "jscan"


def test_a_pickle_of_an_earlier_version():
    """Written by 0.1.0, when pickles named the files in which classes are."""
    _check_old(pickle.loads(OLD.read_bytes()))


def test_a_pickle_of_an_earlier_version_is_the_first_thing_that_is_loaded():
    code = (
        f"import pickle; print(pickle.loads(open({str(OLD)!r}, 'rb').read())['count'])"
    )
    done = [sys.executable, "-W", "error", "-c", code]
    text = subprocess.run(done, capture_output=True, text=True, check=True).stdout
    assert text.startswith("<SharedVariable count: ")


def _check_old(old: Any) -> None:
    value = old["w"].get_value()
    assert value["a"].tolist() == [0.0, 1.0, 2.0]
    assert (value["b"][0], value["b"][1]) == (1.5, 4)
    assert old["count"].name == "count"
    assert old["draw"]._stream is old["rng"].state
    assert int(old["rng"].state.value.counter) == 1
    same = jscan.RandomStreams(11)
    same.uniform().value  # noqa: B018
    with jax.enable_x64(False):
        assert old["draw"].value.tolist() == same.normal(size=(2,)).value.tolist()
    assert old["result"].outputs.tolist() == [0.0, 2.0, 4.0]
    assert list(old["updates"]) == [old["count"]]
    assert old["report"].loops[0].fired == ("save_memory",)
    kinds = [type(error) for error in old["errors"]]
    assert kinds == [
        jscan.ScanTypeError,
        jscan.ScanValueError,
        jscan.UpdateCollision,
        jscan.NonFiniteError,
    ]
    assert old["errors"][3].step == 3
    assert old["profile"].loops["p"].steps == 3
    assert old["until"].condition
    add = jscan.function(lambda: {old["count"]: old["count"] + np.int32(1)})
    add()
    assert old["count"].get_value() == 1


def test_a_pickle_from_before_the_rooms():
    """Written when every file lay in one folder; draws keep their samples."""
    old = pickle.loads((OLD.parent / "of_2026_11_28.pickle").read_bytes())
    with jax.enable_x64(False):
        same = jscan.RandomStreams(7)
        drawn = {
            "choice": same.choice(size=(3,), a=5, replace=True),
            "permutation": same.permutation(n=4),
            "multinomial": same.multinomial(pvals=[0.2, 0.8]),
        }
        for name, draw in drawn.items():
            assert old[name]._stream is old["rng"].state
            assert old[name].value.tolist() == draw.value.tolist()
    assert old["w"].get_value()["a"].tolist() == [0.0, 1.0, 2.0]
    old["updates"].apply()
    assert old["w"].get_value()["a"].tolist() == [0.0, 0.0, 0.0]
    assert "accumulate: the sum float32[] stays" in str(old["report"])
    assert str(old["error"]) == "a text"
