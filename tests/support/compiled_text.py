"""Reading the programs that JAX hands to XLA, and those that XLA makes of them."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from math import prod
from typing import Any

import jax

_FUNCTION = re.compile(r"func\.func \w+ @([\w.]+)\(")
_OPERATION = re.compile(r"= \"?(stablehlo\.\w+)")
_CALL = re.compile(r"call @([\w.]+)\(")
_TENSOR = re.compile(r"tensor<((?:\d+x)*)\w+>")
_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?[\w.-]+ = .*?\)?\s([a-z][\w-]*)\(")


def lowered_text(f: Callable[..., Any], *args: Any) -> str:
    """The StableHLO program of `jax.jit(f)`."""
    return jax.jit(f).lower(*args).as_text()


def compiled_operations(f: Callable[..., Any], *args: Any) -> Counter[str]:
    """How often each kind of instruction occurs after XLA's own optimisation."""
    text = jax.jit(f).lower(*args).compile().as_text()
    assert text is not None
    found = (_INSTRUCTION.match(line) for line in text.splitlines())
    return Counter(match[1] for match in found if match)


def loop_bodies(text: str) -> list[list[str]]:
    """The operations of each loop's body, those of called functions included."""
    functions = _functions(text)
    bodies = [
        list(_inlined(body, functions))
        for lines in functions.values()
        for body in _regions(lines, "} do {")
    ]
    assert bodies, "there is no loop"
    return bodies


def loop_body(text: str) -> list[str]:
    """The operations of the body of the only loop."""
    (body,) = loop_bodies(text)
    return body


def operations_outside_loop(text: str) -> list[str]:
    """The operations of the program that are in no loop, called functions opened."""
    functions = {name: _outside(lines) for name, lines in _functions(text).items()}
    return list(_inlined(functions["main"], functions))


def _outside(lines: list[str]) -> list[str]:
    openings = ("cond {", "} do {")
    regions = [r for opening in openings for r in _regions(lines, opening)]
    inside = {line for region in regions for line in region}
    return [line for line in lines if line not in inside]


def kinds(operations: list[str]) -> Counter[str]:
    return Counter(_OPERATION.findall("\n".join(operations)))


def kind(operation: str) -> str:
    return _OPERATION.findall(operation)[0]


def result_size(operation: str) -> int:
    """How many numbers the operation makes."""
    *_, last = _TENSOR.findall(operation)
    return prod(int(n) for n in last.split("x") if n)


def _functions(text: str) -> dict[str, list[str]]:
    functions: dict[str, list[str]] = {}
    name = ""
    for line in text.splitlines():
        found = _FUNCTION.search(line)
        name = found[1] if found else name
        functions.setdefault(name, []).append(line)
    return functions


def _regions(lines: list[str], opening: str) -> Iterator[list[str]]:
    """The lines from an opening to the line that closes it, for each opening."""
    for start, line in enumerate(lines):
        if line.strip() == opening:
            indent = len(line) - len(line.lstrip())
            length = next(
                n
                for n, after in enumerate(lines[start + 1 :])
                if after.startswith(" " * indent + "}")
            )
            yield lines[start + 1 : start + 1 + length]


def _inlined(lines: list[str], functions: dict[str, list[str]]) -> Iterator[str]:
    for line in lines:
        if call := _CALL.search(line):
            yield from _inlined(functions[call[1]], functions)
        elif _OPERATION.search(line):
            yield line
