"""The cost model, tiny products: which of a step are written as multiply and sum."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jscan._jax.operations import TRANSCENDENTAL, DotSizes, dot_sizes

AT_ONCE = 8
"""Columns that are one vector instruction wherever they stand."""
_WIDEST = 32  # columns that are kept in registers all together
# Multiplications, and of columns that fill no register whole how many are added up.
_MOST_ADDED, _FEW_ADDED = 512, 20
# Multiplications of a product with a vector that is no call in any step, and as a sum
# faster than with a copy of its matrix.
_NO_CALL = 144


@dataclass(frozen=True)
class TinyProducts:
    """Up to which size a product is tiny.

    Attributes:
        smallest_side: Rows, and numbers added up for each, from which a matrix times a
            vector that is written as a sum becomes a product; 0 if never.
        small_dot: Multiplications up to which a product is written as a sum.
        small_sum: The same for a product that adds several terms, without batch axes.
        small_columns: The same for a vector times a matrix.
        longest_sum: Numbers that are added up for each of such a product, up to which
            columns are added up at once.
        longest_row: The same where each row is added up by itself.
        filling: Numbers that are added up from which a product with sixteen columns is
            faster than a sum that `tanh` reads; 0 if never.
    """

    smallest_side: int = 0
    small_dot: int = 0
    small_sum: int = 0
    small_columns: int = 0
    longest_sum: int = 0
    longest_row: int = 0
    filling: int = 0

    def is_tiny(self, product: Any, constant: bool = True) -> bool:
        """Whether a product may be written as a sum.

        Of a matrix that is not `constant` a step would make a copy for a product.
        """
        left, right = product.invars
        dtype = product.outvars[0].aval.dtype
        return (
            0 < dot_sizes(product).multiplications <= self._largest(product, constant)
            and left.aval.dtype == right.aval.dtype == dtype
            and dtype in (jnp.float32, jnp.float64)
        )

    def adds_columns(self, sizes: DotSizes) -> bool:
        """Whether a vector times a matrix that lies in rows is faster with columns.

        They are added up at once then: 1.1 to 3 times as fast, as they fill registers
        or few of them are added up. Up to eight rows, or many numbers each, are not.
        """
        columns = max(sizes.rows, sizes.columns)
        longest = self.longest_sum if columns % AT_ONCE == 0 else _FEW_ADDED
        fits = AT_ONCE <= columns <= _WIDEST and 1 < sizes.contracted <= longest
        return (
            sizes.is_of_vector
            and fits
            and sizes.multiplications <= min(_MOST_ADDED, self.small_columns)
        )

    def reads_rows(self, sizes: DotSizes) -> bool:
        """Whether one whose few columns lie as such is faster with rows, as a product.

        Each row is added up by vector instructions: 1.2 to 3 times as fast as a sum.
        """
        few = max(sizes.rows, sizes.columns) < AT_ONCE
        return few and sizes.contracted > self.longest_row

    def fills_a_register(self, sizes: DotSizes) -> bool:
        """Whether the columns of such a product are one vector instruction."""
        columns = max(sizes.rows, sizes.columns)
        return columns == 2 * AT_ONCE and 0 < self.filling <= sizes.contracted

    def are_tiny(self, equations: Iterable[Any]) -> bool:
        """Whether no product among them is a call: a step that calls one calls all.

        Where functions read many numbers, products are called all the same.
        """
        equations = list(equations)
        products = [e for e in equations if e.primitive.name == "dot_general"]
        sizes = (max(e.outvars[0].aval.shape, default=0) for e in products)
        wide = any(size >= 2 * AT_ONCE for size in sizes)
        functions = any(e.primitive.name in TRANSCENDENTAL for e in equations)
        return all(map(self.is_no_call, products)) and not (wide and functions)

    def is_no_call(self, product: Any) -> bool:
        """Whether one is a sum in any step."""
        sizes = dot_sizes(product)
        few = sizes.is_of_vector and sizes.multiplications <= _NO_CALL
        return few or self.is_tiny(product) or self.adds_columns(sizes)

    def _largest(self, product: Any, constant: bool) -> int:
        """The multiplications up to which a product of its kind is tiny."""
        sizes = dot_sizes(product)
        if not self.small_dot:
            return 0
        if not sizes.is_of_vector:
            summed = sizes.batch == 1 and sizes.contracted > 1
            return self.small_sum if summed else self.small_dot
        matrix, axes = matrix_of(product)
        is_product = matrix.aval.ndim == 2 and max(sizes.rows, sizes.columns) > 1
        if not is_product or sizes.contracted == 1:
            return 0
        # Columns are added up at once; the numbers of a row one by one.
        by_rows = axes != (0,)
        wide = not by_rows and matrix.aval.shape[1] > _WIDEST
        longest = self.longest_row if by_rows else self.longest_sum
        if not constant and sizes.multiplications <= _NO_CALL:
            return self.small_columns
        return 0 if wide or sizes.contracted > longest else self.small_columns


AS_EXACT = jax.lax.Precision.HIGHEST
"""The precision of a product that was a sum, on every device."""


def matrix_of(product: Any) -> tuple[Any, tuple[int, ...]]:
    """The larger operand of a product, and the axes of it that are added up."""
    axes, _ = product.params["dimension_numbers"]
    pairs = zip(product.invars, map(tuple, axes), strict=True)
    return max(pairs, key=lambda pair: pair[0].aval.size)
