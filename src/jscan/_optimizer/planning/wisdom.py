"""What was measured, remembered: by this process, and on disk for the next one.

A file holds what is known of one loop, so that processes that measure at the same time
write different files, or the same one with the same meaning. A loop is known by the
text of its program: one that is taken for another is merely written in a form that was
fastest elsewhere.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from jscan._base.caches import Cache
from jscan._base.stores import cache_folder, digest, is_whole, load, read, save
from jscan._jax.here import here
from jscan._optimizer.record.context import Context
from jscan._optimizer.record.verdict import AS_WRITTEN, Verdict

_known: Cache[Verdict] = Cache()
_NAME = re.compile(r"[0-9a-f]{32}")
_ADDRESS = re.compile(r"0x[0-9a-f]+")


def folder() -> Path:
    """Where it is kept."""
    return cache_folder() / "wisdom"


def key_of(program: Any, context: Context) -> str:
    """The name of a loop: program, types, choices, costs, device and versions."""
    options = context.options
    passes = "default" if options.passes is None else sorted(options.passes)
    text = _ADDRESS.sub("", str(program))
    return digest([text, passes, options.memory_budget, repr(context.machine), here()])


def recall(key: str, seconds: float) -> Verdict | None:
    """What is known of a loop, unless a search of so many seconds may find more."""
    known = _known.get(key)
    if known is None:
        data, _ = load(folder() / f"{key}.json", here())
        known = _read(data)
        if known is not None:
            _known[key] = known
    if known is None or known.stopped is None:
        return known
    return known if seconds <= known.stopped else None


def _read(data: Any) -> Verdict | None:
    try:
        times = {str(name): float(taken) for name, taken in data["times"].items()}
        form, stopped = str(data["form"]), data.get("stopped")
    except (TypeError, KeyError, ValueError, AttributeError):
        return None
    if not {AS_WRITTEN, form} <= times.keys():
        return None
    return Verdict(form, times, stopped=stopped, remembered=True)


def remember(key: str, verdict: Verdict) -> None:
    """Keep what was measured; a folder that cannot be written is no reason to fail."""
    _known[key] = replace(verdict, remembered=True)
    data = {"form": verdict.form, "times": dict(verdict.times)}
    if verdict.stopped is not None:
        data["stopped"] = verdict.stopped
    with contextlib.suppress(OSError):
        save(folder() / f"{key}.json", here(), data)


def files() -> list[Path]:
    """What is known on disk, a file for each loop."""
    return sorted(folder().glob("*.json"))


def export(path: Path) -> int:
    """Write all that is known into one file; how many loops that are.

    Raises:
        OSError: It cannot be written.
    """
    known = {file.stem: content for file in files() if (content := read(file))}
    save(path, {}, known)
    return len(known)


def bring(path: Path) -> tuple[int, str | None]:
    """Add what another folder knew: how many loops; or why the file is not used."""
    data, why = load(path, {})
    given = {} if why or not isinstance(data, dict) else data
    whole = {n: c for n, c in given.items() if _NAME.fullmatch(n) and is_whole(c)}
    for name, content in whole.items():
        save(folder() / f"{name}.json", content["made for"], content["data"])
    return len(whole), why


def forget() -> None:
    """Remove all that is known on disk."""
    for file in files():
        file.unlink(missing_ok=True)
