"""The one cost model: what pays on which machine, and how much memory may be used.

The constants were measured on two CPU cores (see ``benchmarks/README.md``); rules
that hold for the CPU only are switched off on other platforms, where nothing was
measured. Limits that hold on any machine stand with their pass.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from jscan.optimize._jaxpr import JAX_VERSION, Atom, number_of_bytes
from jscan.optimize._unrolling import Unrolling
from jscan.optimize._work import (
    CHEAP_ARITHMETIC,
    INDEXED,
    MOVES_DATA,
    TRANSCENDENTAL,
    DotSizes,
    dot_sizes,
    is_elementwise,
    is_expensive,
    is_vector_product,
)

MEBIBYTE = 2**20
DEFAULT_BUDGET = 32 * MEBIBYTE
"""Bytes one rewrite may add: above it an allocation is mapped anew on each call."""

TOO_LITTLE = "over all steps it saves less time than a batch and its rows cost"
"""Why work that would be expensive in a longer loop is left alone."""

RECOMPUTED = "a step computes again what jax.checkpoint was asked not to store"
"""Why no more rows of such a loop are stored."""


@dataclass(frozen=True)
class Machine:
    """What pays on one kind of device.

    Attributes:
        batch_start: Nanoseconds that work done for all steps at once has to save
            before it is worth it; 0 if all expensive work is. On a CPU a batched
            operation wakes threads, which alone takes as long as some whole loops.
        whole_dot: Multiplications, more than and at most, for which a vector times a
            matrix wider than high stays in the loop: taken out, such steps of networks
            with fused gates were 0.75 to 0.9 times as fast.
        lone_dot: Multiplications up to which one or two products with a vector stay,
            all together, if they are all that could leave: the step is one short
            function with them as without.
        small_dot: Multiplications up to which a product is written as a sum.
        small_sum: The same for a product that adds several terms, without batch axes.
        fused_dot: Multiplications up to which such a sum may be fused with what reads
            it, which may do it several times.
        merged_dot: Elements of the matrix up to which products are merged.
        merged_rows: Rows up to which such products are.
        threaded_dot: Multiplications from which products are merged whatever their
            matrix, because the compiler then uses several threads; 0 if never.
        threaded_vector: The same for products of one row.
        transposed_rows: Steps from which a transposed matrix is stored as such for
            products of several rows; 0 if never.
        transposed_vector: The same for products of one row.
        smallest_outer_product: Elements from which a sum of outer products leaves.
        inner_product: Elements, from and to, of two arrays whose inner product, summed
            over time, leaves; between them the compiler makes the sum in the loop one
            operation, and others do the work again that it reads.
        products_a_row: Products, parts of one sum, that are worth storing one row.
        full_rows: Rows a step from which a product in the loop is as fast as one of
            all steps, so that storing its operands is not worth it; 0 if never.
        unrolling: When to do several steps an iteration; `None` if never.
        orders_reads: Whether the compiler updates in place what is read before.
        chunk_bytes: Bytes between the operations of one chunk of a map.
        split_bytes: Bytes of rows for which a loop is cut into parts.
        joined_bytes: Bytes that a step of two different loops may touch for them to run
            as one; 0 if never.
        joins_small_dots: Whether such a step may hold small products.
    """

    batch_start: int = 0
    whole_dot: tuple[int, int] = (0, 0)
    lone_dot: int = 0
    small_dot: int = 0
    small_sum: int = 0
    fused_dot: int = 0
    merged_dot: int = 0
    merged_rows: int = 0
    threaded_dot: int = 0
    threaded_vector: int = 0
    transposed_rows: int = 0
    transposed_vector: int = 0
    smallest_outer_product: int = 0
    inner_product: tuple[int, int] = (0, -1)
    products_a_row: int = 4
    full_rows: int = 0
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

    def gains_batched(self, equation: Any) -> bool:
        """Whether an equation runs faster for all steps at once, however long."""
        if not self.batch_start:
            return is_expensive(equation)
        return is_expensive(equation) and self.saved_nanoseconds(equation) > 0

    def pays_batched(
        self,
        equations: Iterable[Any],
        length: int,
        extra: float = 0,
        *,
        held: int = 0,
        new: int = 0,
    ) -> bool:
        """Whether equations save enough over all steps to leave the loop together.

        Args:
            equations: What would run for all steps at once.
            length: The number of steps.
            extra: Nanoseconds a step saves besides.
            held: Bytes of the rows the loop holds anyway.
            new: Bytes of the rows it would hold besides.
        """
        if not self.batch_start:
            return True
        equations = list(equations)
        if self._are_lone_dots([e for e in equations if is_expensive(e)]):
            return False
        saved = extra + sum(map(self.saved_nanoseconds, equations))
        return length * saved >= self.batch_start + self.mapping(held, new)

    def mapping(self, held: int, new: int) -> float:
        """Nanoseconds that `new` bytes cost because memory is mapped at each call.

        All rows of a program are one allocation, and the system maps a large one anew
        each time: to cross the limit makes the rows below it slower as well.
        """
        if not self.batch_start:
            return 0
        before, after = (b if b > _MAPPED else 0 for b in (held, held + new))
        return _MAPPED_BYTE * (after - before)

    def saved_nanoseconds(self, equation: Any) -> float:
        """About what one step saves if the equation is done for all steps at once."""
        name = equation.primitive.name
        elements = sum(math.prod(v.aval.shape) for v in equation.outvars)
        if name in INDEXED or name.startswith("scatter"):
            return -_INDEXED_ROW - _INDEXED_ELEMENT * elements
        if name == "dot_general":
            sizes = dot_sizes(equation)
            return 0 if self._stays_whole(sizes) else self._saved_by_dot(sizes)
        if name in TRANSCENDENTAL:
            # XLA's CPU compiler uses vector instructions in a loop for wide rows only.
            wide = elements >= _VECTOR_ROW
            each = _WIDE_TRANSCENDENTAL if wide else _TRANSCENDENTAL_ALONE
            return each * elements
        if not is_expensive(equation):
            return 0
        # An inner loop saves as much at each of its steps.
        steps = equation.params["length"] if name == "scan" else 1
        return _OPAQUE * steps + _WIDE_TRANSCENDENTAL * elements

    def pays_as_map(
        self,
        equations: Sequence[Any],
        rows: Sequence[Any],
        length: int,
        summed: bool = False,
    ) -> bool:
        """Whether a loop without state pays as one batch.

        Args:
            equations: The equations of a step.
            rows: The variables whose rows a step reads and hands out.
            length: The number of steps.
            summed: Whether products of what changes are summed over all steps.
        """
        elements = sum(math.prod(v.aval.shape) for v in rows)
        extra = _ROUND + _STREAMED_ELEMENT * elements / 2
        if summed:
            products = [e for e in equations if e.primitive.name == "dot_general"]
            added = sum(math.prod(e.outvars[0].aval.shape) for e in products)
            extra += _ADDED_ELEMENT * added
        return self.pays_batched(equations, length, extra)

    def _saved_by_dot(self, sizes: DotSizes) -> float:
        if sizes.contracted == 1:
            return 0  # each product is an element to store: nothing is gained
        vector = is_vector_product(sizes)
        call = _VECTOR_CALL if vector else _MATRIX_CALL
        each = _MULTIPLICATION
        if min(sizes.rows, sizes.columns) >= _MANY_ROWS:
            each = _MULTIPLICATION_OF_MANY
        return call + each * sizes.multiplications

    @property
    def takes_out_rows(self) -> bool:
        """Whether rows written into zeros are summed by one scatter after the loop.

        Added in place they cost one row a step, where a scatter starts threads.
        """
        return not self.batch_start

    def takes_out_inner_product(self, product: Any, length: int) -> bool:
        """Whether the sum over all elements of a product pays as one of all steps."""
        least, most = self.inner_product
        inside = least <= product.outvars[0].aval.size <= most
        return inside and length * _INNER_PRODUCT >= self.batch_start

    def takes_out_products(self, count: int, new: int, length: int) -> bool:
        """Whether so many products in one sum pay for storing `new` more rows."""
        many = count >= self.products_a_row * max(1, new)
        return many and length * count * _PRODUCT_OF_MANY >= self.batch_start

    def stores_transposed(self, equation: Any, length: int) -> bool:
        """Whether the transposed matrix of a product is stored before the loop."""
        sizes = dot_sizes(equation)
        vector = min(sizes.rows, sizes.columns) == 1
        least = self.transposed_vector if vector else self.transposed_rows
        return 0 < least <= length

    def _are_lone_dots(self, equations: Sequence[Any]) -> bool:
        if len(equations) > 2 or any(
            e.primitive.name != "dot_general" for e in equations
        ):
            return False
        sizes = list(map(dot_sizes, equations))
        together = sum(one.multiplications for one in sizes)
        return all(map(is_vector_product, sizes)) and together <= self.lone_dot

    def _stays_whole(self, sizes: DotSizes) -> bool:
        least, most = self.whole_dot
        wide = sizes.batch == sizes.rows == 1 and sizes.columns > sizes.contracted
        return wide and least < sizes.multiplications <= most

    def merges(self, whole: DotSizes) -> bool:
        """Whether products with one left operand pay as one of this size."""
        threaded = self.threaded_dot if whole.rows > 1 else self.threaded_vector
        if 0 < threaded <= whole.multiplications:
            return True
        small = whole.contracted * whole.columns <= self.merged_dot
        return small and whole.rows <= self.merged_rows

    def joins(self, parts: Iterable[DotSizes]) -> bool:
        """Whether a sum of products pays as one: not if all are written as sums."""
        return any(part.multiplications > self.small_sum for part in parts)

    def pays_as_sum(
        self, equation: Any, length: int, new_bytes: int, budget: int
    ) -> bool:
        """Whether a product summed over time pays as one contraction.

        Args:
            equation: The product, whose operands both change with time.
            length: The number of steps.
            new_bytes: Bytes of the stacks it needs that would not exist anyway.
            budget: The memory budget.
        """
        sizes = dot_sizes(equation)
        elements = sizes.batch * sizes.rows * sizes.columns
        saved = _ADDED_ELEMENT * elements + _MULTIPLICATION * sizes.multiplications
        if length * saved < self.batch_start:
            return False
        if new_bytes and 0 < self.full_rows <= sizes.contracted:
            return False
        if elements >= self.smallest_outer_product:
            return new_bytes <= budget
        matrix = min(sizes.rows, sizes.contracted, sizes.columns) > 1
        return matrix and sizes.multiplications > 1024 and new_bytes <= budget


# Nanoseconds one step saves, in the loop less batched, measured on a CPU.
_ROUND = 1.5
_STREAMED_ELEMENT = 0.14
_INDEXED_ROW = 2.0
_INDEXED_ELEMENT = 0.02
_ADDED_ELEMENT = 0.1
_TRANSCENDENTAL_ALONE = 2.0
_WIDE_TRANSCENDENTAL = 0.35
_VECTOR_ROW = 32
_VECTOR_CALL = 50.0
_MATRIX_CALL = 400.0
_MULTIPLICATION = 0.025
_MULTIPLICATION_OF_MANY = 0.006
_MANY_ROWS = 16
_INNER_PRODUCT = 500.0
_PRODUCT_OF_MANY = 4.0
_MAPPED_BYTE = 0.4
_MAPPED = DEFAULT_BUDGET
_OPAQUE = 100.0

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
