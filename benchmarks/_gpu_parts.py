"""The parts of `gpu.py`: each writes rows, one by one, into the file it is given.

A row that fails says so, and the next one is tried.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import importlib.util
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import _gpu_loops as loops
import _timing
import jscan
import regret
import rnn
from families import FAMILIES, Family
from workloads.networks import gru, lstm

# What depends on the device: results, rules, random numbers, JAX's own facts.
TESTS = (
    *("optimizer/test_gpu_costs.py", "optimizer/test_pipeline.py", "jax_contract"),
    *("scan/test_reference.py", "loops/test_until.py", "state/test_random.py"),
)
CHECKOUT = Path(__file__).resolve().parent.parent
ON_GPU = jax.default_backend() == "gpu"


@dataclasses.dataclass
class Rows:
    """The file that rows are written into, and how to measure them."""

    path: Path
    seconds: float
    quick: bool
    start: float = dataclasses.field(default_factory=time.monotonic)

    @property
    def how(self) -> _timing.Settings:
        """Few turns: a device that runs nothing else is quiet."""
        if self.quick:
            return _timing.Settings(quick=True, rounds=2, block_seconds=0.0)
        return _timing.Settings(rounds=5, block_seconds=0.02)

    def write(self, **cells: Any) -> None:
        """One row."""
        with self.path.open("a") as file:
            file.write(json.dumps(cells) + "\n")

    def skip(self, reason: str, **cells: Any) -> None:
        """A row that cannot be measured here."""
        self.write(**cells, remark=f"skipped: {reason}")

    def attempt(
        self, measure: Callable[..., Mapping[str, Any]], *given: Any, **cells: Any
    ) -> None:
        """One row, or why it failed; none once the time is nearly over."""
        if time.monotonic() - self.start > 0.85 * self.seconds:
            self.skip("no time was left", **cells)
            return
        try:
            found = measure(*given)
        except Exception as error:
            text = str(error).strip().splitlines() or [""]
            found = {"remark": f"failed: {type(error).__name__}: {text[0][:150]}"}
        self.write(**cells | dict(found))

    def times(self, forms: Mapping[str, Callable[[], Any]]) -> dict[str, str]:
        """What calls of the forms take, and those after the first as a ratio to it."""
        found = _timing.measure(forms, self.how)
        first = next(iter(forms))
        cells = {first: _timing.duration(found[first].seconds)}
        others = {name: f"{t.ratio:.2f}x" for name, t in found.items() if name != first}
        return cells | others


def built(function: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
    """A compiled program, on its arguments."""
    return _timing.build(function, arguments).call


def agreeing(calls: dict[str, Callable[[], Any]]) -> dict[str, Callable[[], Any]]:
    """The calls, if all give what the first one does."""
    results = {name: np.asarray(call()) for name, call in calls.items()}
    first = next(iter(results.values()))
    for name, result in results.items():
        np.testing.assert_allclose(result, first, 1e-3, 1e-3, err_msg=name)
    return calls


def tests(rows: Rows) -> None:
    """What of the tests depends on the device, as pytest counts it."""
    if importlib.util.find_spec("pytest") is None:
        rows.skip("pytest is not installed")
        return
    command = [sys.executable, "-m", "pytest", "-v", "--tb=line"]
    command += ["-p", "no:cacheprovider", "--color=no", "--maxfail=30"]
    command += [f"tests/{place}" for place in TESTS[: 1 if rows.quick else None]]
    if rows.quick:
        command += ["-k", "as_many_steps"]
    elif importlib.util.find_spec("xdist") is not None:
        command += ["-n", "4"]
    how: Any = dict(stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    process = subprocess.Popen(command, cwd=CHECKOUT, **how)
    stop = threading.Timer(0.85 * rows.seconds, process.kill)
    stop.daemon = True
    stop.start()
    counts: collections.Counter[str] = collections.Counter()
    for line in process.stdout or ():
        found = re.search(r"\b(PASSED|FAILED|SKIPPED|ERROR)\b", line)
        if found and "%]" in line:  # the summary names those that failed once more
            counts[found[1].lower()] += 1
        elif found and line.startswith(("FAILED", "ERROR")):
            rows.write(test=line.strip()[:200], remark="failed")
    rows.write(test="all of them", **counts)
    if process.wait() and stop.is_alive():
        raise SystemExit(f"pytest ended with {process.returncode}")
    if not stop.is_alive():
        rows.skip("no time was left", test="the others")


def calibration(rows: Rows) -> None:
    """What `calibrate` says, and what an iteration costs, several steps in it."""
    if rows.quick:
        rows.skip("it takes up to a minute", what="jscan calibrate")
    else:
        command = [sys.executable, "-m", "jscan", "calibrate"]
        said = subprocess.run(command, capture_output=True, text=True)
        for line in said.stdout.splitlines():
            rows.write(what=line.strip())
    steps = 16 if rows.quick else 512

    def a_step(step: loops.Step, start: jax.Array, unroll: int) -> dict[str, str]:
        run = built(loops.repeated(step, steps, unroll), start)
        taken = _timing.measure({"it": run}, rows.how)["it"].seconds
        return {"us a step": f"{1e6 * taken / steps:.2f}"}

    for name, (step, start) in loops.STEPS.items():
        for unroll in (1, 4) if rows.quick else (1, 4, 16, 32):
            rows.attempt(a_step, step, start, unroll, what=name, unroll=unroll)


def families(rows: Rows) -> None:
    """Twenty families of `regret.py`, forward and gradient."""

    def measure(one: Family, direction: str) -> dict[str, str]:
        cells = regret.row(one, one.case(0, rows.quick), direction, rows.how).cells()
        return dict(zip(regret.HEADER[1:-1], cells[1:-1], strict=True)) | {
            "remark": "failed: results differ" if "DIFFERENT" in cells[-1] else ""
        }

    for one in FAMILIES[::26] if rows.quick else FAMILIES[1::2][:20]:
        for direction in ("forward", "gradient")[: 1 + one.gradient]:
            about = {"family": one.name, "pass": direction}
            rows.attempt(measure, one, direction, **about)
        jax.clear_caches()


def networks(rows: Rows) -> None:
    """LSTM and GRU beside torch's, which are cuDNN's on a GPU."""
    without = _no_cudnn()

    def measure(name: str, shape: tuple[int, int, int], way: str) -> dict[str, str]:
        problem = {"LSTM": lstm, "GRU": gru}[name](*shape)
        f = problem.gradient() if way == "gradient" else problem.function
        forms = {
            "plain": built(f, *problem.arguments),
            "optimize": built(jscan.optimize(f), *problem.arguments),
        }
        if without is None:
            forms["torch"] = rnn.torch_network(name, shape, "cuda")[way]
        return rows.times(forms)

    if without is not None:
        rows.skip(without, network="torch's")
    shapes = [(512, 1, 256), (512, 8, 128), (512, 32, 256), (128, 64, 512)]
    for name in ("LSTM", "GRU"):
        for shape in rnn.QUICK_SHAPES if rows.quick else shapes:
            for way in ("forward", "gradient"):
                cells = {
                    "network": name,
                    "size": ", ".join(map(str, shape)),
                    "pass": way,
                }
                rows.attempt(measure, name, shape, way, **cells)


def _no_cudnn() -> str | None:
    """Why networks of torch are not run, if so."""
    if not ON_GPU:
        return "cuDNN needs a GPU"
    if importlib.util.find_spec("torch") is None:
        return "torch is not installed"
    import torch

    return None if torch.cuda.is_available() else "torch finds no GPU"


def until(rows: Rows) -> None:
    """Loops that may stop, by hand with a check every k steps, beside `until`."""
    stop = 32 if rows.quick else 400

    def measure(start: jax.Array) -> dict[str, str]:
        forms = {"counted": loops.counted(stop), "until": loops.stopping(stop)}
        for every in (1, 4, 16):
            forms[f"every {every}"] = loops.checked(stop, every)
        return rows.times(agreeing({k: built(f, start) for k, f in forms.items()}))

    for name, start in loops.STATES.items():
        rows.attempt(measure, start, state=name, steps=stop)


def graphs(rows: Rows) -> None:
    """Command buffers of XLA, which are CUDA graphs, around and within loops."""

    def measure(function: loops.Step, start: jax.Array, options: Any) -> Any:
        lowered = jax.jit(function).lower(start)
        default, other = lowered.compile(), lowered.compile(compiler_options=options)
        both = {"default": lambda: default(start), "with": lambda: other(start)}
        times = rows.times(agreeing(both))
        remark = {"remark": "the options are known; they do nothing without a GPU"}
        return times if ON_GPU else remark

    for name, (function, start) in loops.in_graphs(rows.quick).items():
        for label, options in loops.GRAPHS.items():
            cells = dict(loop=name, options=label)
            rows.attempt(measure, function, start, options, **cells)


def recurrence(rows: Rows) -> None:
    """A linear recurrence: as a loop, optimized, and as an associative scan."""
    forms = {
        "plain": loops.linear,
        "optimize": jscan.optimize(loops.linear),
        "with associate": jscan.optimize(loops.linear, passes="default+associate"),
        "by hand": loops.associative,
    }

    def measure(steps: int, width: int) -> dict[str, str]:
        given = jnp.full((steps, width), 0.9), jnp.ones((steps, width))
        return rows.times(agreeing({n: built(f, *given) for n, f in forms.items()}))

    for steps in (64,) if rows.quick else (512, 4096):
        for width in (1, 1024):
            rows.attempt(measure, steps, width, steps=steps, width=width)


PARTS = (tests, calibration, families, networks, until, graphs, recurrence)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=[part.__name__ for part in PARTS])
    parser.add_argument("rows", type=Path)
    parser.add_argument("seconds", type=float)
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    part = next(part for part in PARTS if part.__name__ == given.part)
    part(Rows(given.rows, given.seconds, given.quick))


if __name__ == "__main__":
    main()
