"""The one cost model: what pays on which machine, and how much memory may be used.

The constants were measured on two CPU cores (see ``benchmarks/README.md``); rules
that hold for the CPU only are switched off on other platforms, where nothing was
measured. Limits that hold on any machine stand with their pass.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jscan.optimize._batch_cost import MEBIBYTE
from jscan.optimize._jaxpr import JAX_VERSION, Atom, number_of_bytes
from jscan.optimize._product_cost import ProductCosts
from jscan.optimize._unrolling import Unrolling
from jscan.optimize._work import (
    CHEAP_ARITHMETIC,
    MOVES_DATA,
    dot_sizes,
    is_elementwise,
)

TOO_LITTLE = "over all steps it saves less time than a batch and its rows cost"
"""Why work that would be expensive in a longer loop is left alone."""

RECOMPUTED = "a step computes again what jax.checkpoint was asked not to store"
"""Why no more rows of such a loop are stored."""


@dataclass(frozen=True)
class Machine(ProductCosts):
    """What pays on one kind of device.

    Attributes:
        unrolling: When to do several steps an iteration; `None` if never.
        orders_reads: Whether the compiler updates in place what is read before.
        chunk_bytes: Bytes between the operations of one chunk of a map.
        split_bytes: Bytes of rows for which a loop is cut into parts.
        joined_bytes: Bytes that a step of two different loops may touch for them to run
            as one; 0 if never.
        joins_small_dots: Whether such a step may hold small products.
    """

    unrolling: Unrolling | None = None
    orders_reads: bool = JAX_VERSION >= (0, 12)
    chunk_bytes: int = 4 * MEBIBYTE
    split_bytes: int = MEBIBYTE // 4
    joined_bytes: int = 0
    joins_small_dots: bool = False

    def keeps_apart(
        self, equations: Sequence[Any], state: Sequence[Any], rows: Sequence[Any]
    ) -> str | None:
        """Why two different loops take less time as they are, if they do.

        Args:
            equations: One step of both loops.
            state: What both carry.
            rows: What both hand out at each step.
        """
        if not self.joined_bytes:
            return "whether larger steps pay was not measured on this device"
        heavy = next((e for e in equations if not self._is_light(e)), None)
        if heavy is not None:
            return (
                f"a step does {heavy.primitive.name}, which outweighs what a loop costs"
            )
        touched = sum(map(number_of_bytes, [*state, *state, *rows]))
        touched += sum(
            number_of_bytes(a) for e in equations for a in (*e.invars, *e.outvars)
        )
        if touched > self.joined_bytes:
            return f"a step of both touches {touched} bytes, too many to gain by it"
        return None

    def _is_light(self, equation: Any) -> bool:
        if equation.primitive.name == "dot_general":
            return (
                self.joins_small_dots
                and dot_sizes(equation).multiplications <= self.small_dot
            )
        return is_elementwise(equation) or equation.primitive.name in MOVES_DATA


_CPU = Machine(
    batch_start=80_000,
    # JAX 0.10's CPU compiler calls a function even for small products.
    whole_dot=(0, 0) if JAX_VERSION < (0, 11) else (2048, 4096),
    lone_dot=0 if JAX_VERSION < (0, 11) else 4096,
    small_dot=1024,
    small_sum=2304,
    fused_dot=512,
    merged_dot=128 * 512,
    merged_rows=8,
    fewest_lags=8,
    threaded_dot=2**19,
    threaded_vector=2**19 if JAX_VERSION < (0, 11) else 0,
    # A step gains 0.1 ns per element and more with rows, but 0.01 ns without.
    transposed_rows=8,
    transposed_vector=256,
    smallest_outer_product=64,
    # 3 times as fast; with fewer elements, and by JAX 0.12, 0.6 to 1.1 times.
    inner_product=(64, 512) if JAX_VERSION < (0, 11) else (0, -1),
    # With 64 rows taking sums out was 0.8 to 1.15 times as fast, with 32 up to 1.4.
    full_rows=64,
    unrolling=Unrolling(
        shortest=64,
        factor=4,
        numbers=400,
        rows=32,
        high_factor=8,
        high_numbers=64,
        arrays=120,
        without_rows=16 * 2**10,
    ),
    # Two small loops as one: JAX 0.10's CPU compiler takes only a very small step into
    # one native loop, and a step with products leaves it sooner when it does more.
    joined_bytes=512 if JAX_VERSION < (0, 11) else 8192,
    joins_small_dots=JAX_VERSION >= (0, 11),
)


def machine_for(platform: str) -> Machine:
    """The cost constants of a platform; only the CPU's were measured."""
    return _CPU if is_measured(platform) else Machine()


def is_measured(platform: str) -> bool:
    """Whether the gains of the rewrites were measured on a platform."""
    return platform == "cpu"


LONGEST_ROUNDING = 2e-3
"""Steps times the last place of a sum that is added up one step at a time."""


def keeps_logsumexp_rows(
    equations: Sequence[Any], rows: int, budget: int
) -> str | None:
    """Why a logsumexp over stored rows beats a running one, if it does.

    The running one takes two exponentials a step instead of one. Measured: 0.45 to 2
    times as fast for rows below the budget; above it, where memory is mapped anew at
    each call, 1.3 to 2 times after cheap steps and tanh, but 0.5 to 0.9 after a sine.

    Args:
        equations: One step of the loop.
        rows: Bytes of all rows.
        budget: Bytes that may be used.
    """
    if rows <= budget:
        return f"one exponential less a step is faster while they take {rows} bytes"
    light = CHEAP_ARITHMETIC | MOVES_DATA | {"tanh"}
    for equation in equations:
        name = equation.primitive.name
        if name not in light:
            return (
                f"exponentials in a step that does {name} were not found to be faster"
            )
    return None


def stack_bytes(atoms: list[Atom], length: int) -> int:
    """Bytes of the stacks `[length, ...]` of some operands."""
    return length * sum(map(number_of_bytes, atoms))
