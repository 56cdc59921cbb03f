"""Small test loops go through every pass: what pays on a machine is tested apart."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from jscan._optimizer.record import context as around
from support.optimizer.checking import everything_pays


@pytest.fixture(autouse=True)
def small_loops_pay(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Let work leave loops of a few steps, unless a test asks for measured costs.

    Patched with the fixture that tests patch the same name with, so that the last patch
    is the first to be undone.
    """
    if "measured_costs" not in request.fixturenames:
        monkeypatch.setattr(around, "machine_for", everything_pays)


@pytest.fixture
def change_costs(
    small_loops_pay: None, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., None]:
    """Change some costs of that machine, for a test that needs its own."""

    def change(**costs: Any) -> None:
        machine = dataclasses.replace(everything_pays("cpu"), **costs)
        monkeypatch.setattr(around, "machine_for", lambda platform: machine)

    return change


@pytest.fixture(autouse=True)
def failures_raise(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rewrite that fails would leave the program as it was, and a test content."""
    monkeypatch.setenv("JSCAN_DEBUG", "1")


@pytest.fixture
def measured_costs() -> None:
    """Decide as the optimizer does outside tests."""
