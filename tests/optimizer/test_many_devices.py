"""The calculation of the page on many devices, held to what XLA compiles."""

import functools
import importlib
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding

from support.collectives import traffic
from support.comparing import assert_close
from support.optimizer import networks

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture
def calculation(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(CHECKOUT / "benchmarks")
    return importlib.import_module("many_devices")


@functools.cache
def step_alone(calculation, way, size):
    """The step on one device."""
    fun, values, _ = calculation.step(way, size)
    return jax.jit(fun.__wrapped__)(*jax.tree.map(np.asarray, values))


@pytest.mark.parametrize("devices", [2, 4, 8])
@pytest.mark.parametrize("way", ["data", "tensor", "time"])
def test_bytes_of_a_training_step(calculation, way, devices):
    """To the byte, of two sizes; and the step is that of one device.

    Of smaller matrices than these XLA may split others, and exchange a little more.
    """
    mesh = networks.devices(devices)
    for numbers in ((32, 16, 32), (24, 32, 64)):
        size = calculation.Size(*numbers)
        with jax.enable_x64(False):
            fun, values, specs = calculation.step(way, size)
            places = tuple(NamedSharding(mesh, spec) for spec in specs)
            arguments = tuple(map(jax.device_put, values, places))
            compiled = jax.jit(fun).lower(*arguments).compile()
            found = traffic(compiled)
            assert found.bytes == calculation.traffic(way, size, devices)
            in_loops = 2 * size.steps if way == "tensor" else 0
            assert found.in_loops == in_loops
            assert_close(compiled(*arguments), step_alone(calculation, way, size), 1e-5)


def test_one_device_exchanges_nothing(calculation):
    size = calculation.Size(16, 8, 16)
    assert [calculation.traffic(way, size, 1) for way in calculation.WAYS] == [0] * 3


def test_the_page_shows_the_table(calculation):
    page = (CHECKOUT / "docs" / "guide" / "devices.md").read_text()
    shown = [
        [cell.strip() for cell in line.strip("| ").split("|")]
        for line in page.splitlines()
        if line.startswith("|") and "MiB" in line
    ]
    assert shown == list(calculation.rows())
