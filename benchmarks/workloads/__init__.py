"""The programs the optimizer is measured on, one module a family."""

from . import control, networks, outputs, recurrences, tutorial, written_out
from ._registry import (
    NEVER_SLOWER,
    OLD_JAX,
    WORKLOADS,
    Function,
    Problem,
    Workload,
)

__all__ = [
    "NEVER_SLOWER",
    "OLD_JAX",
    "WORKLOADS",
    "Function",
    "Problem",
    "Workload",
    "control",
    "networks",
    "outputs",
    "recurrences",
    "tutorial",
    "written_out",
]
