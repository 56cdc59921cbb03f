"""The trace of a Python function of arguments and shared variables.

Every shared variable that is read is an input of the program, and every array that is
captured; every variable that is updated is an output. A trace that meets more of them
raises `Missing`, and is done again. What it learns beside its arrays travels with them,
in the structure of the result.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding

from jscan._base.errors import ScanTypeError, ScanValueError, signed
from jscan._base.types import Leaf, PyTree
from jscan._frontend.returns import Returned, parse_return
from jscan._functions.call_arguments import Caller
from jscan._functions.inputs import Inputs, Missing, Notes, Result, Settings
from jscan._jax.jaxprs import open_jaxpr
from jscan._jax.naming import name_after
from jscan._jax.types import is_traced
from jscan._programs.program import Program
from jscan._programs.regions import evaluate_rewritten
from jscan._state import frames
from jscan._state.array_likes import label_of
from jscan._state.new_values import check_value
from jscan._state.placement import unfit
from jscan._state.streams import Stream
from jscan._state.variables import SharedVariable


def trace(
    inputs: Inputs,
    places: Sequence[Sharding | None] | None,
    updated: list[PyTree],
    others: list[PyTree],
    captured: Sequence[Leaf],
    arguments: list[Leaf],
) -> Result:
    """What `jax.jit` traces: the user's function, with its loops rewritten.

    `places` are those of the updated values, leaf by leaf; None if they are not stored.
    """
    notes, bound = Notes(), [*updated, *others]
    if places is not None:
        everything = jax.tree.leaves((bound, captured, arguments))
        _raise_unplaced(inputs, updated, places, everything)
    closed = _recorded(inputs, notes, bound, arguments)
    notes.program, constants = Program.close(closed)
    notes.has_callbacks = _has_callbacks(notes.program.jaxpr)
    known = {_identity(x): place for place, x in enumerate(inputs.captured)}
    notes.constants = tuple(map(known.get, map(_identity, closed.consts)))
    pairs = zip(notes.constants, constants, strict=True)
    constants = [x if place is None else captured[place] for place, x in pairs]
    operands = [*constants, *jax.tree.leaves(bound), *arguments]
    results = evaluate_rewritten(notes.program, operands, inputs.settings.options)
    results, count = _apart(results, operands), notes.output_tree.num_leaves
    outputs, fresh = results[:count], results[count:]
    if places is not None:
        _check_places(inputs, notes, places, fresh)
    return {notes: ()}, outputs, fresh


def _recorded(
    inputs: Inputs, notes: Notes, bound: list[PyTree], arguments: list[Leaf]
) -> Any:
    """The program of the user's function; asks for more where it has used no input."""
    seen: dict[SharedVariable, PyTree] = {}
    count = len(inputs.reads)

    def flat(*args: Any, **kwargs: Any) -> Any:
        bound, leaves = args[:count], jax.tree.leaves((args[count:], kwargs))
        values = dict(zip(inputs.reads, bound, strict=True))
        frame = frames.Frame(values, frames.Scope.FUNCTION)
        pairs = zip(inputs.arguments, leaves, strict=True)
        integers = {i: leaf for i, (known, leaf) in enumerate(pairs) if known.is_int}
        frame.integers = frames.Integers(inputs, integers)
        with frame:
            packed, new = evaluate(inputs.call, leaves, frame, inputs.settings)
        seen.update(frame.reads)
        notes.output_tree = jax.tree.structure(packed)
        counts = frame.draws.items()
        notes.draws = {s: n for s, n in counts if s in new and isinstance(n, int)}
        # All that may be updated come back, in one order: donation takes the old ones.
        old = {v: values[v] for v in inputs.updated}
        return packed, notes.leaves_of(old | new)

    name_after(flat, inputs.call.fn, [label_of(variable) for variable in inputs.reads])
    given, named = inputs.call.named(arguments)
    try:
        closed = jax.make_jaxpr(flat)(*bound, *given, **named)
    except frames.Lost as lost:
        raise Missing(inputs, lost.reads) from None
    _raise_missing(inputs, notes, seen, closed.consts)
    seen.clear()  # JAX may keep `flat`
    return closed


def _raise_missing(
    inputs: Inputs, notes: Notes, seen: Mapping[SharedVariable, PyTree], constants: Any
) -> None:
    """Ask for what a trace has used that is no input, if there is any."""
    updated = tuple(notes.trees)
    missing = {*updated, *seen}.difference(inputs.reads)
    values = {id(leaf) for v in missing for leaf in jax.tree.leaves(seen.get(v))}
    arrays = [x for x in constants if not is_traced(x) and id(x) not in values]
    is_first = bool(arrays) and not inputs.searched
    if missing or is_first or not set(inputs.updated).issuperset(updated):
        raise Missing(inputs, (*seen, *updated), updated, tuple(arrays))
    known, asked = inputs.output_tree, inputs.settings.out_shardings is not None
    if asked and (known is None or notes.output_tree != known):
        raise Missing(inputs, (), output_tree=notes.output_tree)


def _raise_unplaced(
    inputs: Inputs,
    updated: list[PyTree],
    places: Sequence[Sharding | None],
    everything: list[Leaf],
) -> None:
    """Ask for variables to join the mesh of the program, where they lie nowhere.

    JAX would put their new values somewhere on it, and compile again for those.
    """
    asked = (inputs.settings.in_shardings, inputs.settings.out_shardings)
    on_mesh = not jax.sharding.get_abstract_mesh().empty or asked != (None, None)
    if not on_mesh and all(jax.typeof(x).sharding.mesh.empty for x in everything):
        return
    left, free = iter(places), []
    for variable, value in zip(inputs.updated, updated, strict=True):
        wanted = [next(left) is None for _ in jax.tree.leaves(value)]
        if any(wanted) and variable not in inputs.joined:
            free.append(variable)
    if free:
        raise Missing(inputs, (), joined=tuple(free))


def _check_places(
    inputs: Inputs,
    notes: Notes,
    places: Sequence[Sharding | None],
    fresh: Sequence[Leaf],
) -> None:
    """Refuse new values that cannot be split as the old ones are."""
    left = iter(zip(places, fresh, strict=True))
    for variable, tree in notes.trees.items():
        for where, leaf in itertools.islice(left, tree.num_leaves):
            try:
                _ = where is None or where.shard_shape(leaf.shape)
            except ValueError as error:
                owner, place = inputs.settings.owner, f"the update of {variable!r}"
                raise unfit(place, leaf, where, error, owner) from error


def _apart(results: Sequence[Leaf], operands: Sequence[Leaf]) -> list[Leaf]:
    """Results of which none is an input or another result.

    JAX may return one array for both, and every variable keeps a buffer of its own.
    """
    seen = set(map(id, operands))
    apart = []
    for leaf in results:
        apart.append(jnp.copy(leaf) if id(leaf) in seen else leaf)
        seen.add(id(leaf))
    return apart


def _identity(constant: Any) -> Any:
    """Equal for the same array in two traces; JAX wraps those of NumPy anew."""
    if isinstance(constant, jax.Array):
        return id(constant)
    array = np.asarray(constant)
    memory = array.__array_interface__["data"][0]
    return memory, array.shape, array.strides, array.dtype.str


def evaluate(
    call: Caller, leaves: Sequence[Leaf], frame: frames.Frame, settings: Settings
) -> tuple[PyTree, dict[SharedVariable, PyTree]]:
    """Call the function in its frame: packed outputs, new values of variables."""
    value = call(leaves)
    with signed(settings.owner):
        returned = Returned([]) if value is None else parse_return(value)
        if returned.stop is not None:
            raise ScanValueError(
                "the return value",
                needed="outputs and updates",
                came="until, which only a step of scan may return",
                fix="move the loop into jscan.scan",
            )
        new = dict(frame.stored)
        if settings.default_updates:
            new |= {
                s: frame.bound[s]
                for s in frame.draws
                if not frames.is_born_in(s, frame)
            }
        for variable, update in returned.updates.items():
            if isinstance(variable, Stream) and variable in new:
                continue  # the frame has counted these draws, and any later ones
            place = f"the update of {variable!r}"
            if frames.is_born_in(variable, frame):
                raise ScanTypeError(
                    place,
                    needed="a variable that lives outside of the function",
                    came="one that the function itself makes",
                    fix="call jscan.shared outside of the function",
                )
            fresh = check_value(variable, update, place)
            tree = jax.tree.structure(frames.value_of(variable))
            new[variable] = jax.tree.unflatten(tree, fresh)
    # Line by line an output may be the very array of a variable, which a function that
    # donates overwrites: the caller gets one of its own, as from a program.
    own = jnp.asarray if frame.staged else jnp.array
    return jax.tree.map(own, returned.packed()), new


def _has_callbacks(jaxpr: Any) -> bool:
    """True when the program, or one inside it, calls back into Python."""
    return any(
        "callback" in equation.primitive.name
        or any(map(_has_callbacks, jax.tree.leaves(list(equation.params.values()))))
        for equation in getattr(open_jaxpr(jaxpr)[0], "eqns", ())
    )
