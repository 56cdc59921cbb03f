"""One strict JAX for every test: 64-bit types, no silent promotion, eight devices."""

import os

from support.compiling import FLAGS

# Read once, when JAX starts: the sharding tests want several devices.
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=8",
        *FLAGS,
    ]
)
# What was compiled once is read from a folder that git ignores, by whoever compiles the
# same again: another worker, a test after `clear_caches`, a Python that a test starts,
# the next run. CI may keep it from run to run on machines of one kind.
os.environ["JAX_COMPILATION_CACHE_DIR"] = os.environ.get(
    "JAX_COMPILATION_CACHE_DIR",
    os.path.join(os.path.dirname(os.path.dirname(__file__)), ".jax_cache"),
)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.03"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

import enum
import gc
import re
import threading
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


def pytest_make_parametrize_id(
    config: pytest.Config, val: object, argname: str
) -> str | None:
    """A readable name for each parameter; what pytest would only number is refused."""
    if isinstance(val, str | bytes):
        return None  # pytest escapes what is not printable
    name = readable(val)
    if name is None:
        raise pytest.UsageError(f"a parameter {argname} needs ids=: {val!r:.200}")
    return name


def readable(value: object) -> str | None:
    """A name that says what a parameter is: of an array its type and shape."""
    if isinstance(value, enum.Enum | re.Pattern):
        return str(value)
    if isinstance(value, str | bytes | int | float | complex | None):
        return str(value)
    if isinstance(value, set | frozenset):
        value = sorted(value, key=str)  # the same in every process
    if isinstance(value, tuple | list):
        parts = list(map(readable, value))
        return None if None in parts else f"({','.join(map(str, parts))})"
    if isinstance(value, dict):
        parts = [readable(part) for part in value.values()]
        pairs = zip(value, parts, strict=True)
        return None if None in parts else ",".join(f"{k}={v}" for k, v in pairs)
    if isinstance(value, slice | range):
        return repr(value).replace(" ", "")
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{value.dtype}{[*value.shape]}".replace(" ", "")  # pyright: ignore
    name = getattr(value, "__name__", None)
    return None if name == "<lambda>" else name


# What `make test` leaves to `make test-rest`: most of the time is spent here.
SLOW = (
    *("whole/", "fuzz/", "theano_answers/", "optimizer/passes/", "test_peers.py"),
    "typing/",
    *("optimizer/test_many_devices.py", "optimizer/test_meshes.py"),
    "optimizer/test_gpu_costs.py",
    *("optimizer/test_costs.py", "optimizer/test_effects.py"),
    *("optimizer/test_custom_rules.py", "optimizer/test_regressions.py"),
    *("programs/test_caches.py", "programs/test_primitive.py"),
    *("functions/test_interrupts.py", "functions/test_settings.py"),
    *("frontend/test_trees.py", "execution/test_long_lags.py"),
    *("execution/test_stopped_rows.py", "execution/test_debug_combined.py"),
    *("loops/test_progress_optimized.py", "scan/test_scan_transforms.py"),
)


def is_slow(path: Path) -> bool:
    return path.relative_to(Path(__file__).parent).as_posix().startswith(SLOW)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is slow, by the places of files."""
    for item in items:
        if is_slow(item.path):
            item.add_marker("slow")


def pytest_collection_finish() -> None:
    """Look for no garbage in what was imported: that takes a tenth of the time."""
    gc.collect()
    gc.freeze()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Spare `make test` and `make test-rest` the files of which they run no test."""
    if not collection_path.name.startswith("test_"):
        return None
    none_is_asked_for = {
        "not slow": is_slow,
        "slow or oracles": lambda path: (
            not is_slow(path) and "oracles" not in path.read_text("utf-8")
        ),
    }.get(config.option.markexpr)
    return True if none_is_asked_for and none_is_asked_for(collection_path) else None
