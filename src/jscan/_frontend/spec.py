"""What a call of `scan` means once its arguments are understood: frozen records."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

import jax

from jscan._base.types import Leaf, PyTree
from jscan._jax.types import abstract_row
from jscan._state.variables import SharedVariable

Mode: TypeAlias = Literal["FAST_RUN", "FAST_COMPILE", "DEBUG"]
Checkpoint: TypeAlias = Literal["sqrt", "recursive"] | int | None

# What a step may raise that took a variable for an array, or an array for one.
WITHOUT_ARRAYS = (TypeError, ValueError, AttributeError)


@dataclass(frozen=True, eq=False)
class SequenceSpec:
    """One sequence: a tree of arrays ``[L, ...]`` and the taps of it the step sees."""

    place: str
    source: Any  # what the user passed; only to find its name for an error text
    value: PyTree
    taps: tuple[int, ...]

    @property
    def lead(self) -> int:
        """Rows before the first step's time 0: ``-min(taps, 0)``."""
        return -min(0, *self.taps)

    @property
    def window(self) -> int:
        """Rows from the earliest to the latest that one step may see, its own too."""
        return self.lead + 1 + max(0, *self.taps)

    @property
    def rows(self) -> int:
        """Length ``L`` of the leading axis."""
        return jax.tree.leaves(self.value)[0].shape[0]

    @property
    def steps(self) -> int:
        """Number of steps the sequence allows: ``L + min(taps,0) - max(taps,0)``."""
        return max(0, self.rows - self.window + 1)


@dataclass(frozen=True, eq=False)
class OutputSpec:
    """One entry of `outputs_info`: a map output (no taps) or a state.

    The initial value of a state is held with a time axis, ``[span, ...]``, whatever
    way the user gave it; a one-tap initial without a time axis keeps `has_rows` false.
    """

    place: str
    source: Any = None
    initial: PyTree = None
    taps: tuple[int, ...] = ()
    has_rows: bool = False

    @property
    def is_state(self) -> bool:
        """True when the output feeds back into the step."""
        return bool(self.taps)

    @property
    def span(self) -> int:
        """Number of past rows the taps reach back: ``-min(taps)``."""
        return -min(self.taps)

    @property
    def row(self) -> PyTree:
        """The type of one row of a state."""
        return jax.tree.map(abstract_row if self.has_rows else jax.typeof, self.initial)

    def initial_rows(self) -> PyTree:
        """The `span` rows before the first step, ``[span, ...]``."""
        if not self.has_rows:
            return jax.tree.map(lambda leaf: leaf[None], self.initial)
        return jax.tree.map(lambda leaf: leaf[: self.span], self.initial)


@dataclass(frozen=True, eq=False)
class NonSequenceSpec:
    """One constant argument of the step; a shared variable in it stands for itself."""

    place: str
    source: Any
    value: PyTree


@dataclass(frozen=True)
class Options:
    """The arguments of `scan` that say how to run the loop, not what it computes."""

    name: str | None = None
    mode: Mode = "FAST_RUN"
    truncate_gradient: int = -1
    go_backwards: bool = False
    strict: bool = False
    return_list: bool = False
    profile: bool | str = False
    unroll: int | bool | None = None
    checkpoint: Checkpoint = None
    memory_kind: str | None = None  # where what it saves is kept, if not at hand
    progress: tuple[tuple[str, Any], ...] | None = None  # options of the bar
    last_only: bool = False  # set by `reduce`: keep the last row of every output
    row_every: int | None = None  # set by `scan_checkpoints`, with `last_only`

    @property
    def runs_in_parts(self) -> bool:
        """Whether not all steps are in one loop of JAX."""
        return self.row_every is not None or self.truncate_gradient != -1


@dataclass(frozen=True, eq=False)
class ScanSpec:
    """A validated call of `scan`; nothing downstream checks the arguments again.

    Attributes:
        outputs: One entry per output, or None when `outputs_info` was not given and
            every output is a map output.
        n_steps: Number of steps (with `until` or a `limit`: at most that many).
        limit: The number of steps where only the running program knows it, or None.
        bound: The most steps of such a loop, also where this call knows its number: by
            so many a step around moves streams, whatever runs the step.
        refused: Why the step cannot be called with the shared variables listed in
            `non_sequences`, so that it is with their values; None if it can.
    """

    fn: Callable[..., Any]
    sequences: tuple[SequenceSpec, ...]
    outputs: tuple[OutputSpec, ...] | None
    non_sequences: tuple[NonSequenceSpec, ...]
    n_steps: int
    bound: int
    options: Options = field(default_factory=Options)
    limit: Leaf | None = None
    refused: Exception | None = None

    @property
    def states(self) -> tuple[OutputSpec, ...]:
        """The entries of `outputs_info` that feed back."""
        return tuple(o for o in self.outputs or () if o.is_state)

    @property
    def empty_pair(self) -> list[PyTree]:
        """Of two outputs, the initials that hold no arrays, else None."""
        initials = [output.initial for output in self.outputs or ()]
        pair = initials if len(initials) == 2 else []
        return [None if jax.tree.leaves(tree) else tree for tree in pair]

    @property
    def _constants(self) -> list[Any]:
        return jax.tree.leaves([s.value for s in self.non_sequences])

    @property
    def listed(self) -> tuple[SharedVariable, ...]:
        """The shared variables in `non_sequences`, each once; they are no inputs."""
        return tuple(dict.fromkeys(filter(_is_variable, self._constants)))

    def non_sequence_leaves(self) -> list[Leaf]:
        """The arrays in `non_sequences`, in order; inputs of the loop."""
        return [leaf for leaf in self._constants if not _is_variable(leaf)]

    @property
    def constant_types(self) -> list[PyTree]:
        """The types of the `non_sequence_leaves`, in the trees the step gets."""
        types = lambda leaf: None if _is_variable(leaf) else jax.typeof(leaf)
        return [jax.tree.map(types, s.value) for s in self.non_sequences]

    def non_sequence_arguments(self, arrays: Iterable[Leaf]) -> list[PyTree]:
        """What the step gets for its non_sequences, whose arrays are worth `arrays`."""
        stream = iter(arrays)

        def fill(leaf: Any) -> Any:
            if not _is_variable(leaf):
                return next(stream)
            return leaf if self.refused is None else leaf.value

        return [jax.tree.map(fill, s.value) for s in self.non_sequences]

    def with_values(self, error: Exception) -> ScanSpec:
        """The same call with values in place of the variables that are listed.

        Functions of JAX take arrays only. A step that hands them a variable it got as
        an argument fails with `error`, and is tried once more with the value.
        """
        if self.refused is not None:
            raise self.refused from None
        return replace(self, refused=error)


def _is_variable(value: Any) -> bool:
    return isinstance(value, SharedVariable)
