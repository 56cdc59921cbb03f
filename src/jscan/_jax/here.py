"""What times depend on: versions, the device and its cores."""

import os
import platform
import sys
from importlib.metadata import version
from typing import Any

import jax

from jscan._base.caches import cached


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            names = [line for line in lines if line.startswith("model name")]
        return names[0].partition(":")[2].strip()
    except (OSError, IndexError):
        return platform.processor() or platform.machine()


@cached
def here() -> dict[str, Any]:
    """What must be the same here as where a time was taken, for that time to count."""
    device = jax.devices()[0]
    known = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if known else os.cpu_count()
    is_cpu = device.platform == "cpu"
    return {
        "jscan": sys.modules[__name__.partition(".")[0]].__version__,
        "jax": jax.__version__,
        "jaxlib": version("jaxlib"),
        "device": _processor() if is_cpu else device.device_kind,
        "cores": cores,
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
    }


def backend_of(platform: str | None = None) -> str:
    """JAX's name of a platform that the compiler calls otherwise; of the usual one."""
    names = {"cuda": "gpu", "rocm": "gpu"}
    return jax.default_backend() if platform is None else names.get(platform, platform)
