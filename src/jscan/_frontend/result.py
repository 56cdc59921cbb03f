"""Stage 5: what `scan` returns."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from jscan._base.errors import ScanAttributeError, ScanTypeError
from jscan._base.kinds import brief
from jscan._base.types import Leaf, PyTree, is_array, is_number, tree_text, type_text
from jscan._jax.types import is_traced
from jscan._state.updates import Updates

if TYPE_CHECKING:
    # A class that is no tuple cannot say that its two items have two types.
    class _Pair(tuple[PyTree, Updates]):
        def __new__(cls, *args: Any, **how: Any) -> Self: ...
else:
    _Pair = object


class ScanResult(_Pair):
    """The pair ``(outputs, updates)`` that `scan` returns, with the steps executed.

    Attributes:
        outputs: None, one tree of arrays ``[T, ...]``, or a list of them.
        updates: `Updates` from shared variables to their values after the loop.
        n_steps: Steps executed: an ``int`` when known, else a traced int32.

    Example:
        >>> import jax.numpy as jnp, jscan
        >>> result = jscan.scan(lambda x, s: s + x, jnp.arange(4.), 0.)
        >>> outputs, updates = result
        >>> outputs.tolist(), len(updates), result.n_steps
        ([0.0, 1.0, 3.0, 6.0], 0, 4)
    """

    _stacked = True  # False: the outputs have no time axis

    def __init__(
        self,
        outputs: PyTree,
        updates: Updates,
        n_steps: Any,
        rows: int,
        *,
        stacked: bool = True,
    ) -> None:
        self.outputs = outputs
        self.updates = updates
        self.n_steps = n_steps
        self._rows = rows
        self._stacked = stacked

    @property
    def mask(self) -> jax.Array:
        """``[T]`` booleans: true for the rows of executed steps.

        Of a result that `jax.vmap` returned: ``[lanes, T]``.
        """
        if self._has_executed_rows_only:
            return jnp.ones(self._rows, bool)
        count = jnp.asarray(self.n_steps)[..., None]
        rows = jnp.arange(self._rows, dtype=count.dtype)
        return rows[(None,) * (count.ndim - 1)] < count

    def filled(self, value: Any = 0) -> PyTree:
        """The outputs with `value` in place of the rows behind the executed ones.

        A traced loop that stopped repeats its last row, an eager one has no such rows:
        sums over rows that are filled with 0 are the same in both.

        Args:
            value: A number, such as 0 or ``jnp.nan``, or a tree of them like `outputs`.

        Returns:
            The outputs; of `reduce`, and where exactly the executed rows came, as they
            are.

        Raises:
            ScanTypeError: An output whose dtype does not hold the value.

        Works in every transform, for outputs of any rank.

        Example:
            >>> import jax, jax.numpy as jnp, jscan
            >>> def double(h):
            ...     return 2 * h, jscan.until(h > 2)
            >>> run = jax.jit(lambda h: jscan.scan(double, outputs_info=h, n_steps=5))
            >>> run(1.0).outputs.tolist()
            [2.0, 4.0, 8.0, 8.0, 8.0]
            >>> run(1.0).filled(0).tolist()
            [2.0, 4.0, 8.0, 0.0, 0.0]
        """
        if self._has_executed_rows_only or not self._stacked:
            return self.outputs
        values = value
        if is_number(value) or is_array(value):
            values = jax.tree.map(lambda _: value, self.outputs)
        fill = functools.partial(_fill, self.mask)
        return jax.tree.map(fill, self.outputs, values)

    @property
    def _has_executed_rows_only(self) -> bool:
        return isinstance(self.n_steps, int) and self.n_steps == self._rows

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if name.startswith("_"):
                raise AttributeError(name)
            raise ScanAttributeError(
                f"the attribute {name!r}",
                needed="outputs, updates, n_steps, mask or filled",
                came="none of them",
                fix=f"what an array has is on its outputs: result.outputs.{name}",
                owner="ScanResult",
            )

        def __array__(self, *_: Any, **__: Any) -> Any:
            raise ScanTypeError(
                "the result of a loop",
                needed="an array",
                came="the pair (outputs, updates)",
                fix="take result.outputs, or unpack it: outputs, updates = scan(...)",
                owner="ScanResult",
            )

        __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __array__
        __truediv__ = __rtruediv__ = __pow__ = __matmul__ = __rmatmul__ = __array__
        __neg__ = __lt__ = __gt__ = __le__ = __ge__ = __array__

        def __iter__(self):
            return iter((self.outputs, self.updates))

        def __getitem__(self, index):
            return (self.outputs, self.updates)[index]

        def __len__(self):
            return 2

    def __repr__(self) -> str:
        steps = self.n_steps
        steps = steps if isinstance(steps, int) else tree_text(steps)
        outputs, updates = tree_text(self.outputs), tree_text(self.updates)
        return f"ScanResult(outputs={outputs}, updates={updates}, n_steps={steps})"


jax.tree_util.register_pytree_node(
    ScanResult,
    lambda it: ((it.outputs, it.updates, it.n_steps), (it._rows, it._stacked)),
    lambda form, parts: ScanResult(*parts, rows=form[0], stacked=form[1]),
)


def _fill(mask: Leaf, rows: Leaf, value: Any) -> Leaf:
    """`rows`, with `value` where the mask of their leading axes is false."""
    if not is_traced(value) and not _holds(rows.dtype, np.asarray(value)):
        raise ScanTypeError(
            "filled",
            owner="ScanResult",
            needed=f"a value that {type_text(rows)} can hold",
            came=brief(value),
            fix=f"pass one of dtype {rows.dtype}; for several outputs a tree of them",
        )
    mask = jax.lax.broadcast_in_dim(mask, rows.shape, tuple(range(mask.ndim)))
    return jnp.where(mask, rows, jnp.asarray(value).astype(rows.dtype))


def _holds(dtype: Any, value: np.ndarray) -> bool:
    """Whether rows of that dtype can hold a value that is known."""
    if jnp.issubdtype(dtype, jax.dtypes.extended):
        return False
    if jnp.issubdtype(dtype, jnp.inexact):
        return jnp.issubdtype(dtype, jnp.complexfloating) or value.dtype.kind != "c"
    with np.errstate(invalid="ignore"):
        return value.dtype.kind != "c" and bool((value.astype(dtype) == value).all())
