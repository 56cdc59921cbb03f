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


@dataclass(frozen=True)
class TinyProducts:
    """Up to which size a product is tiny.

    Attributes:
        smallest_side: Rows, and numbers added up for each, from which a matrix times a
            vector that is written as a sum becomes a product; 0 if never.
        small_dot: Multiplications up to which a product is written as a sum.
        small_sum: The same for a product that adds several terms, without batch axes.
        small_columns: The same for a vector times a matrix whose rows are added up.
        longest_sum: How many such rows there may be if each has more than eight.
        small_rows: The same for one whose rows are each added up to a number.
        filling: Numbers that are added up from which a product with sixteen columns is
            faster than a sum that `tanh` reads; 0 if never.
    """

    smallest_side: int = 0
    small_dot: int = 0
    small_sum: int = 0
    small_columns: int = 0
    longest_sum: int = 0
    small_rows: int = 0
    filling: int = 0

    def is_tiny(self, product: Any) -> bool:
        """Whether a product may be written as a sum."""
        left, right = product.invars
        dtype = product.outvars[0].aval.dtype
        return (
            0 < dot_sizes(product).multiplications <= self._largest(product)
            and left.aval.dtype == right.aval.dtype == dtype
            and dtype in (jnp.float32, jnp.float64)
        )

    def fills_a_register(self, sizes: DotSizes) -> bool:
        """Whether the columns of such a product are one vector instruction."""
        columns = max(sizes.rows, sizes.columns)
        return columns == 2 * AT_ONCE and 0 < self.filling <= sizes.contracted

    def are_tiny(self, equations: Iterable[Any]) -> bool:
        """Whether all products among them are: a step that calls one calls them all.

        Where functions read many numbers, products are called all the same.
        """
        equations = list(equations)
        products = [e for e in equations if e.primitive.name == "dot_general"]
        sizes = (max(e.outvars[0].aval.shape, default=0) for e in products)
        wide = any(size >= 2 * AT_ONCE for size in sizes)
        functions = any(e.primitive.name in TRANSCENDENTAL for e in equations)
        return all(map(self.is_tiny, products)) and not (wide and functions)

    def _largest(self, product: Any) -> int:
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
        # Rows of numbers are added up at once; the numbers of a row one by one.
        if axes != (0,):
            again = was_a_sum(product) and sizes.contracted < self.smallest_side
            return self.small_columns if again else self.small_rows
        columns = matrix.aval.shape[1]
        few = 2 < columns <= AT_ONCE
        long = sizes.contracted > self.longest_sum and not few
        return 0 if long or columns > _WIDEST else self.small_columns


AS_EXACT = jax.lax.Precision.HIGHEST
"""The precision of a product that was a sum, on every device."""


def was_a_sum(product: Any) -> bool:
    """Whether a product is as exact as those that were written as sums."""
    return product.params["precision"] in (AS_EXACT, (AS_EXACT, AS_EXACT))


def matrix_of(product: Any) -> tuple[Any, tuple[int, ...]]:
    """The larger operand of a product, and the axes of it that are added up."""
    axes, _ = product.params["dimension_numbers"]
    pairs = zip(product.invars, map(tuple, axes), strict=True)
    return max(pairs, key=lambda pair: pair[0].aval.size)
