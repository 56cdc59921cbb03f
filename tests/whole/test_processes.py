"""Several processes on one machine, which share variables split over their devices."""

import json
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from support import processes, processes_global, processes_page

PATIENCE = 400  # seconds; they take a few, and end by themselves after 300


PAGE = Path(__file__).parents[2] / "docs" / "guide" / "devices.md"


def start(module, count, *arguments, devices=processes.DEVICES):
    """Start the processes of one run."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = []
    for number in range(count):
        flag = f"--xla_force_host_platform_device_count={devices // count}"
        command = [sys.executable, module.__file__, number, count, port, *arguments]
        started.append(
            subprocess.Popen(
                list(map(str, command)),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={
                    "XLA_FLAGS": flag,
                    "JAX_PLATFORMS": "cpu",
                    "PYTHONPATH": ":".join(sys.path),
                },
            )
        )
    return started


def finished(started, out):
    """What the first process noted, after all have ended well."""
    texts = [process.communicate(timeout=PATIENCE) for process in started]
    assert [process.returncode for process in started] == [0] * len(started), texts
    return noted(out)


def noted(out):
    return dict(json.loads(line) for line in out.read_text().splitlines())


def until_one_dies(started, out):
    """What the first process noted before the last one died, and took all with it."""
    end = time.monotonic() + PATIENCE
    while started[-1].poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    died = started[-1].poll()
    for process in started:
        process.kill()
    texts = [process.communicate() for process in started]
    assert died == -signal.SIGKILL, texts
    return noted(out)


def test_a_killed_run_goes_on_from_its_checkpoint_as_if_nothing_had_been(tmp_path):
    """On as many processes to the digit; on fewer, and another mesh, to rounding."""
    pytest.importorskip("orbax.checkpoint", reason="checkpoints: extra oracles")
    dies_at = random.randrange(2, processes.STEPS)
    out = {name: tmp_path / f"{name}.txt" for name in ("alone", "four", "on4", "on2")}
    run = lambda count, name, folder, dies_at=-1: start(
        processes, count, out[name], tmp_path / folder, dies_at
    )
    alone = run(1, "alone", "alone")
    killed = until_one_dies(run(4, "four", "four", dies_at), out["four"])
    expected = finished(alone, out["alone"])
    shutil.copytree(tmp_path / "four", tmp_path / "two")
    on_four = finished(run(4, "on4", "four"), out["on4"])
    on_two = finished(run(2, "on2", "two"), out["on2"])
    assert set(on_four) == set(on_two)
    assert 0 not in on_four  # they did go on
    for resumed in (on_four, on_two):
        for step, found in resumed.items():
            np.testing.assert_allclose(found, expected[step], rtol=2e-5, atol=1e-6)
    for step in set(killed) & set(on_four):
        assert killed[step] == on_four[step], f"died at {dies_at}"
    assert set(killed) | set(on_four) == set(expected)


def test_variables_split_over_processes(tmp_path):
    out = tmp_path / "out.txt"
    assert finished(start(processes_global, 2, out), out)["done"]


@pytest.mark.any_jax
def test_the_page_on_many_hosts_in_four_processes(tmp_path):
    """What it shows is shown by each of them; `test_documentation` runs it in one."""
    pytest.importorskip("orbax.checkpoint", reason="checkpoints: extra oracles")
    out = tmp_path / "out.txt"
    run = start(processes_page, 4, out, PAGE, devices=8)
    failed, shown = finished(run, out)["results"]
    assert failed == 0
    assert shown > 40
