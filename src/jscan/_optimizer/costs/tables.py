"""Tables of costs that a user chooses: shipped ones, adjusted to a machine.

`python -m jscan calibrate` writes one. A region's name holds the digest of its table,
so that what was compiled by other costs is not what runs.
"""

from __future__ import annotations

import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeAlias

import jax

from jscan._base.caches import cached
from jscan._base.errors import ScanTypeError, ScanValueError, Subject
from jscan._base.kinds import shown
from jscan._base.stores import cache_folder, digest, load
from jscan._jax.here import backend_of, here
from jscan._optimizer.costs.machine import Machine
from jscan._optimizer.costs.machines import machine_for
from jscan._optimizer.costs.speeds import Speeds

CALIBRATED = "calibrated"
"""Stands for the file that `calibrate` writes for the machine at hand."""

_Table: TypeAlias = tuple[str, Speeds | None]  # what reports call it, and what it says
_SHIPPED: _Table = ("the shipped table", None)
_ALIKE = "the shipped table; the processes that run a program have to run the same"
_chosen: dict[str, _Table] = {"": _SHIPPED, "alike": (_ALIKE, None)}


def calibrated_file() -> Path:
    """Where `calibrate` writes: one file for each machine and version."""
    return cache_folder() / "machines" / f"{digest(here())}.json"


def choose(machine: Any = None) -> str:
    """The digest of a table, of a file or of the file that the environment names.

    A file that is damaged, or of another machine, is not used, nor is any where several
    processes compile one program: two that differ would wait for each other for ever.
    Reports say so.

    Raises:
        ScanTypeError: Something that is no path.
        ScanValueError: There is no such file.
    """
    place = "machine"
    if machine is None:
        machine = os.environ.get("JSCAN_MACHINE")
        place = "the variable JSCAN_MACHINE"
    if machine is None or machine == "":
        return ""
    if not isinstance(machine, str | os.PathLike):
        raise _wrong(ScanTypeError, place, machine)
    if jax.process_count() > 1:
        return "alike"
    known = machine == CALIBRATED
    path = calibrated_file() if known else Path(os.fspath(machine)).expanduser()
    try:
        return _table_in(path, path.stat().st_mtime_ns)
    except OSError:
        if known:
            return _table_in(path, 0)
        raise _wrong(ScanValueError, place, machine) from None


@cached
def _table_in(path: Path, written: int) -> str:
    """The digest of the table in a file that was written at that time."""
    data, why = load(path, here())
    speeds = None if why else Speeds.read(data)
    if speeds is None:
        name = f"the shipped table; {path} is not used, {why or 'it is no table'}"
    else:
        name = f"the table {path}"
    key = digest([name, None if speeds is None else asdict(speeds)])
    _chosen[key] = (name, speeds)
    return key


def _wrong(error: Any, place: str, machine: Any) -> Exception:
    return error(
        place,
        needed="a file that python -m jscan calibrate wrote, or 'calibrated'",
        came=shown(machine),
        fix="leave it out for the costs that jscan brings along",
        owner=Subject("jscan.optimize"),
    )


def table_name(key: str) -> str:
    """What reports call a table."""
    return _chosen.get(key, _SHIPPED)[0]


def machine_by(platform: str, key: str) -> Machine:
    """The costs of a platform by a table; adjusted for programs that run here."""
    machine, speeds = machine_for(platform), _chosen.get(key, _SHIPPED)[1]
    if speeds is None or backend_of(platform) != backend_of():
        return machine
    return replace(machine.with_starts(speeds.start), speeds=speeds)
