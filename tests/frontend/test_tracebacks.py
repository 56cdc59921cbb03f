"""The traceback of an error shows the user's lines, as many as with `lax.scan`."""

import traceback
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import jscan
from jscan._base.errors import is_ours

scan: Any = jscan.scan
W, h0, xs = jnp.ones((3, 3)), jnp.zeros(4), jnp.ones((5, 3))


def step(x_t, h):
    product = jnp.dot(W, h)
    return product + x_t


def by_jax(h, x_t):
    return step(x_t, h), None


def loop(h0):
    return scan(step, xs, h0).outputs[-1].sum()


CALLS: dict[str, Callable[[], Any]] = {
    "scan": lambda: scan(step, xs, h0),
    "reduce": lambda: jscan.reduce(step, xs, h0),
    "map": lambda: jscan.map(step, [xs, jnp.ones((5, 4))]),
    "DEBUG": lambda: scan(step, xs, h0, mode="DEBUG"),
    "jit": lambda: jax.jit(loop)(h0),
    "grad": lambda: jax.grad(loop)(h0),
    "function": lambda: jscan.function(loop)(h0),
    "function in Python": lambda: jscan.function(loop, mode="DEBUG")(h0),
    "optimize": lambda: jscan.optimize(loop)(h0),
    "explain": lambda: jscan.explain(loop)(h0),
    "grad of a cost": lambda: jscan.grad(
        lambda: loop(h0), jscan.shared(jnp.ones(2), name="v")
    ),
    "wrong arity": lambda: scan(lambda x: x, xs, h0),
    "a wrong argument": lambda: scan(step, xs, h0, n_steps=-1),
    "a wrong word": lambda: scan(step, xs=xs),
    "a wrong return value": lambda: scan(lambda x: None, xs),
}


def printed(call: Callable[[], Any]) -> list[str]:
    """The lines that Python prints of the error of a call."""
    with pytest.raises((TypeError, ValueError)) as caught:
        call()
    return "".join(traceback.format_exception(caught.value)).splitlines()


@pytest.mark.parametrize("name", CALLS)
def test_a_traceback_is_no_longer_than_that_of_lax_scan(name: str):
    usual = printed(lambda: jax.lax.scan(by_jax, h0, xs))
    if name == "function in Python":  # there JAX hides none of its frames
        with jax.disable_jit():
            usual = printed(lambda: step(xs[0], h0))
    lines = printed(CALLS[name])
    assert not any("/jscan/_" in line for line in lines), lines
    assert len(lines) <= len(usual) + 8, (usual, lines)


def test_an_error_of_arity_has_nothing_of_inspect():
    lines = printed(CALLS["wrong arity"])
    assert not any("inspect" in line or "exception" in line for line in lines)
    assert len(lines) <= 10


def test_who_asks_for_all_frames_gets_them():
    lines = with_filtering("off", lambda: printed(CALLS["scan"]))
    assert any("/jscan/_" in line for line in lines)


def with_filtering(mode: str, call: Callable[[], Any]) -> Any:
    before = jax.config.jax_traceback_filtering  # type: ignore[attr-defined]
    jax.config.update("jax_traceback_filtering", mode)
    try:
        return call()
    finally:
        jax.config.update("jax_traceback_filtering", before)


def modules(error: BaseException) -> list[str]:
    frames = traceback.walk_tb(error.__traceback__)
    return [frame.f_globals["__name__"] for frame, _ in frames]


@pytest.mark.parametrize(
    "mode", ["tracebackhide", "quiet_remove_frames", "remove_frames"]
)
def test_frames_are_ours_in_no_way_of_filtering(mode: str):
    """The first is JAX's way in IPython."""
    with pytest.raises(TypeError) as caught:
        with_filtering(mode, CALLS["scan"])
    assert not any(map(is_ours, modules(caught.value)))
    assert "step" in [entry.name for entry in caught.traceback]


def test_a_failure_of_jscan_itself_keeps_its_frames(monkeypatch: pytest.MonkeyPatch):
    """Where it lies is what a report has to tell."""
    monkeypatch.setattr("jscan._scan.scan.plan_loop", None)
    with pytest.raises(TypeError, match="not callable") as caught:
        jscan.scan(lambda x: x, jnp.ones(3))
    assert any(map(is_ours, modules(caught.value)))


def test_words_of_jax_about_its_frames_do_not_follow_an_error_of_ours():
    with pytest.raises(jscan.ScanError) as caught:
        jscan.scan(lambda x: None, jnp.ones(3))
    assert "__notes__" not in vars(caught.value) or not caught.value.__notes__
