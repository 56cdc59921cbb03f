"""Whose error it is: the innermost loop or function that refuses something signs it."""

import copy
import pickle
import traceback
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import pytest

import jscan

pytestmark = pytest.mark.any_jax

x = jnp.arange(3.0)
v = jscan.shared(0.0, name="v")
scan: Any = jscan.scan
chunks: Any = jscan.scan_checkpoints
Step = Callable[[Any], Any]


def merges(a):
    return a, jscan.Updates({v: a}) + jscan.Updates({v: a + 1})


def raises(a):
    raise jscan.ScanValueError("mine")


STEPS: dict[str, tuple[Step, str]] = {
    "the inner loop": (
        lambda a: scan(lambda b: b, jnp.zeros(()), name="inner").outputs,
        "scan 'inner': sequences[0]: needed",
    ),
    "the inner step": (
        lambda a: jscan.map(lambda b: None, x, name="inner").outputs,
        "scan 'inner': the step's return value",
    ),
    "an inner loop without a name": (
        lambda a: jscan.map(lambda b: None, x).outputs,
        "scan: the step's return value",
    ),
    "the outer step": (lambda a: None, "scan 'outer': the step's return value"),
    "the outer loop after an inner one": (
        lambda a: (jscan.map(lambda b: b, x, name="inner").outputs, jscan.until(x > 1)),
        "scan 'outer': until",
    ),
    "two values": (lambda a: (a, [(v, a), (v, a + 1)]), "scan 'outer': Collision"),
    "a value that does not fit": (
        lambda a: (a, {v: jnp.ones(3)}),
        "scan 'outer': the update of",
    ),
    "updates that the step merges": (merges, "Updates: Collision"),
    "an error of the step's own": (raises, "mine"),
}


@pytest.mark.parametrize("mode", [None, "DEBUG"])
@pytest.mark.parametrize(("step", "start"), STEPS.values(), ids=STEPS)
def test_the_loop_to_blame_signs_the_error(step: Step, start: str, mode: str | None):
    with pytest.raises(jscan.ScanError) as caught:
        scan(step, x, name="outer", mode=mode)
    text = str(caught.value)
    assert text.startswith(start)
    for again in (pickle.loads(pickle.dumps(caught.value)), copy.copy(caught.value)):
        assert (type(again), str(again)) == (type(caught.value), text)


def test_other_verbs_sign_too():
    step = lambda a: a
    with pytest.raises(jscan.ScanValueError, match=r"^scan 'r': outputs_info\[0\]: "):
        jscan.reduce(step, jnp.zeros(0), None, name="r")
    with pytest.raises(jscan.ScanValueError, match=r"^scan 'c': save_every_N: .*'sqrt"):
        chunks(step, x, save_every_N="sqrt", name="c")
    with pytest.raises(jscan.ScanTypeError, match=r"^scan: name: needed a string"):
        scan(step, x, name=3)
    with pytest.raises(jscan.ScanTypeError, match=r"^until: a truth value: "):
        bool(jscan.until(True))


def test_functions_sign_what_is_theirs():
    stops = jscan.function(lambda a: (a, jscan.until(a > 1)), name="stops")
    with pytest.raises(jscan.ScanValueError, match=r"^function 'stops': the return"):
        stops(1.0)
    forgets = jscan.function(lambda a: {v: None}, name="forgets")
    with pytest.raises(jscan.ScanTypeError, match=r"^function 'forgets': the update"):
        forgets(1.0)
    loops = jscan.function(lambda a: jscan.map(lambda b: None, x, name="in").outputs)
    with pytest.raises(jscan.ScanValueError, match=r"^scan 'in': the step's return"):
        loops(1.0)


def test_an_error_of_the_step_gains_no_frames_but_those_of_the_call():
    def fails(a):
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError) as caught:
        scan(fails, x, mode="DEBUG")
    places = [frame.filename for frame in traceback.extract_tb(caught.tb)]
    assert not any("contextlib" in place or "errors.py" in place for place in places)
    assert len(places) <= 9
