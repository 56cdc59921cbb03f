"""Machines for tests: their costs are put in the table that the optimizer reads."""

import dataclasses
from typing import Any
from unittest import mock

from jscan._optimizer.costs.machine import Machine
from jscan._optimizer.costs.machines import MEASURED

SHIPPED = dict(MEASURED)
"""The machines that users have."""

KEEN = dataclasses.replace(SHIPPED["cpu"], batch_start=0, merged_steps=0)
"""A CPU on which what is done before a loop takes no time, wherever the tests run."""


def every_machine(machine: Machine) -> Any:
    """While every device has the costs of this machine."""
    return mock.patch.dict(MEASURED, dict.fromkeys(MEASURED, machine))
