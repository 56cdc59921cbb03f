"""Stage 1: the arguments of `scan`, normalised and checked, become a `ScanSpec`."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from jscan._base.errors import ScanTypeError, ScanValueError
from jscan._base.kinds import brief, counted, fix_of_kind, from_table, shown
from jscan._base.types import (
    PyTree,
    converts,
    is_array,
    is_nothing,
    is_number,
    is_number_list,
    is_plain_sequence,
    type_text,
)
from jscan._frontend.spec import (
    NonSequenceSpec,
    Options,
    OutputSpec,
    ScanSpec,
    SequenceSpec,
)
from jscan._frontend.step_count import count_steps
from jscan._jax.types import split_in_time
from jscan._state import donation
from jscan._state.variables import SharedVariable


def normalise(
    fn: Callable[..., Any],
    sequences: Any,
    outputs_info: Any,
    non_sequences: Any,
    n_steps: Any,
    options: Options,
    max_steps: Any = None,
) -> ScanSpec:
    """Check every argument and return the call's meaning."""
    if not callable(fn):
        raise ScanTypeError(
            "fn",
            needed="a callable step function",
            came=type(fn).__name__,
            fix="pass the function itself, as in scan(step, ...)",
        )
    if is_number_list(sequences) and all(map(is_number, sequences)):
        sequences = [sequences]  # a flat list of numbers can only be one sequence
    checked = tuple(_sequence(*item) for item in _placed(sequences, "sequences"))
    outputs = tuple(_output(*item) for item in _placed(outputs_info, "outputs_info"))
    constants = tuple(
        NonSequenceSpec(place, item, as_tree(item, place, is_constant=True))
        for item, place in _placed(non_sequences, "non_sequences")
    )
    n_steps, limit, bound = count_steps(n_steps, max_steps, checked, options.name)
    return ScanSpec(
        fn, checked, outputs or None, constants, n_steps, bound, options, limit
    )


def _placed(argument: Any, name: str) -> list[tuple[Any, str]]:
    """The items of a container argument, each with its place; a bare item is one."""
    if argument is None:
        return []
    items = list(argument) if is_plain_sequence(argument) else [argument]
    return [(item, f"{name}[{index}]") for index, item in enumerate(items)]


# ------------------------------------------------------------------------ array trees


def as_tree(value: Any, place: str, *, is_constant: bool = False) -> PyTree:
    """The user's value as a tree of JAX arrays.

    Shared variables give their value; but a constant may be one, or a Ref, as it is.
    """
    if is_nothing(value):
        raise _not_numeric(place, value)
    leaves, treedef = jax.tree.flatten(value, is_leaf=_is_whole)
    arrays = [
        leaf
        if is_constant and isinstance(leaf, SharedVariable | jax.Ref)
        else _as_array(leaf, place)
        for leaf in leaves
    ]
    return jax.tree.unflatten(
        jax.tree.structure(jax.tree.unflatten(treedef, arrays)), jax.tree.leaves(arrays)
    )


def _is_whole(value: Any) -> bool:
    return (
        isinstance(value, SharedVariable)
        or is_number_list(value)
        or isinstance(value, Iterator)  # JAX would take it for a leaf, and warn
    )


def _as_array(leaf: Any, place: str) -> Any:
    if isinstance(leaf, SharedVariable):
        return leaf.value
    if is_number_list(leaf):
        try:
            return jnp.asarray(np.asarray(list(leaf)))
        except ValueError:
            raise ScanValueError(
                place,
                needed="a list of numbers with rows of equal length",
                came="rows of different lengths",
                fix="pad the rows, or pass the parts as separate arrays",
            ) from None
    if is_array(leaf) or is_number(leaf) or converts(leaf):
        donation.check_alive(leaf, place)
        return leaf if isinstance(leaf, jax.Array) else jnp.asarray(leaf)
    found = from_table(leaf)
    if found is None:
        raise _not_numeric(place, leaf)
    return found


def _not_numeric(place: str, value: Any) -> ScanTypeError:
    return ScanTypeError(
        place,
        needed="an array, a number or a pytree of them",
        came=shown(value),
        fix=fix_of_kind(value),
    )


def _check_keys(entry: Mapping[Any, Any], known: Sequence[str], place: str) -> None:
    unknown = [key for key in entry if key not in known]
    if not unknown:
        return
    fix = f"spell it {' or '.join(map(repr, known))}; a tree that is itself a dict is "
    fix += f"given as dict({known[0]}={{...}})"
    if "return_steps" in unknown:
        fix = "drop it and slice the result of scan instead"
    raise ScanValueError(
        place,
        needed=f"a dict with the keys {' and '.join(map(repr, known))}",
        came=f"the key {', '.join(map(repr, unknown))}",
        fix=fix,
    )


def _taps(taps: Any, default: tuple[int, ...], place: str) -> tuple[int, ...]:
    """Taps as a tuple of ints, in written order."""
    if taps is None:
        return default
    try:
        if isinstance(taps, set | frozenset):  # the step's arguments have an order
            raise TypeError
        many = isinstance(taps, Iterable) and getattr(taps, "ndim", 1) != 0
        values: list[Any] = list(taps) if many else [taps]
        if any(isinstance(value, bool) for value in values):
            raise TypeError
        found = tuple(operator.index(value) for value in values)
    except TypeError:
        raise ScanTypeError(
            f"{place}: taps",
            needed="an integer, or integers in an order: a list, a range, an array",
            came=brief(taps),
            fix=f"write whole numbers in a list, as in taps={list(default)}, in the "
            "order of the step's arguments",
        ) from None
    if not found:
        raise ScanValueError(
            f"{place}: taps",
            needed="at least one tap",
            came="none",
            fix=f"leave taps out for the usual {list(default)}",
        )
    return found


# ------------------------------------------------------------------------- sequences


def _sequence(item: Any, place: str) -> SequenceSpec:
    source, taps = item, None
    if type(item) is dict:
        entry = cast("dict[str, Any]", item)
        _check_keys(entry, ("input", "taps"), place)
        if "input" not in entry:
            raise ScanValueError(
                place,
                needed="a dict with the key 'input'",
                came=f"the keys {sorted(entry)}",
                fix="write dict(input=array, taps=[...])",
            )
        source, taps = entry["input"], entry.get("taps")
    value = as_tree(source, place)
    if not jax.tree.leaves(value):
        raise ScanTypeError(
            place,
            needed="at least one array, whose rows the steps see",
            came=f"{brief(value)}, which holds none",
            fix="leave it out, or pass it in non_sequences",
        )
    elsewhere = "put a constant in non_sequences, an initial state in outputs_info: "
    elsewhere += "scan(step, sequences, outputs_info, non_sequences)"
    _check_rows(value, place, "sequence", elsewhere)
    for leaf in filter(split_in_time, jax.tree.leaves(value)):
        raise ScanValueError(
            place,
            needed="rows that each device has whole, on axes of the type Explicit",
            came=f"{type_text(leaf)}, split as {jax.typeof(leaf).sharding.spec}",
            fix="gather it by jax.reshard; or use axes of the type Auto, as in "
            "jax.sharding.auto_axes(f, out_sharding=...), where "
            'passes="default+associate" runs linear loops in parallel over time',
        )
    return SequenceSpec(place, source, value, _taps(taps, (0,), place))


def _check_rows(value: PyTree, place: str, what: str, instead: str) -> None:
    """Every array of the tree has a leading time axis, and all have the same one."""
    leaves = jax.tree.leaves(value)
    for leaf in leaves:
        if leaf.ndim == 0:
            raise ScanValueError(
                place,
                needed=f"a {what} with a leading time axis",
                came=f"a scalar, {type_text(leaf)}",
                fix=f"pass an array of at least one dimension, or {instead}",
            )
    if len({leaf.shape[0] for leaf in leaves}) > 1:
        raise ScanValueError(
            place,
            needed="one leading length for all arrays of the tree",
            came=", ".join(type_text(leaf) for leaf in leaves),
            fix="cut the arrays to one length, or pass them as separate sequences",
        )


# ------------------------------------------------------------------------- outputs_info


def _output(entry: Any, place: str) -> OutputSpec:
    if entry is None:
        return OutputSpec(place)
    source, taps = entry, None
    if type(entry) is dict:
        info = cast("dict[str, Any]", entry)
        _check_keys(info, ("initial", "taps"), place)
        source, taps = info.get("initial"), info.get("taps")
        if source is None and taps is not None:
            raise ScanValueError(
                place,
                needed="an initial value for the taps",
                came=f"taps={taps!r} without 'initial'",
                fix="add initial=array, or write None for a map output",
            )
        if source is None:
            return OutputSpec(place)
    lags = _lags(taps, place)
    initial = as_tree(source, place)
    spec = OutputSpec(place, source, initial, lags, has_rows=lags != (-1,))
    if spec.has_rows:
        _check_initial_rows(spec)
    return spec


def _lags(given: Any, place: str) -> tuple[int, ...]:
    """The taps of a state: different, and all in the past."""
    taps = _taps(given, (-1,), place)
    if any(tap >= 0 for tap in taps):
        raise ScanValueError(
            f"{place}: taps",
            needed="taps smaller than 0 (only past outputs exist)",
            came=str(list(taps)),
            fix="use negative taps; a future value can only come from a sequence",
        )
    if len(set(taps)) < len(taps):
        raise ScanValueError(
            f"{place}: taps",
            needed="taps that are all different",
            came=str(list(taps)),
            fix="name each tap once and use the argument twice in the step",
        )
    return taps


def _check_initial_rows(spec: OutputSpec) -> None:
    needed = f"at least {spec.span} rows for taps={list(spec.taps)}"
    fix = f"stack the {spec.span} values before the first step, oldest first"
    _check_rows(spec.initial, spec.place, f"multi-tap initial of {needed},", fix)
    rows = min((x.shape[0] for x in jax.tree.leaves(spec.initial)), default=spec.span)
    if rows < spec.span:
        place, came = f"{spec.place}: initial", counted(rows, "row")
        raise ScanValueError(place, needed=needed, came=came, fix=fix)
