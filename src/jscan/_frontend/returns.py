"""The grammar of what a step (or a compiled function) may return.

    outputs | updates | (outputs, updates) | (updates, outputs), each also with
    ``until`` last; and the flat ``(a, b, until)``.

A plain tuple or list is a list of outputs; a named tuple, a dict whose keys are not
shared variables, a nested tuple or any other pytree is *one* output. None in a tree is
JAX's empty tree; an output that is None as a whole is an error. ``()`` or ``{}`` beside
outputs is no updates, unless `outputs_info` has such a state there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from jscan._base.errors import (
    ScanError,
    ScanTypeError,
    ScanValueError,
    UpdateCollision,
    unsigned,
)
from jscan._base.kinds import shown
from jscan._base.types import (
    PyTree,
    converts,
    is_nothing,
    is_numeric,
    is_plain_sequence,
)
from jscan._frontend.result import ScanResult
from jscan._frontend.until import until
from jscan._state import frames
from jscan._state.array_likes import ArrayLike
from jscan._state.updates import Updates
from jscan._state.variables import SharedVariable


@dataclass(frozen=True)
class Returned:
    """What one call of the step gave back."""

    outputs: list[PyTree]
    updates: Updates = field(default_factory=Updates)
    stop: Any = None  # the condition of `until`, or None
    container: type | None = None  # list or tuple around the outputs, or None

    def packed(self) -> PyTree:
        """The outputs as they were returned: in a list, in a tuple, bare, or None."""
        if self.container is not None:
            return self.container(self.outputs)
        return self.outputs[0] if self.outputs else None


def parse_return(value: Any, empty_pair: Sequence[PyTree] = ()) -> Returned:
    """Sort a return value into outputs, updates and the stop condition.

    Args:
        value: What the step returned.
        empty_pair: Of two outputs, the initials that hold no arrays, else None.
    """
    if isinstance(value, ScanResult):
        value = (value.outputs if value.outputs is not None else [], value.updates)
    parts, stop = _take_stop(value)
    if stop is not None and len(parts) == 1:
        return _parse_single(parts[0], stop)
    if isinstance(value, dict) or not is_plain_sequence(value):
        return _parse_single(value, stop)
    if _is_pairs(parts):
        return Returned([], _updates(parts), stop)
    states = zip(parts, empty_pair, strict=False)
    if len(parts) == 2 and not any(
        _is_empty(x) and type(x) is type(s) for x, s in states
    ):
        first, second = parts
        if _is_updates(second) and (_is_empty(first) or not _is_updates(first)):
            return _beside(first, _updates(second), stop)
        if _is_updates(first):
            return _beside(second, _updates(first), stop)
    outputs = [_output(part, index) for index, part in enumerate(parts)]
    return Returned(outputs, stop=stop, container=type(value))


def _parse_single(part: Any, stop: Any) -> Returned:
    """The part beside `until`, or a return value that is no container."""
    if _is_updates(part):
        return Returned([], _updates(part), stop)
    if stop is None:
        return Returned([_output(part)])
    return _beside(part, Updates(), stop)


def _take_stop(value: Any) -> tuple[list[Any], Any]:
    """The parts of a container without its closing `until`, and the condition."""
    if isinstance(value, until):
        raise _bad_stop("until alone")
    if not is_plain_sequence(value):
        return [value], None
    parts = list(value)
    stops = [index for index, part in enumerate(parts) if isinstance(part, until)]
    if not stops:
        return parts, None
    if stops != [len(parts) - 1]:
        raise _bad_stop(f"until at position {stops[0]} of {len(parts)}")
    if len(parts) == 1:
        raise _bad_stop("until alone")
    if parts[-1].condition is None:
        raise ScanTypeError(
            "until",
            needed="a scalar condition",
            came="None",
            fix="leave until out of a step that never stops",
        )
    return parts[:-1], parts[-1].condition


def _place() -> str:
    frame = frames.current()
    return f"the {frame.scope.value if frame else 'step'}'s return value"


def _bad_stop(came: str) -> ScanValueError:
    return ScanValueError(
        _place(),
        needed="outputs or updates first and until(condition) last",
        came=came,
        fix="return (outputs, until(condition)); for no outputs ([], until(...))",
    )


# ---------------------------------------------------------------------------- updates


def _is_updates(part: Any) -> bool:
    """A dict with only shared variables as keys, a list of pairs, or an empty one."""
    if isinstance(part, dict):
        return all(isinstance(key, SharedVariable) for key in part)
    return is_plain_sequence(part) and (len(part) == 0 or _is_pairs(part))


def _is_empty(part: Any) -> bool:
    return (isinstance(part, dict) or is_plain_sequence(part)) and len(part) == 0


def _is_pairs(parts: Any) -> bool:
    """A non-empty list of (shared variable, new value) pairs."""
    return (
        is_plain_sequence(parts)
        and len(parts) > 0
        and all(
            is_plain_sequence(pair)
            and len(pair) == 2
            and isinstance(pair[0], SharedVariable)
            for pair in parts
        )
    )


def _updates(part: Any) -> Updates:
    pairs = part.items() if isinstance(part, Mapping) else part
    for variable, value in pairs:
        if value is None:
            raise ScanTypeError(
                f"the update of {variable!r}",
                needed="a new value",
                came="None",
                fix="leave the variable out of the updates to keep its value",
            )
    try:
        return Updates(part)
    except UpdateCollision as error:
        raise unsigned(error) from None  # it is the loop that has two values


# ---------------------------------------------------------------------------- outputs


def _beside(part: Any, updates: Updates, stop: Any) -> Returned:
    """Outputs that stand beside updates or `until`: a list of them, or one."""
    if is_plain_sequence(part):
        outputs = [_output(item, index) for index, item in enumerate(part)]
        return Returned(outputs, updates, stop, type(part) if outputs else None)
    return Returned([_output(part)], updates, stop)


def _output(part: PyTree, index: int = 0) -> PyTree:
    """One output: a tree of arrays (a shared variable stands for its value)."""
    if isinstance(part, dict):
        shared_keys = [key for key in part if isinstance(key, SharedVariable)]
        if shared_keys and len(shared_keys) == len(part):
            raise ScanTypeError(
                _place(),
                needed="updates beside the list of outputs",
                came=f"updates of {shared_keys[0]!r} among several outputs",
                fix="return ([first, second], updates)",
            )
        others = [key for key in part if not isinstance(key, SharedVariable)]
        if shared_keys:
            raise _bad_target(others[0])
    if is_nothing(part):
        raise _bad_output(part, part, index)
    return jax.tree.map(lambda leaf: _leaf(leaf, part, index), part, is_leaf=_is_opaque)


def _is_opaque(value: Any) -> bool:
    return isinstance(value, SharedVariable | Iterator)


def _leaf(leaf: Any, part: PyTree, index: int) -> Any:
    if isinstance(leaf, ArrayLike):
        return leaf.value
    if is_numeric(leaf):
        return leaf
    if converts(leaf):
        return jnp.asarray(leaf)
    raise _bad_output(leaf, part, index)


def _bad_target(target: Any) -> ScanTypeError:
    return ScanTypeError(
        _place(),
        needed="updates whose every target is a SharedVariable",
        came=f"the target {shown(target)}",
        fix="make it one with jscan.shared, or return it as an output",
    )


def _bad_output(value: Any, part: PyTree, index: int) -> ScanError:
    """The error for `value`, which is output `index` or lies in it."""
    fix = "return arrays, lists of arrays, updates or until"
    if value is None:
        fix = "return the new value (did the step forget its return statement?)"
        if index:
            fix = "leave None out: return h, where a step of lax.scan returns (h, None)"
    pairs = part if is_plain_sequence(part) else ()
    if any(_is_pairs([pair]) for pair in pairs) and any(
        is_plain_sequence(pair) and value is pair[0] for pair in pairs if pair
    ):
        return _bad_target(value)
    if isinstance(value, Iterator):
        fix = "return a list of its items"
    if isinstance(value, jax.Ref):
        fix = "return the value it has, as in ref[...]"
    paths = jax.tree_util.tree_leaves_with_path(part, is_leaf=lambda x: x is value)
    path = next((path for path, leaf in paths if leaf is value), ())
    return ScanValueError(
        f"{_place()}, output {index}{jax.tree_util.keystr(path)}",
        needed="arrays, lists or tuples of them, a dict of updates",
        came=shown(value),
        fix=fix,
    )
