"""One strict JAX for every test: 64-bit types, no silent promotion, eight devices."""

import os
import re
import threading

# Read once, when JAX starts: the sharding tests want several devices.
# Compiling takes most of the time, and less of it without LLVM's optimizations; what
# XLA itself does to a program stays the same. The nightly tests compile as users do.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_force_host_platform_device_count=8"
    + " --xla_backend_optimization_level="
    + ("3" if os.environ.get("JSCAN_TESTS_OPTIMIZED") else "0")
)

from collections.abc import Iterator
from pathlib import Path

import jax
import pytest
from tqdm.auto import tqdm

jax.config.update("jax_enable_x64", True)
# Own code must not broadcast ranks or mix types by accident.
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")


@pytest.fixture
def standard_promotion() -> Iterator[None]:
    """Let the test mix types the way users do (int times float, and so on)."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(autouse=True)
def bars_have_a_lock_of_their_own() -> None:
    """What a test did to tqdm's lock, which all bars share, is not the next one's."""
    tqdm.set_lock(threading.RLock())


def pytest_make_parametrize_id(config: pytest.Config, val: object) -> str | None:
    """A readable name for what pytest would number: containers, shapes, options."""
    if isinstance(val, tuple | list | dict | set | frozenset | slice | range):
        return re.sub(r"\s|<[^>]*>", "", repr(val))[:60]
    if hasattr(val, "shape") and hasattr(val, "dtype"):
        return f"{val.dtype}{[*val.shape]}"  # pyright: ignore
    return None


# What `make test` leaves to `make test-rest`: most of the time is spent here.
SLOW = (
    *("whole/", "fuzz/", "theano_answers/", "optimizer/passes/", "test_peers.py"),
    "typing/",
    *("optimizer/test_meshes.py", "optimizer/test_gpu_costs.py"),
    *("optimizer/test_costs.py", "optimizer/test_effects.py"),
    *("optimizer/test_custom_rules.py", "optimizer/test_regressions.py"),
    *("programs/test_caches.py", "programs/test_primitive.py"),
    *("functions/test_interrupts.py", "functions/test_settings.py"),
    *("frontend/test_trees.py", "execution/test_long_lags.py"),
    *("execution/test_stopped_rows.py", "execution/test_debug_combined.py"),
    *("loops/test_progress_optimized.py", "scan/test_scan_transforms.py"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is slow, by the places of files."""
    here = Path(__file__).parent
    for item in items:
        if item.path.relative_to(here).as_posix().startswith(SLOW):
            item.add_marker("slow")
