"""What kind of work an equation is: its class, and the sizes of a product.

Nothing here knows a machine; what the work costs on one is for `_optimizer/costs/`.
"""

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

ELEMENTWISE = frozenset(
    {
        *("add", "sub", "mul", "div", "neg", "max", "min", "abs", "sign", "clamp"),
        *("tanh", "logistic", "exp", "exp2", "log", "log1p", "expm1", "sin", "cos"),
        *("sqrt", "rsqrt", "cbrt", "integer_pow", "square", "pow", "erf"),
        *("one_minus_square", "select_n", "convert_element_type", "add_any"),
        *("eq", "ne", "lt", "le", "gt", "ge", "and", "or", "not", "xor"),
        *("floor", "ceil", "round", "is_finite", "real", "imag", "conj", "copy"),
        *("stop_gradient", "rem", "nextafter", "reduce_precision"),
        *("shift_left", "shift_right_logical", "shift_right_arithmetic"),
        *("population_count", "clz", "complex"),
    }
)

TRANSCENDENTAL = frozenset(
    {
        *("tanh", "logistic", "exp", "exp2", "log", "log1p", "expm1", "sin", "cos"),
        *("pow", "erf", "sqrt", "rsqrt", "cbrt"),
        *("atan2", "tan", "sinh", "cosh", "asin", "acos", "atan", "asinh", "acosh"),
        *("atanh", "erfc", "erf_inv", "log2", "lgamma", "digamma", "polynomial"),
    }
)
CHEAP_ARITHMETIC = ELEMENTWISE - TRANSCENDENTAL

# What is computed again rather than stored. A division takes longer than reading a row.
DIVISIONS = frozenset({"div", "rem", "nextafter"})
CHEAPER_THAN_A_ROW = (CHEAP_ARITHMETIC - DIVISIONS) | {"broadcast_in_dim"}

INDEXED = frozenset({"gather", "dynamic_slice", "dynamic_update_slice"})
SHAPES_ONLY = frozenset({"broadcast_in_dim", "reshape", "squeeze"})
MOVES_DATA = frozenset(
    {
        *(*SHAPES_ONLY, *INDEXED, "transpose", "tile", "split", "concatenate", "pad"),
        *("slice", "rev", "iota", "stack", "unstack"),
        *("random_wrap", "random_unwrap", "bitcast_convert_type"),
    }
)

# What XLA computes by a few polynomials, on vectors if it can.
POLYNOMIALS = frozenset({"tanh", "logistic", "exp"})

REDUCTIONS = frozenset(
    {
        *("reduce_sum", "reduce_max", "reduce_min", "reduce_and", "reduce_or"),
        *("reduce_prod", "reduce_xor", "argmax", "argmin"),
    }
)

RANDOM = frozenset(
    {"threefry2x32", "random_bits", "random_fold_in", "random_split", "random_seed"}
)


def is_expensive(equation: Any) -> bool:
    """Whether batching the equation over time gains more than its memory costs."""
    return equation.primitive.name not in _CHEAP


_CHEAP = CHEAP_ARITHMETIC | MOVES_DATA | REDUCTIONS


def picks_a_number(equation: Any) -> bool:
    """Whether an equation reads one element of its operand."""
    is_piece = equation.primitive.name in ("slice", "squeeze", "reshape")
    return is_piece and equation.outvars[0].aval.size == 1


def is_cut(equation: Any) -> bool:
    """Whether an equation is a slice that leaves out no element between two it has."""
    return equation.primitive.name == "slice" and equation.params["strides"] is None


def applies(
    equations: Iterable[Any], functions: Collection[str], smallest: int
) -> bool:
    """Whether one of these functions is applied to at least so many elements."""
    return any(
        e.primitive.name in functions and e.outvars[0].aval.size >= smallest
        for e in equations
    )


def is_elementwise(equation: Any) -> bool:
    """Whether each element of the result depends on one element of each operand."""
    return equation.primitive.name in ELEMENTWISE


@dataclass(frozen=True)
class DotSizes:
    """Sizes of a matrix product: batch, rows, contracted, columns."""

    batch: int
    rows: int
    contracted: int
    columns: int

    @property
    def multiplications(self) -> int:
        """Scalar multiplications of one product."""
        return self.batch * self.rows * self.contracted * self.columns

    @property
    def is_elementwise(self) -> bool:
        """Whether it scales rows, as ``einsum("i,ij->ij")`` does, and adds none up."""
        return self.contracted == 1 < self.batch and 1 in (self.rows, self.columns)

    @property
    def is_of_vector(self) -> bool:
        """Whether it has a single row or column."""
        return self.batch == 1 and min(self.rows, self.columns) == 1


def dot_sizes(equation: Any) -> DotSizes:
    """Sizes of a `dot_general` equation."""
    (axes, _), (batch_axes, _) = equation.params["dimension_numbers"]
    left, right = (atom.aval for atom in equation.invars)
    contracted = math.prod(left.shape[axis] for axis in axes)
    batch = math.prod(left.shape[axis] for axis in batch_axes)
    shared = max(1, contracted * batch)
    return DotSizes(batch, left.size // shared, contracted, right.size // shared)
