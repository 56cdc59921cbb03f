"""Small test loops go through every pass: what pays on a machine is tested apart."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from support.optimizer.machines import KEEN, every_machine


@pytest.fixture(autouse=True)
def small_loops_pay(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let work leave loops of a few steps, unless a test asks for measured costs."""
    if "measured_costs" in request.fixturenames:
        yield
    else:
        with every_machine(KEEN):
            yield


@pytest.fixture
def change_costs(small_loops_pay: None) -> Iterator[Callable[..., None]]:
    """Change some costs of that machine, for a test that needs its own."""
    with contextlib.ExitStack() as patches:

        def change(**costs: Any) -> None:
            patches.enter_context(every_machine(dataclasses.replace(KEEN, **costs)))

        yield change


@pytest.fixture(autouse=True)
def failures_raise(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rewrite that fails would leave the program as it was, and a test content."""
    monkeypatch.setenv("JSCAN_DEBUG", "1")


@pytest.fixture
def measured_costs() -> None:
    """Decide as the optimizer does outside tests."""
