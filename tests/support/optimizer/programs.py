"""Random programs with a loop inside, as data that builds, prints and shrinks.

A `Program` is a frozen description: what the loop carries and reads, the instructions
of its body, what the body hands on, and how the rest of the program uses the rows.
`Program.function` is the JAX function it describes. The repr of a failing example can
be pasted into a test as it stands.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from support.optimizer.operation import conform
from support.optimizer.operations import OPERATIONS

Arrays = list[jax.Array]

SHAPES = ("scalar", "vector", "rows", "square")
STARTS = ("argument", "zeros", "literal")
CHANGES = ("value", "add", "neighbour", "keep", "window")
USES = (
    "all",
    "last",
    "last_two",
    "first_two",
    "every_second",
    "every_third_from_one",
    "sum",
    "mean",
    "max",
    "min",
    "logsumexp",
    "last_and_sum",
    "reversed",
    "unused",
)
TWINS = ("none", "same", "other_start", "after")
SPECIALS = ("none", "nan", "inf", "zero")


@dataclasses.dataclass(frozen=True)
class Slot:
    """One array the loop carries, reads row by row, or uses at every step.

    Attributes:
        shape: One of `SHAPES`.
        integer: Which kind of values.
        start: Where it comes from: an argument, or zeros or ones made in the program.
        change: Of a state: it becomes a `value` of the body, has that added (`add`),
            becomes the next state (`neighbour`: swaps), stays (`keep`), or drops its
            oldest row and takes in a new one (`window`).
    """

    shape: str
    integer: bool = False
    start: str = "argument"
    change: str = "value"


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of the body; operands count back from the newest value."""

    operation: str
    operands: tuple[int, int, int] = (0, 0, 0)
    option: int = 0


@dataclasses.dataclass(frozen=True)
class Output:
    """One stacked output: which value, and what is read of its rows."""

    value: int
    integer: bool = False
    use: str = "all"


@dataclasses.dataclass(frozen=True)
class Program:
    """A loop and the code around it.

    Attributes:
        number: Type of the numbers.
        integer: Type of the integers.
        length: Steps.
        width: Length of a vector; small ones meet the cost model's "not worth it".
        reverse: Whether the loop runs backwards.
        unroll: Passed to `lax.scan`.
        carries: States; the body's last values of the fitting kind feed them.
        sequences: Arrays read one row a step.
        invariants: Arrays used at every step.
        body: Instructions.
        carried: For each state, which value it becomes.
        outputs: Stacked outputs and their uses.
        special: A value put into the inputs: `nan`, `inf`, `zero` or `none`.
        seed: Of the inputs' values.
        twin: A second loop of the same steps: started the `same`, or from an
            `other_start`, or `after` the first from its last state.
    """

    number: str
    integer: str
    length: int
    width: int
    reverse: bool
    unroll: int
    carries: tuple[Slot, ...]
    sequences: tuple[Slot, ...]
    invariants: tuple[Slot, ...]
    body: tuple[Instruction, ...]
    carried: tuple[int, ...]
    outputs: tuple[Output, ...]
    special: str = "none"
    seed: int = 0
    twin: str = "none"

    def shape(self, slot: Slot) -> tuple[int, ...]:
        """The shape of one row of a slot."""
        sizes = {
            "scalar": (),
            "vector": (self.width,),
            "rows": (2, self.width),
            "square": (self.width, self.width),
        }
        return sizes[slot.shape]

    def dtype(self, integer: bool) -> np.dtype:
        """The type of a kind of values."""
        return jnp.dtype(self.integer if integer else self.number)

    def arguments(self) -> tuple[Arrays, Arrays]:
        """Numbers to differentiate for, and integers."""
        random = np.random.default_rng(self.seed)
        numbers: Arrays = []
        integers: Arrays = []
        for slots, leading in self._groups():
            for slot in slots:
                shape = (*leading, *self.shape(slot))
                if slot.integer:
                    drawn = random.integers(-3, 9, shape)
                    integers.append(jnp.asarray(drawn.astype(self.dtype(True))))
                else:
                    numbers.append(self._draw(random, shape))
        return numbers, integers

    def function(self, numbers: Arrays, integers: Arrays) -> Arrays:
        """Runs the loop and uses its results."""
        sources = (iter(numbers), iter(integers))
        carries, sequences, invariants = (
            [self._given(slot, leading, sources) for slot in slots]
            for slots, leading in self._groups()
        )
        # XLA takes no number of a range for negative, though 8 bits wrap around.
        counter = jnp.arange(self.length).astype(self.dtype(True))

        def step(carry: Arrays, x: tuple[jax.Array, Arrays]) -> tuple[Arrays, Arrays]:
            count, row = x
            return self._step([*invariants, *row, *carry], count, carry)

        def loop(start: Arrays, uses: list[str]) -> tuple[Arrays, Arrays]:
            final, stacked = lax.scan(
                step,
                start,
                (counter, sequences),
                length=self.length,
                reverse=self.reverse,
                unroll=self.unroll,
            )
            used = map(use_rows, stacked, uses)
            return final, [leaf for leaves in used for leaf in leaves]

        uses = [output.use for output in self.outputs]
        final, used = loop(carries, uses)
        if self.twin == "none":
            return [*final, *used]
        starts = {"other_start": [-c for c in carries], "after": final}
        more, used_too = loop(starts.get(self.twin, carries), uses[::-1])
        return [*final, *used, *more, *used_too]

    def _groups(self) -> list[tuple[tuple[Slot, ...], tuple[int, ...]]]:
        return [
            (self.carries, ()),
            (self.sequences, (self.length,)),
            (self.invariants, ()),
        ]

    def _given(self, slot: Slot, leading: tuple[int, ...], sources: tuple) -> jax.Array:
        # Every slot has an argument, used or not, so the inputs do not depend on it.
        argument = next(sources[1 if slot.integer else 0])
        if slot.start == "zeros":
            return jnp.zeros_like(argument)
        if slot.start == "literal":
            return jnp.full_like(argument, 1)
        return argument

    def _draw(self, random: np.random.Generator, shape: tuple[int, ...]) -> jax.Array:
        drawn = 0.7 * random.standard_normal(shape)
        if jnp.issubdtype(self.dtype(False), jnp.complexfloating):
            drawn = drawn + 0.7j * random.standard_normal(shape)
        special = {"nan": np.nan, "inf": np.inf, "zero": 0.0}.get(self.special)
        if special is not None and drawn.size:
            flat = np.asarray(drawn).reshape(-1)
            flat[random.integers(flat.size)] = special
            drawn = flat.reshape(shape)
        return jnp.asarray(drawn).astype(self.dtype(False))

    def _step(
        self, available: Arrays, count: jax.Array, carry: Arrays
    ) -> tuple[Arrays, Arrays]:
        inexact = [a for a in available if jnp.issubdtype(a.dtype, jnp.inexact)]
        numbers = inexact or [jnp.ones((), self.dtype(False))]
        exact = [a for a in available if jnp.issubdtype(a.dtype, jnp.integer)]
        integers = [count, *exact]
        for instruction in self.body:
            operation = OPERATIONS[instruction.operation]
            first = instruction.operands[: operation.numbers]
            second = instruction.operands[operation.numbers :][: operation.integers]
            result = operation.apply(
                *[_newest(numbers, i) for i in first],
                *[_newest(integers, i) for i in second],
                instruction.option,
            )
            (integers if operation.gives_integer else numbers).append(result)

        def pick(index: int, integer: bool) -> jax.Array:
            return _newest(integers if integer else numbers, index)

        def change(position: int) -> jax.Array:
            slot, state = self.carries[position], carry[position]
            if slot.change == "keep":
                return state
            if slot.change == "neighbour":
                others = carry[position + 1 :] + carry
                found = next(a for a in others if a.dtype == state.dtype)
                return conform(found, state.shape)
            value = pick(self.carried[position], slot.integer)
            if slot.change == "window" and state.ndim:
                return pushed(state, value, newest_first=self.carried[position] % 2 > 0)
            value = conform(value, state.shape)
            return state + value if slot.change == "add" else value

        kept = [change(position) for position in range(len(carry))]
        return kept, [pick(output.value, output.integer) for output in self.outputs]


def pushed(window: jax.Array, value: jax.Array, newest_first: bool) -> jax.Array:
    """A window of rows after it took in one more."""
    row = conform(value, window.shape[1:])[None]
    parts = [row, window[:-1]] if newest_first else [window[1:], row]
    return jnp.concatenate(parts)


def _newest(values: Arrays, index: int) -> jax.Array:
    return values[-1 - index % len(values)]


def use_rows(rows: jax.Array, use: str) -> Arrays:
    """What the program reads of stacked rows; of too few rows, all of them."""
    if use == "unused":
        return []
    # JAX 0.12's XLA cannot compile some plain programs with a slice of no rows.
    if rows.shape[0] < (2 if use == "every_third_from_one" else 1):
        return [rows]
    simple: dict[str, Callable[[], Arrays]] = {
        "all": lambda: [rows],
        "last": lambda: [rows[-1]],
        "last_two": lambda: [rows[-2:]],
        "first_two": lambda: [rows[:2]],
        "every_second": lambda: [rows[::2]],
        "every_third_from_one": lambda: [rows[1::3]],
        "sum": lambda: [rows.sum(axis=0, dtype=rows.dtype)],
        "last_and_sum": lambda: [rows[-1], rows.sum(axis=0, dtype=rows.dtype)],
        "reversed": lambda: [jnp.flip(rows, axis=0)],
    }
    if use in simple:
        return simple[use]()
    if jnp.issubdtype(rows.dtype, jnp.integer):
        return [rows.min(axis=0) if use == "min" else rows.max(axis=0)]
    if use == "mean":
        return [rows.mean(axis=0)]
    reals = rows.real
    reduce = {"max": jnp.max, "min": jnp.min, "logsumexp": jax.nn.logsumexp}[use]
    return [reduce(reals, axis=0)]
