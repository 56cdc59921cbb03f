"""Operators for objects that stand for an array: shared variables and draws."""

from __future__ import annotations

import contextlib
import math
import operator
import sys
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import jax
import numpy as np

from jscan._base.errors import ScanAttributeError, ScanValueError
from jscan._base.kinds import brief, counted
from jscan._base.types import PyTree, is_array, is_numeric, tree_text

Result = TypeVar("Result")

# JAX's functions that ask for the type of an argument and refuse foreign objects.
_REFUSING = ("shaped_abstractify", "typeof")


def _binary(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], jax.Array]:
    return lambda self, other: function(self.value, unwrapped(other))


def _reflected(
    function: Callable[[Any, Any], Any],
) -> Callable[[Any, Any], jax.Array]:
    return lambda self, other: function(unwrapped(other), self.value)


def _comparison(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def method(self: ArrayLike, other: Any) -> Any:
        if isinstance(other, ArrayLike):
            return function(id(self), id(other))
        return function(self.value, other) if is_numeric(other) else NotImplemented

    return method


def _changed(function: Callable[[Any], Any]) -> Callable[[Any], jax.Array]:
    return _unary(function)  # whose type no checker finds


def _unary(function: Callable[[Any], Result]) -> Callable[[Any], Result]:
    return lambda self: function(self.value)


def label_of(value: Any) -> str:
    """How error texts call a variable or draw in code: its name, or what it is."""
    return vars(value).get("name") or value._kind


def unwrapped(other: Any) -> Any:
    """The array that a variable or draw stands for; else the object itself."""
    return other.value if isinstance(other, ArrayLike) else other


def described(value: PyTree, *, seen: bool) -> str:
    """The type of a stored value, and a single number itself where it can be seen."""
    text = tree_text(value)
    if len(text) > 60:
        text = f"tree of {counted(len(jax.tree.leaves(value)), 'array')}"
    if seen and is_array(value) and not value.ndim:
        with contextlib.suppress(Exception):  # given away, on other machines, traced
            is_key = jax.numpy.issubdtype(value.dtype, jax.dtypes.extended)
            return text if is_key else f"{text} = {np.asarray(value)!s}"
    return text


def refuse_to_set(target: ArrayLike, new: Any) -> NoReturn:
    """A value is given by other means than an assignment."""
    label = label_of(target)
    raise ScanAttributeError(
        f"{label}.value = ...",
        needed="a value that is only read",
        came=brief(new),
        fix=f"call {label}.set_value(...) on a shared variable, or return "
        f"{{{label}: new}} from the step or function; draw a sample anew",
        owner=type(target).__name__,
    )


# What arrays of NumPy and of JAX both have, besides what is defined here.
METHODS = {
    name
    for name in {*dir(jax.Array)} & {*dir(np.ndarray)} | {"at", "tolist"}
    if not name.startswith("_")
}


class ArrayLike:
    """Arithmetic, comparison, indexing, `@` and the methods of arrays, on `value`.

    ``==`` and ``!=`` compare the value with numbers and arrays. Variables and draws
    are keys of dicts: between two of them, ``==`` and `hash` go by identity.
    """

    # NumPy arrays on the left leave the operator to this class.
    __array_ufunc__ = None

    _kind: str  # what it is, in a word

    @property
    def value(self) -> Any:
        """The array this object stands for, where the caller stands."""
        raise NotImplementedError

    @property
    def _whole(self) -> Any:
        """The same, where Python is to see all numbers of it."""
        return self.value

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the value."""
        return self.value.shape

    @property
    def dtype(self) -> Any:
        """Dtype of the value."""
        return self.value.dtype

    @property
    def size(self) -> int:
        """Number of elements of the value."""
        return math.prod(self.shape)

    @property
    def ndim(self) -> int:
        """Rank of the value."""
        return len(self.shape)

    @property
    def __jax_array__(self) -> Callable[[], Any]:
        """For the parts of JAX that convert foreign objects.

        Most of `jax.numpy`, and `jax.jit`, refuse them, with a text that does not say
        what to do here. Those ask for this attribute first, so it can be said.
        """
        if sys._getframe(1).f_code.co_name in _REFUSING:
            label = label_of(self)
            raise ScanValueError(
                f"{self!r} was handed to a JAX function, which takes arrays only."
                f"\nFix: pass {label}.value, as in jnp.tanh({label}.value)."
            )
        return lambda: self.value

    def __getattr__(self, name: str) -> Any:
        if name in METHODS:
            reads = name in ("item", "tolist")
            return getattr(self._whole if reads else self.value, name)
        if name.startswith("_"):
            raise AttributeError(name)
        raise ScanAttributeError(
            f"the attribute {name!r}",
            needed="one of the object, or a method of arrays",
            came="neither",
            fix=f"read {label_of(self)}.get_value(), or {label_of(self)}.value"
            if name in ("eval", "numpy", "detach")
            else f"what its value has is on .value: {label_of(self)}.value.{name}",
            owner=type(self).__name__,
        )

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.value, dtype)

    def __iter__(self) -> Any:
        return iter(self._whole)

    __eq__, __ne__ = _comparison(operator.eq), _comparison(operator.ne)
    __hash__ = object.__hash__
    __getitem__ = _binary(operator.getitem)
    __len__, __bool__ = _unary(len), _unary(bool)
    __int__, __float__, __index__ = _unary(int), _unary(float), _unary(operator.index)
    __add__, __radd__ = _binary(operator.add), _reflected(operator.add)
    __sub__, __rsub__ = _binary(operator.sub), _reflected(operator.sub)
    __mul__, __rmul__ = _binary(operator.mul), _reflected(operator.mul)
    __pow__, __rpow__ = _binary(operator.pow), _reflected(operator.pow)
    __mod__, __rmod__ = _binary(operator.mod), _reflected(operator.mod)
    __and__, __rand__ = _binary(operator.and_), _reflected(operator.and_)
    __or__, __ror__ = _binary(operator.or_), _reflected(operator.or_)
    __xor__, __rxor__ = _binary(operator.xor), _reflected(operator.xor)
    __matmul__ = _binary(operator.matmul)
    __rmatmul__ = _reflected(operator.matmul)
    __truediv__ = _binary(operator.truediv)
    __rtruediv__ = _reflected(operator.truediv)
    __floordiv__ = _binary(operator.floordiv)
    __rfloordiv__ = _reflected(operator.floordiv)
    __lt__, __le__ = _binary(operator.lt), _binary(operator.le)
    __gt__, __ge__ = _binary(operator.gt), _binary(operator.ge)
    __neg__, __pos__ = _changed(operator.neg), _changed(operator.pos)
    __abs__, __invert__ = _changed(operator.abs), _changed(operator.invert)
