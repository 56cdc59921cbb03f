"""State that lives between calls: shared variables."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from itertools import repeat
from operator import attrgetter
from typing import Any, Never, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from jscan._base.errors import ScanTypeError, Subject, signed
from jscan._base.kinds import fix_of_kind, shown
from jscan._base.turns import Claim, Turn, to_update
from jscan._base.types import (
    Leaf,
    PyTree,
    is_array,
    is_nothing,
    is_number,
    type_text,
)
from jscan._base.verbs import verb
from jscan._jax.types import is_traced
from jscan._state import donation, frames
from jscan._state.array_likes import ArrayLike, described, label_of, refuse_to_set

_OF_THEANO = {
    "dtype": "give the value this dtype, as in np.zeros(3, 'float32')",
    "broadcastable": "leave it out: axes of length 1 broadcast as in NumPy",
    "strict": "leave it out: set_value refuses another dtype or rank",
    "allow_downcast": "give the value its dtype, as in np.zeros(3, 'float32')",
    "target": "leave it out; jax.device_put the value",
}


class SharedVariable(ArrayLike):
    """A value with identity: read anywhere, updated by what a step or function returns.

    Make one with `shared`. Arithmetic, comparison, indexing, ``@`` and the methods of
    arrays work on the variable and give arrays; functions of `jax.numpy` need
    ``variable.value``. Between variables ``==`` and `hash` go by identity, so that
    they can be keys of `Updates`.

    Inside a step or a `function`, `value` is the traced value there: before the update
    that the step or function returns. Inside plain `jax.jit` reading a variable is an
    error, because JAX would keep the value of the first call.

    Attributes:
        name: Used in errors and reports; None for none.

    Variables pickle with their name and value. `function` and `set_value` may be called
    from several threads, and be interrupted: all of an update is stored or nothing.

    Example:
        >>> import jscan
        >>> counter = jscan.shared(0, name="counter")
        >>> int(counter.value), int(counter + 1)
        (0, 1)
        >>> counter.set_value(5)
        >>> counter.get_value()
        array(5, dtype=int32)
    """

    _kind = "variable"

    def __init__(
        self, value: PyTree, name: str | None = None, borrow: bool = False
    ) -> None:
        self.name = name
        leaves = jax.tree.leaves(value, is_leaf=lambda x: isinstance(x, SharedVariable))
        others = [leaf for leaf in leaves if not _is_storable(leaf)]
        if is_nothing(value) or others:
            wrong = others[0] if others else value
            raise ScanTypeError(
                "value",
                needed="an array, a number, a random key or a pytree of them",
                came=shown(wrong),
                fix=f"take {label_of(wrong)}.value"
                if isinstance(wrong, ArrayLike)
                else fix_of_kind(wrong),
                owner=subject_of(self),
            )
        donation.check_alive(value, "value", subject_of(self))
        self._stored: PyTree = jax.tree.map(lambda x: strong(x, copy=not borrow), value)
        # A variable made inside a trace belongs to it and ends with it.
        self._home = frames.staging_trace()
        self._birth = frames.current()

    @property
    def value(self) -> PyTree:
        """The current value: stored outside, traced inside a step or a function."""
        value = frames.value_of(self)
        if frames.current() is None and donation.is_gone(value):
            with _turn_to_read(self):  # a call may be about to store the next one
                value = self._stored
            donation.check_alive(value, "its stored value", subject_of(self))
        return value

    @value.setter
    def value(self, new: Never) -> None:
        refuse_to_set(self, new)

    def get_value(self, borrow: bool = False) -> PyTree:
        """The stored value in NumPy arrays.

        Args:
            borrow: True: the arrays may be read-only views of the stored ones.

        Returns:
            A tree of NumPy arrays (random keys stay JAX arrays); by default copies.

        Raises:
            ScanError: Inside a trace, where there is no value yet.
        """
        with _turn_to_read(self):
            value = self.value
            if any(map(is_traced, jax.tree.leaves(value))):
                _refuse_in_trace(self, "get_value")
            return jax.tree.map(lambda leaf: _as_numpy(leaf, copy=not borrow), value)

    def set_value(self, value: PyTree, borrow: bool = False) -> None:
        """Store a new value; calls of compiled functions see it without retracing.

        Args:
            value: A value of the same tree, dtypes and ranks; shapes may change.
            borrow: True: a JAX array is stored itself, not a copy of it.

        Raises:
            ScanTypeError: Another tree, dtype or rank; or a call inside a trace:
                return an update there.
        """
        with Turn(to_update((self,))), signed(subject_of(self)):
            self._stored = to_store(self, value, "set_value", "set_value", not borrow)

    def __getstate__(self) -> dict[str, Any]:
        with _turn_to_read(self):
            value = jax.tree.map(lambda leaf: _as_numpy(leaf, copy=False), self.value)
        return {"name": self.name, "value": value}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.name = state["name"]
        self._stored = jax.tree.map(strong, state["value"])
        self._home = self._birth = None  # where it was made is not kept

    def __repr__(self) -> str:
        text = described(self._stored, seen=frames.current() is None)
        return f"<SharedVariable {self.name or 'unnamed'}: {text}>"


@verb("write jscan.shared(value, name='W')", _OF_THEANO)
def shared(
    value: PyTree, name: str | None = None, borrow: bool = False
) -> SharedVariable:
    """Make a shared variable.

    Args:
        value: An array, a number, a random key or a pytree of them.
        name: Used in errors and reports.
        borrow: True: a JAX array is stored itself; by default a copy is.

    Returns:
        The variable. Python numbers are stored with JAX's default types.

    Raises:
        ScanTypeError: `value` is or holds something else.

    Works in every transform: a step, a `function`, `jscan.grad`; not in plain
    `jax.jit`. Source: Theano 0.9, ``theano.shared``.

    Example:
        >>> import jscan
        >>> jscan.shared(1.0, name="scale")
        <SharedVariable scale: float32[] = 1.0>
    """
    return SharedVariable(value, name, borrow)


_stored = attrgetter("_stored")


def values_of(variables: Iterable[SharedVariable]) -> list[PyTree]:
    """The stored values of variables, all of one moment."""
    return list(map(_stored, variables))


def store(new: Mapping[SharedVariable, PyTree]) -> None:
    """Store the values of several variables, all of them or none.

    It is one call of C code: no other thread and no signal handler gets in between.
    """
    old = values_of(new)  # to free memory may run Python code: not before the end
    deque(map(setattr, new, repeat("_stored"), new.values()), maxlen=0)
    del old


def subject_of(variable: SharedVariable) -> Subject:
    """How errors begin: ``shared variable 'W'``."""
    name = variable.name
    return Subject(f"shared variable {name!r}" if name else "shared")


def to_store(
    variable: SharedVariable, value: PyTree, place: str, method: str, copy: bool = True
) -> PyTree:
    """The new value as it is stored; refuses one of a trace."""
    here = frames.staging_trace()
    if here is not variable._home or frames.current():
        _refuse_in_trace(variable, method)
    leaves = check_value(variable, value, place)
    if here is None and any(map(is_traced, leaves)):
        _refuse_in_trace(variable, method)
    leaves = [strong(leaf, copy) for leaf in leaves]
    return jax.tree.unflatten(jax.tree.structure(variable._stored), leaves)


def _turn_to_read(variable: SharedVariable) -> Turn:
    """Keeps away those who would overwrite the value in place."""
    return Turn(Claim(frozenset((variable,))))


def _refuse_in_trace(variable: SharedVariable, method: str) -> NoReturn:
    """Refuse a method that needs stored values, inside a trace."""
    label = label_of(variable)
    raise ScanTypeError(
        method,
        needed="a call outside of steps, compiled functions and jax.jit",
        came="a call while they are traced",
        fix=f"read {label}.value there, and return {{{label}: new_value}} to update",
        owner=subject_of(variable),
    )


def strong(leaf: Any, copy: bool = True) -> jax.Array:
    """An array of the leaf's own dtype: stored numbers do not stay weakly typed."""
    array = jnp.array(leaf) if copy else jnp.asarray(leaf)
    if jax.typeof(array).weak_type:
        return jax.lax.convert_element_type(array, array.dtype)
    return array


def check_value(
    variable: SharedVariable, value: Any, place: str, *, same_shape: bool = False
) -> list[Leaf]:
    """Leaves of a new value of a variable, in its tree, dtypes and ranks (or shapes).

    Python numbers take the variable's dtype. `place` says in errors where the value
    came from; `same_shape` holds inside loops, whose carry cannot change its shape.
    """
    if isinstance(value, SharedVariable):
        value = value.value
    donation.check_alive(value, place)
    old, tree = jax.tree.flatten(frames.value_of(variable))
    new, new_tree = jax.tree.flatten(value)
    if tree != new_tree:
        raise ScanTypeError(
            place,
            needed=f"a value of the variable's tree, {tree}",
            came=str(new_tree),
            fix="give the whole tree, with every entry",
        )
    return [
        _checked_leaf(*pair, place, same_shape) for pair in zip(old, new, strict=True)
    ]


def _checked_leaf(before: Leaf, after: Any, place: str, same_shape: bool) -> Leaf:
    if _is_storable(after) or isinstance(after, ArrayLike):
        after = jnp.asarray(after)
        if after.dtype != before.dtype and jax.typeof(after).weak_type:
            with jax.numpy_dtype_promotion("standard"):
                after = after.astype(jnp.result_type(after, before))
        if after.ndim != before.ndim or (same_shape and after.shape != before.shape):
            keeps = "of the same shape" if same_shape else "with as many axes"
            fix = f"give a value {keeps}, or make another variable for it"
        elif after.dtype != before.dtype:
            fix = f"convert it with .astype({str(before.dtype)!r})"
        else:
            return strong(after, copy=False)
    else:
        fix = fix_of_kind(after)
    needed, came = type_text(before), type_text(after)
    raise ScanTypeError(place, needed=needed, came=came, fix=fix)


def _is_storable(leaf: Any) -> bool:
    return is_array(leaf) or is_number(leaf)


def _as_numpy(leaf: Leaf, copy: bool) -> Any:
    """A NumPy array, where the leaf has such a form (random keys do not)."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.extended):
        return leaf
    return np.array(leaf) if copy else np.asarray(leaf)
