"""Small files for processes that know nothing of each other.

A file is written beside its place and moved there, so that a reader finds the old one,
the new one or none. What is damaged, or was made for something else, is not there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def cache_folder() -> Path:
    """Where this user's programs keep what can be made again."""
    chosen = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    usual = "Library/Caches" if sys.platform == "darwin" else ".cache"
    return Path(chosen or Path.home() / usual) / "jscan"


def digest(value: Any) -> str:
    """The same for equal values that JSON can hold, in every process."""
    text = json.dumps(value, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def save(path: Path, made_for: Mapping[str, Any], data: Any) -> None:
    """Write a file at once; the last of several writers wins.

    Raises:
        OSError: It cannot be written.
    """
    content = {"made for": dict(made_for), "data": data}
    content["check"] = digest(content)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".part")
    try:
        with open(handle, "w") as file:
            json.dump(content, file, indent=1)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def read(path: Path) -> dict[str, Any] | None:
    """What `save` wrote, as long as it is whole."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return content if is_whole(content) else None


def is_whole(content: Any) -> bool:
    """Whether `save` wrote this, and nobody changed it since."""
    if not isinstance(content, dict) or not isinstance(content.get("made for"), dict):
        return False
    rest = {name: value for name, value in content.items() if name != "check"}
    return "data" in rest and content.get("check") == digest(rest)


def load(path: Path, made_for: Mapping[str, Any]) -> tuple[Any, str | None]:
    """What a file holds; or `None`, and why it is not used."""
    content = read(path)
    if content is None:
        return None, "it is damaged" if path.exists() else "there is none"
    for name, wanted in made_for.items():
        found = content["made for"].get(name)
        if found != wanted:
            return None, f"it was made for {name} {found}, here is {wanted}"
    return content["data"], None
