"""What a compiled program sends between devices: collectives, counted as they run."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_KINDS = (
    "all-gather|all-reduce|all-to-all|collective-broadcast|collective-permute|"
    "ragged-all-to-all|reduce-scatter"
)
_COLLECTIVE = re.compile(rf" = (.*?) ({_KINDS})(?:-start)?\(")
_COMPUTATION = re.compile(r"(?:ENTRY )?%?([\w.\-]+) .*\{\s*$")
_CALLED = re.compile(
    r"(?:calls|to_apply|true_computation|false_computation)=%?([\w.\-]+)"
)
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_ARRAY = re.compile(r"\b(pred|[a-z]+)(\d*)\[([\d,]*)\]")


@dataclass(frozen=True)
class Traffic:
    """What one device takes part in while the program runs once.

    Attributes:
        in_loops: Collectives in loops, each as often as its loop runs.
        outside: Collectives outside all loops.
        bytes: Bytes of the results of all of them.
        kinds: The sorted names of those in loops, and of those outside.
    """

    in_loops: int
    outside: int
    bytes: int
    kinds: tuple[tuple[str, ...], tuple[str, ...]]


def traffic(compiled: Any) -> Traffic:
    """Count the collectives of a compiled program.

    Raises:
        ValueError: If a loop with collectives does not say how often it runs.
    """
    text = compiled.as_text()
    computations = dict(_computations(text))
    (entry,) = re.findall(r"^ENTRY %?([\w.\-]+)", text, re.MULTILINE)
    found = list(_walk(computations, entry, 1, in_loop=False))
    inside = [(kind, times, size) for kind, times, size, loop in found if loop]
    outside = [(kind, times, size) for kind, times, size, loop in found if not loop]
    return Traffic(
        in_loops=sum(times for _, times, _ in inside),
        outside=len(outside),
        bytes=sum(times * size for _, times, size in inside + outside),
        kinds=(_names(inside), _names(outside)),
    )


def _names(found: list[tuple[str, int, int]]) -> tuple[str, ...]:
    return tuple(sorted({kind for kind, _, _ in found}))


def _computations(text: str) -> Iterator[tuple[str, list[str]]]:
    lines: list[str] = []
    for line in text.splitlines():
        head = None if line.startswith(" ") else _COMPUTATION.match(line)
        if head:
            lines = []
            yield head[1], lines
        else:
            lines.append(line)


def _walk(
    computations: dict[str, list[str]], name: str, times: int, *, in_loop: bool
) -> Iterator[tuple[str, int, int, bool]]:
    """Collectives of a computation and all it calls: kind, runs, bytes, in a loop."""
    for line in computations.get(name, []):
        found = _COLLECTIVE.search(line)
        if found:
            yield found[2], times, _bytes(found[1]), in_loop
        elif " while(" in line:
            count = re.search(r'"known_trip_count":\{"n":"(\d+)"', line)
            (body,) = re.findall(r"body=%?([\w.\-]+)", line)
            (test,) = re.findall(r"condition=%?([\w.\-]+)", line)
            more = times * int(count[1]) if count else times
            for inner in (body, test):
                inside = list(_walk(computations, inner, more, in_loop=True))
                if inside and not count:
                    raise ValueError(f"how often does this loop run? {line}")
                yield from inside
        else:
            called = _CALLED.findall(line)
            for branches in _BRANCHES.findall(line):
                called += re.findall(r"[\w.\-]+", branches)
            for inner in called:
                yield from _walk(computations, inner, times, in_loop=in_loop)


def _bytes(types: str) -> int:
    total = 0
    for kind, bits, dimensions in _ARRAY.findall(types):
        size = 8 if kind == "pred" else int(bits or 32)
        for number in filter(None, dimensions.split(",")):
            size *= int(number)
        total += size // 8
    return total
