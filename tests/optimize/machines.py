"""Machines for tests: their costs are put in the table that the optimizer reads."""

from unittest import mock

from jscan._optimizer.costs.machine import Machine
from jscan._optimizer.costs.machines import MEASURED

SHIPPED = dict(MEASURED)
"""The machines that users have."""


def every_machine(machine: Machine):
    """While every device has the costs of this machine."""
    return mock.patch.dict(MEASURED, dict.fromkeys(MEASURED, machine))
