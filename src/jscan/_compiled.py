"""A Python function of arguments and shared variables, traced into one program.

Every shared variable that is read becomes an input of the program, every one that is
updated an output; nothing is baked in. `Function` keeps one `Compiled` per kind of
arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from . import _donation, _frames
from ._errors import ScanTypeError, ScanValueError, Subject, explain_error
from ._frames import Scope
from ._program import Program, open_jaxpr
from ._regions import evaluate_rewritten
from ._returns import Returned, parse_return
from ._shared import SharedVariable, check_value
from ._streams import Stream
from ._types import Leaf, PyTree, abstract
from .optimize import Options

Call = Callable[[Sequence[Leaf]], Any]  # the user's function on flat arguments


@dataclass(frozen=True)
class Settings:
    """How a function is compiled.

    Attributes:
        owner: Who complains in errors.
        donate: Whether the old values of updated variables are overwritten.
        options: How its loops are rewritten; `None`: not at all.
        default_updates: Whether streams that it draws from move on.
    """

    owner: Subject
    donate: bool
    options: Options | None
    default_updates: bool


@dataclass(frozen=True, eq=False)
class Compiled:
    """A traced function.

    Attributes:
        run: The jitted program: ``(updated values, other values read, captured arrays,
            arguments) -> (output leaves, new value leaves)``.
        program: What `run` computes, as it was traced, on other inputs.
        captured: Arrays the function closes over.
        reads: Shared variables it reads or updates, in order.
        updated: Those it updates.
        draws: Draws it makes of every stream that it moves on, where the number is
            known before it runs.
        types: Types of the values read; with others it must be traced again.
        output_tree: Structure of what it returns.
        has_callbacks: True when running it can raise an error of the user's code.
    """

    settings: Settings
    run: Callable[..., Any]
    program: Program
    captured: tuple[Leaf, ...]
    reads: tuple[SharedVariable, ...]
    updated: tuple[SharedVariable, ...]
    draws: Mapping[Stream, Any]
    types: tuple[Any, ...]
    output_tree: Any
    has_callbacks: bool

    def fits(self, values: Mapping[SharedVariable, PyTree]) -> bool:
        """True when the values have the types this program was traced for."""
        return self.types == _types(self.reads, values)

    def inputs(
        self, values: Mapping[SharedVariable, PyTree], leaves: Sequence[Leaf]
    ) -> tuple[list[Leaf], list[Leaf], tuple[Leaf, ...], list[Leaf]]:
        """The arguments of `run`."""
        updated = jax.tree.leaves([values[v] for v in self.updated])
        others = jax.tree.leaves(
            [values[v] for v in self.reads if v not in self.updated]
        )
        return updated, others, self.captured, list(leaves)

    def __call__(
        self, values: Mapping[SharedVariable, PyTree], leaves: Sequence[Leaf]
    ) -> tuple[PyTree, dict[SharedVariable, PyTree]]:
        """Compute the outputs and the new values; stores nothing."""
        updated, *rest = self.inputs(values, leaves)
        donates = self.settings.donate and _frames.current() is None
        if donates:
            self._check_distinct(values, [updated, *rest])
        try:
            outputs, fresh = self.run(updated, *rest)
        finally:
            if donates:
                self._note_taken(values)
        if self.has_callbacks:
            jax.block_until_ready((outputs, fresh))
        # JAX may return an input itself; every variable keeps a buffer of its own.
        given = {id(leaf) for leaf in jax.tree.leaves((updated, rest))}
        outputs, fresh = (
            [jnp.copy(leaf) if id(leaf) in given else leaf for leaf in part]
            for part in (outputs, fresh)
        )
        trees = [jax.tree.structure(values[v]) for v in self.updated]
        new, start = {}, 0
        for variable, tree in zip(self.updated, trees, strict=True):
            part = fresh[start : start + tree.num_leaves]
            new[variable] = jax.tree.unflatten(tree, part)
            start += tree.num_leaves
        return jax.tree.unflatten(self.output_tree, outputs), new

    def _check_distinct(
        self, values: Mapping[SharedVariable, PyTree], inputs: Sequence[Any]
    ) -> None:
        """No buffer that is to be overwritten may be wanted a second time."""
        seen: dict[Any, int] = {}
        for leaf in jax.tree.leaves(inputs):
            key = _buffer(leaf)
            seen[key] = seen.get(key, 0) + 1
        for variable in self.updated:
            if any(seen[_buffer(x)] > 1 for x in jax.tree.leaves(values[variable])):
                raise ScanValueError(
                    explain_error(
                        self.settings.owner,
                        f"{variable!r} with donate=True",
                        needed="a buffer that nothing else in the call uses",
                        came="one that is also an argument, captured by the function, "
                        "or held by another variable",
                        fix="pass or store a copy, as in jnp.array(x)",
                    )
                )

    def _note_taken(self, values: Mapping[SharedVariable, PyTree]) -> None:
        for variable in self.updated:
            text = f"{self.settings.owner}, which updates {variable!r} with donate=True"
            gone = [x for x in jax.tree.leaves(values[variable]) if x.is_deleted()]
            _donation.note_taken(gone, text)


@dataclass
class _Notes:
    """What one trace of the function noted beside its program."""

    reads: tuple[SharedVariable, ...] = ()
    updated: tuple[SharedVariable, ...] = ()
    draws: Mapping[Any, Any] | None = None
    output_tree: Any = None


def compile_function(
    call: Call, arguments: Sequence[Leaf], integers: Sequence[int], settings: Settings
) -> Compiled:
    """Trace a function until every variable it reads is an input.

    Args:
        call: The function.
        arguments: Its flat arguments; only their types matter.
        integers: Which of them came as Python ints.
        settings: How to compile it.
    """
    reads: tuple[SharedVariable, ...] = ()
    types = [abstract(jnp.asarray(leaf)) for leaf in arguments]
    while True:
        values = {v: _frames.value_of(v) for v in reads}
        notes = _Notes()

        def flat(
            bound: dict[int, PyTree],
            leaves: list[Leaf],
            reads: tuple[SharedVariable, ...] = reads,
            notes: _Notes = notes,
        ) -> Any:
            frame = _frames.Frame(
                {v: bound[i] for i, v in enumerate(reads)}, Scope.FUNCTION
            )
            tracers = {index: leaves[index] for index in integers}
            frame.integers = _frames.Integers(call, tracers)
            with _frames.enter(frame):
                packed, new = evaluate(call, leaves, frame, settings)
            notes.output_tree = jax.tree.structure(packed)
            notes.reads, notes.updated = tuple(frame.reads), tuple(new)
            notes.draws = {
                stream: count
                for stream, count in frame.draws.items()
                if stream in new and isinstance(count, int)
            }
            return jax.tree.leaves(packed), jax.tree.leaves(list(new.values()))

        bound = {i: jax.tree.map(abstract, values[v]) for i, v in enumerate(reads)}
        closed, shapes = jax.make_jaxpr(flat, return_shape=True)(bound, types)
        missing = [v for v in (*notes.reads, *notes.updated) if v not in reads]
        if not missing:
            return _finish(closed, len(shapes[0]), reads, values, notes, settings)
        reads = (*reads, *dict.fromkeys(missing))


def evaluate(
    call: Call, leaves: Sequence[Leaf], frame: _frames.Frame, settings: Settings
) -> tuple[PyTree, dict[SharedVariable, PyTree]]:
    """Call the function in its frame: packed outputs, new values of variables."""
    value = call(leaves)
    returned = Returned([]) if value is None else parse_return(value, settings.owner)
    if returned.stop is not None:
        raise ScanValueError(
            explain_error(
                settings.owner,
                "the return value",
                needed="outputs and updates",
                came="until, which only a step of scan may return",
                fix="move the loop into jscan.scan",
            )
        )
    new = dict(frame.stored)
    if settings.default_updates:
        new |= {s: frame.bound[s] for s in frame.draws if s.birth is not frame}
    for variable, update in returned.updates.items():
        if isinstance(variable, Stream) and variable in new:
            continue  # the frame has counted these draws, and any later ones
        _refuse_local(variable, frame, settings.owner)
        place = f"the update of {variable!r}"
        fresh = check_value(variable, update, settings.owner, place)
        tree = jax.tree.structure(_frames.value_of(variable))
        new[variable] = jax.tree.unflatten(tree, fresh)
    return jax.tree.map(jnp.asarray, returned.packed()), new


def _refuse_local(
    variable: SharedVariable, frame: _frames.Frame, owner: Subject
) -> None:
    if variable.birth is frame:
        raise ScanTypeError(
            explain_error(
                owner,
                f"the update of {variable!r}",
                needed="a variable that lives outside of the function",
                came="one that the function itself makes",
                fix="call jscan.shared outside of the function",
            )
        )


def _finish(
    closed: Any,
    outputs: int,
    reads: tuple[SharedVariable, ...],
    values: Mapping[SharedVariable, PyTree],
    notes: _Notes,
    settings: Settings,
) -> Compiled:
    program, captured = Program.close(closed)
    sizes = [len(jax.tree.leaves(values[v])) for v in reads]
    is_updated = [v in notes.updated for v in reads]
    # `run` takes the updated values in the order of `updated`.
    order = [reads.index(v) for v in notes.updated]

    def run(updated: Any, others: Any, captured: Any, arguments: Any) -> Any:
        parts: list[Any] = [None] * len(reads)
        stream = iter(updated)
        for position in order:
            parts[position] = [next(stream) for _ in range(sizes[position])]
        stream = iter(others)
        for position, size in enumerate(sizes):
            if not is_updated[position]:
                parts[position] = [next(stream) for _ in range(size)]
        flat = [leaf for part in parts for leaf in part]
        inputs = [*captured, *flat, *arguments]
        results = evaluate_rewritten(program.jaxpr, inputs, settings.options)
        return results[:outputs], results[outputs:]

    run.__name__ = str(settings.owner).replace("function ", "").strip("'") or "function"
    return Compiled(
        settings=settings,
        run=jax.jit(run, donate_argnums=(0,) if settings.donate else ()),
        program=program,
        captured=captured,
        reads=reads,
        updated=notes.updated,
        draws=notes.draws or {},
        types=_types(reads, values),
        output_tree=notes.output_tree,
        has_callbacks=_has_callbacks(program.jaxpr),
    )


def _types(
    reads: Sequence[SharedVariable], values: Mapping[SharedVariable, PyTree]
) -> tuple[Any, ...]:
    leaves = jax.tree.leaves([values[v] for v in reads])
    return tuple((leaf.shape, leaf.dtype) for leaf in leaves)


def _buffer(leaf: Any) -> Any:
    """Names an array's memory; arrays on several devices go by identity."""
    try:
        return leaf.unsafe_buffer_pointer()
    except (AttributeError, ValueError, TypeError, RuntimeError):
        return id(leaf)


def _has_callbacks(jaxpr: Any) -> bool:
    """True when the program, or one inside it, calls back into Python."""
    return any(
        "callback" in equation.primitive.name
        or any(map(_has_callbacks, _programs_in(list(equation.params.values()))))
        for equation in open_jaxpr(jaxpr).eqns
    )


def _programs_in(value: Any) -> Iterator[Any]:
    """The programs that a parameter of an equation holds, wherever it holds them."""
    if isinstance(value, Program):
        yield value.jaxpr
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _programs_in(part)
    elif hasattr(open_jaxpr(value), "eqns"):
        yield value
