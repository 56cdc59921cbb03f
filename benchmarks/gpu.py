"""What is there to know of a GPU, in eight minutes, without preparation?

On a machine with an NVIDIA GPU, from the checkout, one line:

    python3 benchmarks/gpu.py

if its Python has JAX with CUDA (pytest and torch are used where they are installed), or

    scripts/make-environment python3 .venv-gpu test "jax[cuda13]" torch &&
        .venv-gpu/bin/python benchmarks/gpu.py

Each part runs in a process of its own, for so many seconds at most; one that fails or
hangs stops none of the others, and what it found until then counts. At the end all is
printed, and written to `--out FILE` as Markdown, and beside it as JSON.

`--device cpu` tries the script where there is no GPU: what needs one is skipped, with
the reason. `--quick` is that in tiny sizes, for CI; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parent
ALL = 470.0
"""Seconds for everything."""

# Seconds for each part; what one leaves over, the later ones may use.
PARTS = {
    "tests": 100,
    "calibration": 45,
    "families": 125,
    "networks": 80,
    "until": 40,
    "graphs": 50,
    "recurrence": 30,
}


@dataclasses.dataclass(frozen=True)
class Result:
    """What one part found: rows of named cells, and how it ended."""

    name: str
    seconds: float
    ended: str
    rows: list[dict[str, Any]]

    @property
    def failures(self) -> int:
        """How many rows failed; the whole part counts as one."""
        failed = [
            row for row in self.rows if row.get("remark", "").startswith("failed")
        ]
        return len(failed) + self.ended.startswith("failed")

    @property
    def summary(self) -> str:
        """It in a line."""
        skipped = [row for row in self.rows if "skipped" in row.get("remark", "")]
        rows = f"{len(self.rows)} rows, {len(skipped)} of them skipped"
        return f"* {self.name}: {self.ended}, {rows}, {self.failures} failures"

    def markdown(self) -> str:
        """A heading, a table, how it ended."""
        lines = [f"## {self.name}", "", f"{self.ended}, {self.seconds:.0f} s", ""]
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        if columns:
            lines += ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
        for row in self.rows:
            cells = (str(row.get(name, "")).replace("|", "/") for name in columns)
            lines.append("| " + " | ".join(cells) + " |")
        return "\n".join(lines) + "\n"


def environment(device: str) -> dict[str, str]:
    """What the processes of parts find in their environment."""
    paths = [CHECKOUT / "src", HERE, os.environ.get("PYTHONPATH", "")]
    new = {
        "PYTHONPATH": os.pathsep.join(map(str, filter(None, paths))),
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # torch wants memory, too
    }
    if device == "cpu":
        new["JAX_PLATFORMS"] = "cpu"
    return os.environ | new


def run(name: str, seconds: float, given: argparse.Namespace) -> Result:
    """Run one part in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        rows, start = Path(folder) / "rows.jsonl", time.monotonic()
        command = [sys.executable, str(HERE / "_gpu_parts.py"), name, str(rows)]
        command += [f"{seconds:.0f}", *(["--quick"] if given.quick else [])]
        process = subprocess.Popen(
            command,
            cwd=CHECKOUT,
            env=environment(given.device) | {"XDG_CACHE_HOME": folder},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # what it starts ends with it
        )
        said, ended = _ending(process, seconds)
        found = rows.read_text().splitlines() if rows.exists() else []
        taken = time.monotonic() - start
    if ended.startswith("failed"):
        print(said[-3000:], flush=True)
    return Result(name, taken, ended, list(map(json.loads, _whole(found))))


def _ending(process: subprocess.Popen[str], seconds: float) -> tuple[str, str]:
    """What a process printed, and how it ended."""
    try:
        said, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        said, _ = process.communicate()
        return said, f"stopped after {seconds:.0f} s"
    last = (said.strip().splitlines() or ["it printed nothing"])[-1]
    return said, f"failed: {last}" if process.returncode else "done"


def _whole(lines: Sequence[str]) -> list[str]:
    """The lines without one that was being written at the end."""
    return [line for line in lines if line.endswith("}")]


def machine(device: str) -> str:
    """Versions, device and date, asked of a process, as JAX keeps a device."""
    code = "import _timing; _timing.print_machine()"
    command = [sys.executable, "-c", code]
    how: dict[str, Any] = dict(capture_output=True, text=True, cwd=CHECKOUT)
    said = subprocess.run(command, env=environment(device), timeout=120, **how)
    if said.returncode:
        raise SystemExit(f"JAX does not start here:\n{said.stderr[-2000:]}")
    return said.stdout.strip()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=["gpu", "cpu"], default="gpu")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, by commas")
    parser.add_argument("--out", type=Path, help="a file; none where it is --quick")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, for CI")
    given = parser.parse_args()
    if given.quick:
        given.device = "cpu"
    elif given.out is None:
        given.out = Path("gpu.md")
    if not set(given.only.split(",")) <= PARTS.keys():
        parser.error(f"parts are {', '.join(PARTS)}")
    return given


def main() -> None:
    given, start = _options(), time.monotonic()
    if importlib.util.find_spec("jax") is None:
        raise SystemExit(f"{sys.executable} has no JAX; see the top of {__file__}")
    about = machine(given.device)
    print(about, flush=True)
    if given.device == "gpu" and "gpu (" not in about:
        raise SystemExit("JAX finds no GPU here; --device cpu tries the script")
    found, spare = [], 0.0
    for name in given.only.split(","):
        left = ALL - (time.monotonic() - start)
        seconds = min(PARTS[name] + spare, left)
        if seconds < 5:
            found.append(Result(name, 0.0, "no time was left for it", []))
            continue
        print(f"\n-- {name}, {seconds:.0f} s at most", flush=True)
        result = run(name, seconds, given)
        spare = max(0.0, seconds - result.seconds)
        found.append(result)
        print(result.markdown(), flush=True)
    _finish(given, about, found, time.monotonic() - start)


def _finish(
    given: argparse.Namespace, about: str, found: list[Result], seconds: float
) -> None:
    """Print how the parts ended, and write the file; fail where one did."""
    date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
    summary = [f"# GPU, {date}", "", about, "", f"All of it took {seconds:.0f} s.", ""]
    summary += [one.summary for one in found]
    print("\n".join(summary), flush=True)
    if given.out is not None:
        texts = ["\n".join(summary) + "\n", *(one.markdown() for one in found)]
        given.out.write_text("\n".join(texts))
        data = {"machine": about, "parts": list(map(dataclasses.asdict, found))}
        given.out.with_suffix(".json").write_text(json.dumps(data, indent=1))
        print(f"Written to {given.out} and {given.out.with_suffix('.json')}")
    sys.exit(any(one.failures for one in found))


if __name__ == "__main__":
    main()
