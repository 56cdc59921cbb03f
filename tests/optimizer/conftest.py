"""Small test loops go through every pass: what pays on a machine is tested apart."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from jscan._optimizer.costs.machine import Machine
from jscan._optimizer.costs.machines import is_measured, machine_for
from jscan._optimizer.record import context as around


def _everything_pays(platform: str) -> Machine:
    """A CPU on which starting a batch takes no time, wherever the tests run."""
    stands_for = "cpu" if is_measured(platform) else platform
    return dataclasses.replace(machine_for(stands_for), batch_start=0)


@pytest.fixture(autouse=True)
def small_loops_pay(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Let work leave loops of a few steps, unless a test asks for measured costs.

    Patched with the fixture that tests patch the same name with, so that the last patch
    is the first to be undone.
    """
    if "measured_costs" not in request.fixturenames:
        monkeypatch.setattr(around, "machine_for", _everything_pays)


@pytest.fixture
def change_costs(
    small_loops_pay: None, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., None]:
    """Change some costs of that machine, for a test that needs its own."""

    def change(**costs: Any) -> None:
        machine = dataclasses.replace(_everything_pays("cpu"), **costs)
        monkeypatch.setattr(around, "machine_for", lambda platform: machine)

    return change


@pytest.fixture(autouse=True)
def failures_raise(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rewrite that fails would leave the program as it was, and a test content."""
    monkeypatch.setenv("JSCAN_DEBUG", "1")


@pytest.fixture
def measured_costs() -> None:
    """Decide as the optimizer does outside tests."""
