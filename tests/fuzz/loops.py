"""Calls of `scan` and its views, as data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

FLOATS = ("float32", "float64", "float16", "bfloat16", "complex64", "complex128")
INTEGERS = ("int32", "int64", "int8", "int16", "uint8", "uint16", "uint32", "uint64")
DTYPES = ("float32", "float64", *FLOATS, *FLOATS, "bool", *INTEGERS)
SHAPES = ((), (2,), (2, 2))
TAPS = ([-1], [-2], [-2, -1], [-1, -3], [-4, -2], [-5])


@dataclass(frozen=True)
class Kind:
    """A type of arrays, and whether there are two of them in a dict."""

    dtype: str = "float32"
    shape: tuple[int, ...] = ()
    is_tree: bool = False

    @property
    def is_smooth(self) -> bool:
        return self.dtype in FLOATS


@dataclass(frozen=True)
class Sequence:
    """An input of so many rows; `taps` None: it is given without a dict."""

    kind: Kind
    rows: int
    taps: list[int] | None = None
    mixes: bool = False  # of an inner loop: what the outer step sees is added


@dataclass(frozen=True)
class Output:
    """A map output (no taps) or a state.

    Attributes:
        kind: Its type.
        taps: Of a state.
        start: What a state starts from: an `array`, a `number` of Python, one of a
            `narrow` type, or a shared `variable`.
        extra: Rows that the initial has beyond those needed.
        in_dict: Whether an initial for the tap -1 is given in a dict.
        mixes: As of a sequence.
    """

    kind: Kind
    taps: list[int] = field(default_factory=list)
    start: str = "array"
    extra: int = 0
    in_dict: bool = False
    mixes: bool = False


@dataclass(frozen=True)
class Noise:
    """A draw: made `outside` of the loop, `inside` of the step, or `listed`.

    Attributes:
        method: Of `RandomStreams`.
        size: Of the sample.
        dtype: Of the sample; None: the default.
        options: Parameters that are fixed.
        place: Where it is made.
        scaled: Whether a bound or a deviation is a value of the program.
        stream: Which stream.
    """

    method: str
    size: Any
    dtype: str | None
    options: dict[str, Any]
    place: str = "outside"
    scaled: bool = False
    stream: int = 0


@dataclass(frozen=True, eq=False)
class Loop:
    """One call.

    Attributes:
        view: `scan`, `map`, `reduce`, `foldl`, `foldr` or `scan_checkpoints`.
        n_steps: A number, None (the sequences decide), or `traced`.
        most: The number that is passed where `n_steps` is a number or traced.
        max_steps: The argument.
        constants: Arrays used at every step; those beyond `listed` are captured.
        reads: Numbers of shared variables that the step captures.
        arguments: Those that stand in `non_sequences`.
        updates: Those that get a new value.
        stop: None, or the kind of condition: `count`, `value`, `always`, `never`.
        form: How the step packs what it returns.
        options: Further arguments.
        inner: A loop in the step.
        hands_on: Whether the step returns the updates of the inner loop.
        salt: Makes its numbers other ones.
    """

    view: str = "scan"
    sequences: tuple[Sequence, ...] = ()
    outputs: tuple[Output, ...] = ()
    infos_left_out: bool = False
    n_steps: int | str | None = None
    most: int = 0
    max_steps: int | None = None
    constants: tuple[Kind, ...] = ()
    listed: int = 0
    reads: tuple[int, ...] = ()
    arguments: tuple[int, ...] = ()
    updates: tuple[int, ...] = ()
    noises: tuple[Noise, ...] = ()
    stop: str | None = None
    form: int = 0
    options: dict[str, Any] = field(default_factory=dict)
    inner: Loop | None = None
    hands_on: bool = True
    salt: int = 0

    @property
    def bound(self) -> int:
        """The most steps there can be."""
        if isinstance(self.n_steps, int):
            return self.n_steps
        limits = [usable(sequence) for sequence in self.sequences]
        return min(limits if self.max_steps is None else [*limits, self.max_steps])

    @property
    def may_end_early(self) -> bool:
        return self.stop is not None or self.n_steps == "traced"

    @property
    def backwards(self) -> bool:
        return self.view == "foldr" or self.options.get("go_backwards", False)

    @property
    def gives_last(self) -> bool:
        return self.view in ("reduce", "foldl", "foldr")

    def and_inner(self) -> list[Loop]:
        return [self, *(self.inner.and_inner() if self.inner else [])]


def usable(sequence: Sequence) -> int:
    taps = [0, *(sequence.taps or [])]
    return max(0, sequence.rows + min(taps) - max(taps))
