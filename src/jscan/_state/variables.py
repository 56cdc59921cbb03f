"""State that lives between calls: shared variables."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from itertools import repeat
from operator import attrgetter
from typing import Any, Never, NoReturn

import jax
import numpy as np

from jscan._base.errors import ScanTypeError, Subject, signed
from jscan._base.kinds import fix_of_kind, shown
from jscan._base.turns import Claim, Turn, to_update
from jscan._base.types import PyTree, is_nothing, is_numeric
from jscan._base.verbs import verb
from jscan._jax.types import is_traced
from jscan._state import donation, frames
from jscan._state.array_likes import ArrayLike, described, label_of, refuse_to_set
from jscan._state.new_values import check_value
from jscan._state.placement import (
    Placement,
    check_readable,
    laid_out,
    on_host,
    places_of,
    put_back,
    strong,
)

_OF_THEANO = {
    "dtype": "give the value this dtype, as in np.zeros(3, 'float32')",
    "broadcastable": "leave it out: axes of length 1 broadcast as in NumPy",
    "strict": "leave it out: set_value refuses another dtype or rank",
    "allow_downcast": "give the value its dtype, as in np.zeros(3, 'float32')",
    "target": "write sharding= for it, as in jax.device_put",
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

    Variables pickle with their name and value, and lie after that where they lay, if
    the devices are there. `function` and `set_value` may be called from several
    threads, and be interrupted: all of an update is stored or nothing.

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
        self,
        value: PyTree,
        name: str | None = None,
        borrow: bool = False,
        sharding: Any = None,
    ) -> None:
        self.name = name
        leaves = jax.tree.leaves(value, is_leaf=lambda x: isinstance(x, SharedVariable))
        others = [leaf for leaf in leaves if not is_numeric(leaf)]
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
        with signed(subject_of(self)):
            self._stored: PyTree = laid_out(value, sharding, copy=not borrow)
        # Which leaves lie on a mesh; None where that is to be found out again.
        self._placement: Placement | None = None
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

    @property
    def sharding(self) -> PyTree:
        """Where the stored value lies: the `jax.sharding.Sharding` of each array."""
        return jax.tree.map(lambda leaf: leaf.sharding, self._stored)

    def get_value(self, borrow: bool = False, *, gather: bool = False) -> PyTree:
        """The stored value in NumPy arrays.

        Args:
            borrow: True: the arrays may be read-only views of the stored ones.
            gather: True: a value split over several processes is brought together; all
                of them must make the call.

        Returns:
            A tree of NumPy arrays (random keys stay JAX arrays); by default copies.

        Raises:
            ScanError: Inside a trace, where there is no value yet.
            ScanValueError: A value that is deleted, or of which this process has parts.
        """
        with _turn_to_read(self), signed(subject_of(self)):
            value = self.value
            if any(map(is_traced, jax.tree.leaves(value))):
                _refuse_in_trace(self, "get_value")
            read = lambda leaf: on_host(leaf, not borrow, label_of(self), gather)
            return jax.tree.map(read, value)

    def set_value(
        self, value: PyTree, borrow: bool = False, *, sharding: Any = None
    ) -> None:
        """Store a new value; calls of compiled functions see it without retracing.

        Args:
            value: A value of the same tree, dtypes and ranks; shapes may change.
            borrow: True: a JAX array is stored itself, not a copy of it, if it lies
                where it is to lie.
            sharding: Where it is to lie, as in `shared`; by default where the old
                value was put, or where this one was if nobody had put the old one.

        Raises:
            ScanTypeError: Another tree, dtype or rank; or a call inside a trace:
                return an update there.
            ScanValueError: A value that cannot be split as it should be.
        """
        with Turn(to_update((self,))), signed(subject_of(self)):
            moves = sharding is not None
            if moves:
                value = laid_out(value, sharding, copy=False)
            how = dict(copy=not borrow, moves=moves)
            new = to_store(self, value, "set_value", "set_value", **how)
            self._placement = None  # first, so that an interrupt does no harm
            self._stored = new

    def __getstate__(self) -> dict[str, Any]:
        value = self.get_value(borrow=True)
        return {"name": self.name, "value": value, "places": places_of(self._stored)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.name = state["name"]
        names = subject_of(self), label_of(self)
        places = state.get("places")  # pickles of version 0.1.0 have none
        self._stored = put_back(state["value"], places, *names)
        self._placement = self._home = self._birth = None  # where it was made

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self._whole, dtype)

    @property
    def _whole(self) -> PyTree:
        value = self.value
        with signed(subject_of(self)):
            for leaf in jax.tree.leaves(value):
                if isinstance(leaf, jax.Array) and not is_traced(leaf):
                    check_readable(leaf, label_of(self))
        return value

    def __repr__(self) -> str:
        text = described(self._stored, seen=frames.current() is None)
        return f"<SharedVariable {self.name or 'unnamed'}: {text}>"


@verb("write jscan.shared(value, name='W')", _OF_THEANO)
def shared(
    value: PyTree,
    name: str | None = None,
    borrow: bool = False,
    *,
    sharding: Any = None,
) -> SharedVariable:
    """Make a shared variable.

    Args:
        value: An array, a number, a random key or a pytree of them.
        name: Used in errors and reports.
        borrow: True: a JAX array is stored itself; by default a copy is.
        sharding: Where the value is to lie, as in `jax.device_put`: a
            `jax.sharding.Sharding`, or a tree of them that may stop short of the
            leaves. By default it lies where it lies.

    Returns:
        The variable. Python numbers are stored with JAX's default types. What is
        stored later lies where its value was put; if nobody has put it anywhere, it
        joins the mesh of the first compiled function that updates it on one, whole on
        each device.

    Raises:
        ScanTypeError: `value` is or holds something else.
        ScanValueError: `sharding` does not fit the value.

    Works in every transform: a step, a `function`, `jscan.grad`; not in plain
    `jax.jit`. Source: Theano 0.9, ``theano.shared``.

    Example:
        >>> import jscan
        >>> jscan.shared(1.0, name="scale")
        <SharedVariable scale: float32[] = 1.0>
    """
    return SharedVariable(value, name, borrow, sharding)


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
    variable: SharedVariable,
    value: PyTree,
    place: str,
    method: str,
    copy: bool = True,
    moves: bool = False,
) -> PyTree:
    """The new value as it is stored; refuses one of a trace."""
    here = frames.staging_trace()
    if here is not variable._home or frames.current():
        _refuse_in_trace(variable, method)
    leaves = check_value(variable, value, place, moves=moves)
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
