"""The cost model, products: how those of a step are written, and which sums leave."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from jscan._jax.operations import DotSizes, dot_sizes
from jscan._optimizer.costs.batches import BatchCosts
from jscan._optimizer.costs.savings import ADDED_ELEMENT, MULTIPLICATION

# Nanoseconds a product of a step saves if it is summed over time behind the loop.
_PRODUCT_OF_MANY = 4.0
# Of what it takes to wake threads: to divide a sum among them, asleep and awake.
_WAKES, _AWAKE = 0.5, 0.35


@dataclass(frozen=True)
class ProductCosts(BatchCosts):
    """How the products of a step are written, and which are summed behind the loop.

    Attributes:
        fused_dot: Multiplications up to which a product that is written as a sum may be
            fused with what reads it, which may do it several times.
        merged_dot: Elements of the matrix up to which products are merged.
        merged_rows: Rows up to which such products are.
        merged_steps: Steps from which those of one row are, and their sums.
        merges_tiny: Whether products that are sums each may become one that is none.
        added_vectors: Multiplications from which a sum of products of one row is one
            product, if what they read is not carried as one; 0 if never.
        carried_dot: Multiplications of a product with a state from which it is put
            together with those of other states, that are then carried as one.
        fewest_lags: Numbers times rows of one array, added up, from which they are
            written as a product; 0 if never.
        threaded_dot: Multiplications from which products are merged whatever their
            matrix, because the compiler then uses several threads; 0 if never.
        threaded_vector: The same for products of one row.
        transposed_rows: Steps from which a transposed matrix is stored as such for
            products of several rows; 0 if never.
        transposed_vector: The same for products of one row.
        transposed_inner: Numbers added up for each number of such a product, if it is
            the only one, up to which it gains, where there are more results than that.
        smallest_outer_product: Elements from which a sum of outer products leaves.
        products_a_row: Products, parts of one sum, that are worth storing one row.
        full_rows: Rows a step from which a product in the loop is as fast as one of
            all steps, so that storing its operands is not worth it; 0 if never.
        register_bytes: Bytes of the vector registers that products of one row are done
            in; 0 if that does not matter.
    """

    fused_dot: int = 0
    merged_dot: int = 0
    merged_rows: int = 0
    merged_steps: int = 0
    merges_tiny: bool = True
    added_vectors: int = 0
    carried_dot: int = 0
    fewest_lags: int = 0
    threaded_dot: int = 0
    threaded_vector: int = 0
    transposed_rows: int = 0
    transposed_vector: int = 0
    transposed_inner: int = 0
    smallest_outer_product: int = 0
    products_a_row: int = 4
    full_rows: int = 0
    register_bytes: int = 0

    def stores_transposed(self, equation: Any, length: int, alone: bool) -> bool:
        """Whether the transposed matrix of a product is stored before the loop.

        One that is not `alone` may be put together with the others then.
        """
        sizes = dot_sizes(equation)
        if min(sizes.rows, sizes.columns) > 1:
            return 0 < self.transposed_rows <= length
        if alone and sizes.multiplications > self.small_columns:
            # Long rows are added up as fast as they lie in memory.
            columns = max(sizes.rows, sizes.columns)
            if sizes.contracted > min(self.transposed_inner, columns - 1):
                return False
        return 0 < self.transposed_vector <= length

    def merges(self, parts: Sequence[DotSizes], length: int) -> bool:
        """Whether products with one left operand pay as one."""
        whole = replace(parts[0], columns=sum(part.columns for part in parts))
        if whole.rows == 1 and length < self.merged_steps:
            return False
        threaded = self.threaded_dot if whole.rows > 1 else self.threaded_vector
        if 0 < threaded <= whole.multiplications:
            return True
        largest = max(part.multiplications for part in parts)
        if not self.merges_tiny and largest <= self.small_sum < whole.multiplications:
            return False
        small = whole.contracted * whole.columns <= self.merged_dot
        return small and whole.rows <= self.merged_rows

    def joins(self, parts: Sequence[DotSizes], length: int, carried: bool) -> bool:
        """Whether a sum of products pays as one: not if all are written as sums.

        With `carried`, what they read is carried as one, too; to put other vectors
        side by side takes a call.
        """
        most = self.carried_dot if carried else self.small_sum
        if all(part.multiplications <= most for part in parts):
            return False
        if parts[0].rows > 1:
            return True
        size = sum(part.multiplications for part in parts)
        long = length >= self.merged_steps and size >= self.added_vectors
        return self.added_vectors > 0 and (carried or long)

    @property
    def takes_out_rows(self) -> bool:
        """Whether rows written into zeros are summed by one scatter after the loop.

        Added in place they cost one row a step, where a scatter starts threads.
        """
        return not self.batch_start

    def takes_out_products(self, count: int, new: int, length: int) -> bool:
        """Whether so many products in one sum pay for storing `new` more rows."""
        many = count >= self.products_a_row * max(1, new)
        return many and length * count * _PRODUCT_OF_MANY >= self.batch_start

    def saved_by_sum(self, equation: Any, new_bytes: int, budget: int) -> float:
        """Nanoseconds a step saves if a product is summed as one contraction.

        It needs stacks of `new_bytes` that would not exist anyway. It is 0 where that
        does not pay, however many steps there are.
        """
        sizes = dot_sizes(equation)
        elements = sizes.batch * sizes.rows * sizes.columns
        if new_bytes and 0 < self.full_rows <= sizes.contracted:
            return 0.0
        matrix = min(sizes.rows, sizes.contracted, sizes.columns) > 1
        large = matrix and sizes.multiplications > 1024
        large = large or elements >= self.smallest_outer_product
        if not large or new_bytes > budget:
            return 0.0
        return ADDED_ELEMENT * elements + MULTIPLICATION * sizes.multiplications

    def sum_start(self, step: Sequence[Any]) -> int:
        """Nanoseconds that all such sums of a loop have to save together."""
        if not self.batch_start:
            return 0
        share = _WAKES if self.is_function(step) else _AWAKE
        return self.batch_start + round(share * self.threads_start)

    @property
    def relieving_start(self) -> int:
        """The same of sums that leave so that a step makes fewer calls."""
        return self.batch_start + self.threads_start
