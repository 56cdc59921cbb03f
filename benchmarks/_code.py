"""What a program was compiled to, names and places aside.

Two copies of one program may differ by half in the time they take, whatever lies
beside them in memory. Whoever asks which of two programs is faster asks first whether
they are two.
"""

import re
from typing import Any

_FIRST = re.compile(r"^(%|ENTRY)", re.MULTILINE)
_PLACES = re.compile(r', metadata=\{(?:[^{}"]|"[^"]*"|\{[^{}]*\})*\}')
_NAME = re.compile(r"%[\w.\-]+")
_PARAMETER = re.compile(r"([(,] ?)[A-Za-z_][\w.\-]*: ")


def code_of(compiled: Any) -> str:
    """The operations of a compiled program, its values numbered as they come."""
    text = compiled.as_text()
    first = _FIRST.search(text)
    text = _PLACES.sub("", text[first.start() if first else 0 :])
    numbers: dict[str, str] = {}
    number = lambda name: numbers.setdefault(name.group(), f"%{len(numbers)}")
    return _PARAMETER.sub(r"\1_: ", _NAME.sub(number, text))
