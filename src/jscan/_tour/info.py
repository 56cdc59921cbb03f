"""What `python -m jscan info` prints: what a report of a bug should say."""

import os
import platform
from importlib.metadata import version

import jax
import numpy as np

import jscan
from jscan._base.caches import SIZE, fill
from jscan._base.stores import load
from jscan._jax.here import here
from jscan._optimizer.costs.machines import is_measured
from jscan._optimizer.costs.tables import calibrated_file

SWITCHES = {
    *("JSCAN_CACHE_SIZE", "JSCAN_DEBUG", "JSCAN_MACHINE"),
    *("JSCAN_OPTIMIZE", "JSCAN_PLAN"),
}


def describe() -> str:
    """Versions, devices, the environment, cost tables and caches of this process."""
    parts = {
        "versions": _versions(),
        "devices": _devices(),
        "environment": _switches(),
        "cost tables": [_table(jax.default_backend()), _calibrated()],
        f"caches, of {SIZE} entries at most": [
            f"{count:4} in {name}" for name, count in sorted(fill().items())
        ],
    }
    return "\n".join(
        f"{title}\n" + "\n".join(f"  {line}" for line in lines)
        for title, lines in parts.items()
    )


def _versions() -> list[str]:
    return [
        f"jscan {jscan.__version__}",
        f"jax {jax.__version__}, jaxlib {version('jaxlib')}, numpy {np.__version__}",
        f"Python {platform.python_version()} on {platform.platform()}",
    ]


def _devices() -> list[str]:
    kinds: dict[str, int] = {}
    for device in jax.devices():
        kind = f"{device.platform} ({device.device_kind})"
        kinds[kind] = kinds.get(kind, 0) + 1
    return [f"{count} x {kind}" for kind, count in kinds.items()]


def _switches() -> list[str]:
    """The switches that are set; a misspelt one has no effect, and is named."""
    found = sorted(name for name in os.environ if name.startswith("JSCAN_"))
    return [
        f"{name}={os.environ[name]}"
        + ("" if name in SWITCHES else "  (no switch of jscan: has no effect)")
        for name in found
    ] or ["no JSCAN_ variable is set"]


def _table(backend: str) -> str:
    if is_measured(backend):
        return f"{backend}: measured; jscan's own loops are rewritten unasked"
    return f"{backend}: not measured; loops are rewritten where jscan.optimize asks"


def _calibrated() -> str:
    path = calibrated_file()
    why = load(path, here())[1]
    return f"calibrated: {f'no, {why}' if why else path}"
