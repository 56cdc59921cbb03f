"""Stage 1: the arguments of `scan`, normalised and checked, become a `ScanSpec`."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from jscan._base.errors import ScanTypeError, ScanValueError, explain_error
from jscan._base.kinds import fix_of_kind
from jscan._base.types import (
    Leaf,
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
    name = options.name
    if not callable(fn):
        raise ScanTypeError(
            explain_error(
                name,
                "fn",
                needed="a callable step function",
                came=type(fn).__name__,
                fix="pass the function itself, as in scan(step, ...)",
            )
        )
    sequence_specs = tuple(
        _sequence(item, f"sequences[{index}]", name)
        for index, item in enumerate(_sequence_items(sequences))
    )
    entries = _items(outputs_info)
    outputs = tuple(
        _output(entry, f"outputs_info[{index}]", name)
        for index, entry in enumerate(entries)
    )
    constants = tuple(
        NonSequenceSpec(place, item, as_tree(item, place, name, is_constant=True))
        for place, item in (
            (f"non_sequences[{index}]", item)
            for index, item in enumerate(_items(non_sequences))
        )
    )
    bound, limit = count_steps(n_steps, max_steps, sequence_specs, name)
    return ScanSpec(
        fn=fn,
        sequences=sequence_specs,
        outputs=outputs or None,
        non_sequences=constants,
        n_steps=bound,
        options=options,
        limit=limit,
    )


def _items(argument: Any) -> list[Any]:
    """The items of a container argument; a bare item is a list of one."""
    if argument is None:
        return []
    if is_plain_sequence(argument):
        return list(cast("Iterable[Any]", argument))
    return [argument]


def _sequence_items(argument: Any) -> list[Any]:
    """As `_items`; a flat list of numbers can only be one sequence."""
    flat = is_number_list(argument) and all(map(is_number, argument))
    return [argument] if flat else _items(argument)


# ------------------------------------------------------------------------ array trees


def as_tree(
    value: Any, place: str, name: str | None, *, is_constant: bool = False
) -> PyTree:
    """The user's value as a tree of JAX arrays.

    Shared variables give their value; but a constant may be one, or a Ref, as it is.
    """
    if isinstance(value, SharedVariable):
        return value if is_constant else value.value
    if is_number_list(value):
        return _from_numbers(value, place, name)
    leaves, treedef = jax.tree.flatten(value, is_leaf=_is_whole)
    if is_nothing(value):
        raise ScanTypeError(_not_numeric(place, name, value))
    arrays = [
        leaf
        if is_constant and isinstance(leaf, SharedVariable | jax.Ref)
        else _as_array(leaf, place, name)
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


def _as_array(leaf: Any, place: str, name: str | None) -> Any:
    if isinstance(leaf, SharedVariable):
        return leaf.value
    if is_number_list(leaf):
        return _from_numbers(leaf, place, name)
    if is_array(leaf) or is_number(leaf) or converts(leaf):
        donation.check_alive(leaf, name, place)
        return leaf if isinstance(leaf, jax.Array) else jnp.asarray(leaf)
    raise ScanTypeError(_not_numeric(place, name, leaf))


def _from_numbers(value: Any, place: str, name: str | None) -> Leaf:
    try:
        return jnp.asarray(np.asarray(list(value)))
    except ValueError as error:
        raise ScanValueError(
            explain_error(
                name,
                place,
                needed="a list of numbers with rows of equal length",
                came="rows of different lengths",
                fix="pad the rows, or pass the parts as separate arrays",
            )
        ) from error


def _not_numeric(place: str, name: str | None, value: Any) -> str:
    return explain_error(
        name,
        place,
        needed="an array, a number or a pytree of them",
        came=f"{value!r:.60} of type {type(value).__name__}",
        fix=fix_of_kind(value),
    )


def _check_keys(
    entry: Mapping[Any, Any], known: tuple[str, ...], place: str, name: str | None
) -> None:
    unknown = [key for key in entry if key not in known]
    if not unknown:
        return
    fix = f"spell it {' or '.join(map(repr, known))}; a tree that is itself a dict is "
    fix += f"given as dict({known[0]}={{...}})"
    if "return_steps" in unknown:
        fix = "drop it and slice the result of scan instead"
    raise ScanValueError(
        explain_error(
            name,
            place,
            needed=f"a dict with the keys {' and '.join(map(repr, known))}",
            came=f"the key {', '.join(map(repr, unknown))}",
            fix=fix,
        )
    )


def _taps(
    taps: Any, default: tuple[int, ...], place: str, name: str | None
) -> tuple[int, ...]:
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
    except TypeError as error:
        raise ScanTypeError(
            explain_error(
                name,
                f"{place}: taps",
                needed="an integer, or integers in an order: a list, a range, an array",
                came=f"{taps!r:.60}",
                fix=f"write whole numbers, as in taps={list(default)}",
            )
        ) from error
    if not found:
        raise ScanValueError(
            explain_error(
                name,
                f"{place}: taps",
                needed="at least one tap",
                came="none",
                fix=f"leave taps out for the usual {list(default)}",
            )
        )
    return found


# ------------------------------------------------------------------------- sequences


def _sequence(item: Any, place: str, name: str | None) -> SequenceSpec:
    source, taps = item, None
    if type(item) is dict:
        entry = cast("dict[str, Any]", item)
        _check_keys(entry, ("input", "taps"), place, name)
        if "input" not in entry:
            raise ScanValueError(
                explain_error(
                    name,
                    place,
                    needed="a dict with the key 'input'",
                    came=f"the keys {sorted(entry)}",
                    fix="write dict(input=array, taps=[...])",
                )
            )
        source, taps = entry["input"], entry.get("taps")
    value = as_tree(source, place, name)
    if not jax.tree.leaves(value):
        raise ScanTypeError(
            explain_error(
                name,
                place,
                needed="at least one array, whose rows the steps see",
                came=f"{value!r:.60}, which holds none",
                fix="leave it out, or pass it in non_sequences",
            )
        )
    fix = "put a constant in non_sequences"
    _check_rows(value, place, name, "sequence", fix)
    return SequenceSpec(place, source, value, _taps(taps, (0,), place, name))


def _check_rows(
    value: PyTree, place: str, name: str | None, what: str, fix: str
) -> None:
    """Every array of the tree has a leading time axis, and all have the same one.

    Args:
        value: The tree.
        place: Where it came from, for errors.
        name: The loop's name, for errors.
        what: What it has to be, for errors.
        fix: What to do with a scalar, for errors.
    """
    leaves = jax.tree.leaves(value)
    for leaf in leaves:
        if leaf.ndim == 0:
            raise ScanValueError(
                explain_error(
                    name,
                    place,
                    needed=f"a {what} with a leading time axis",
                    came=f"a scalar, {type_text(leaf)}",
                    fix=f"pass an array of at least one dimension, or {fix}",
                )
            )
    if len({leaf.shape[0] for leaf in leaves}) > 1:
        raise ScanValueError(
            explain_error(
                name,
                place,
                needed="one leading length for all arrays of the tree",
                came=", ".join(type_text(leaf) for leaf in leaves),
                fix="cut the arrays to one length, or pass them as separate sequences",
            )
        )


# ------------------------------------------------------------------------- outputs_info


def _output(entry: Any, place: str, name: str | None) -> OutputSpec:
    if entry is None:
        return OutputSpec(place)
    source, taps = entry, None
    if type(entry) is dict:
        info = cast("dict[str, Any]", entry)
        _check_keys(info, ("initial", "taps"), place, name)
        source, taps = info.get("initial"), info.get("taps")
        if source is None and taps is not None:
            raise ScanValueError(
                explain_error(
                    name,
                    place,
                    needed="an initial value for the taps",
                    came=f"taps={taps!r} without 'initial'",
                    fix="add initial=array, or write None for a map output",
                )
            )
        if source is None:
            return OutputSpec(place)
    lags = _taps(taps, (-1,), place, name)
    _check_lags(lags, place, name)
    initial = as_tree(source, place, name)
    spec = OutputSpec(place, source, initial, lags, has_rows=lags != (-1,))
    if spec.has_rows:
        _check_initial_rows(spec, name)
    return spec


def _check_lags(taps: tuple[int, ...], place: str, name: str | None) -> None:
    if any(tap >= 0 for tap in taps):
        raise ScanValueError(
            explain_error(
                name,
                f"{place}: taps",
                needed="taps smaller than 0 (only past outputs exist)",
                came=str(list(taps)),
                fix="use negative taps; a future value can only come from a sequence",
            )
        )
    if len(set(taps)) < len(taps):
        raise ScanValueError(
            explain_error(
                name,
                f"{place}: taps",
                needed="taps that are all different",
                came=str(list(taps)),
                fix="name each tap once and use the argument twice in the step",
            )
        )


def _check_initial_rows(spec: OutputSpec, name: str | None) -> None:
    needed = f"initial of at least {spec.span} rows for taps={list(spec.taps)},"
    fix = f"stack the {spec.span} values before the first step, oldest first"
    _check_rows(spec.initial, spec.place, name, f"multi-tap {needed}", fix)
    rows = min((x.shape[0] for x in jax.tree.leaves(spec.initial)), default=spec.span)
    if rows < spec.span:
        raise ScanValueError(
            explain_error(
                name,
                f"{spec.place}: initial",
                needed=f"at least {spec.span} rows for taps={list(spec.taps)}",
                came=f"{rows} rows",
                fix=f"give the {spec.span} values before the first step, oldest first",
            )
        )
