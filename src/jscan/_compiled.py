"""A Python function of arguments and shared variables, as a program that JAX keeps.

`jax.jit` holds the programs: it runs the user's function again under every setting and
for every type that asks for another program. Every shared variable that is read is an
input of the program, and every array that is captured; every variable that is updated
is an output. A trace that meets more of them raises `Missing`, and is done again. What
a trace learns beside its arrays travels with them: in the structure of the result.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import _donation, _frames
from ._bounded import BoundedLoop
from ._errors import ScanTypeError, ScanValueError, Subject, explain_error
from ._frames import Scope
from ._program import Program, open_jaxpr
from ._returns import Returned, parse_return
from ._rewriting import evaluate_rewritten
from ._shared import SharedVariable, check_value
from ._streams import Stream
from ._turns import Claim
from ._types import Leaf, PyTree, is_traced
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
class Inputs:
    """What the program of a function takes, and how it is traced.

    Attributes:
        call: The user's function.
        integers: Which of its arguments came as Python ints.
        settings: How it is compiled.
        updated: Variables it updates, under some setting at least.
        others: Variables it only reads.
        captured: Arrays it closes over, as its first trace met them.
        searched: Whether arrays that are not among those are constants.
    """

    call: Call
    integers: tuple[int, ...]
    settings: Settings
    updated: tuple[SharedVariable, ...] = ()
    others: tuple[SharedVariable, ...] = ()
    captured: tuple[Leaf, ...] = ()
    searched: bool = False

    @property
    def reads(self) -> tuple[SharedVariable, ...]:
        """Every variable that is an input."""
        return (*self.updated, *self.others)

    def with_more(self, request: Missing) -> Inputs:
        """The inputs that a trace asked for."""
        updated = tuple(dict.fromkeys((*self.updated, *request.updated)))
        reads = dict.fromkeys((*self.others, *request.reads))
        others = tuple(v for v in reads if v not in updated)
        captured = self.captured if self.searched else request.captured
        return Inputs(
            self.call, self.integers, self.settings, updated, others, captured, True
        )


class Missing(Exception):
    """A trace has used what is not yet an input of the program.

    Attributes:
        owner: The inputs there were.
        reads: Variables it read or updated.
        updated: Variables it updated.
        captured: Arrays it closes over.
    """

    def __init__(
        self,
        inputs: Inputs,
        reads: tuple[SharedVariable, ...],
        updated: tuple[SharedVariable, ...],
        captured: tuple[Leaf, ...],
    ) -> None:
        super().__init__("a variable or an array that is no input")
        self.owner = inputs
        self.reads = reads
        self.updated = updated
        self.captured = captured


@dataclass(eq=False)
class Notes:
    """What one trace learned beside its arrays; it holds none.

    Attributes:
        updated: Variables it gives new values, in the order of its results.
        trees: The structure of each of those.
        draws: Draws it makes of every stream that it moves on, where the number is
            known before it runs.
        output_tree: Structure of what it returns.
        program: What it computes, before any rewriting.
        has_callbacks: True when running it can raise an error of the user's code.
    """

    updated: tuple[SharedVariable, ...] = ()
    trees: tuple[Any, ...] = ()
    draws: Mapping[Stream, Any] = field(default_factory=dict)
    output_tree: Any = None
    program: Any = None
    has_callbacks: bool = False

    def learn(
        self, frame: _frames.Frame, packed: PyTree, new: Mapping[SharedVariable, PyTree]
    ) -> list[Leaf]:
        """Note what is known at the end of the trace; the leaves of the new values."""
        self.output_tree = jax.tree.structure(packed)
        self.draws = {
            stream: count
            for stream, count in frame.draws.items()
            if stream in new and isinstance(count, int)
        }
        return [leaf for v, value in new.items() for leaf in self.add(v, value)]

    def add(self, variable: SharedVariable, value: PyTree) -> list[Leaf]:
        """Note one more new value; its leaves."""
        leaves, tree = jax.tree.flatten(value)
        self.updated = (*self.updated, variable)
        self.trees = (*self.trees, tree)
        return leaves

    @functools.cached_property
    def are_arrays(self) -> bool:
        """Whether every new value is one array."""
        return all(tree == _ARRAY for tree in self.trees)

    def __repr__(self) -> str:
        return "<notes of a trace>"


_ARRAY = jax.tree.structure(0)


class Compiled:
    """A function with the inputs it needs.

    Attributes:
        inputs: What it takes.
        reads: Variables whose values it takes.
        claim: What it needs in its turn.
        run: The jitted function: ``(updated values, other values, captured arrays,
            arguments) -> {notes: (output leaves, new value leaves)}``. The notes are
            the key of a dict because JAX keeps the keys of a result as they are, and
            hands the result out without running Python code: no interrupt comes
            between a program and its results.
    """

    def __init__(self, inputs: Inputs) -> None:
        self.inputs = inputs
        self.reads = inputs.reads
        donate = inputs.settings.donate
        self.claim = Claim(
            frozenset(self.reads), frozenset(inputs.updated), in_place=donate
        )
        self._captured = tuple(map(jnp.asarray, inputs.captured))
        traced = functools.partial(_trace, inputs)
        owner = str(inputs.settings.owner)
        traced.__name__ = owner.replace("function ", "").strip("'") or "function"  # type: ignore[attr-defined]
        self.run: Any = jax.jit(traced, donate_argnums=(0,) if donate else ())

    def operands(self, values: list[PyTree], leaves: list[Leaf]) -> tuple[Any, ...]:
        """The arguments of `run`, for the values of `reads`."""
        count = len(self.inputs.updated)
        return values[:count], values[count:], self._captured, leaves

    def notes(self, values: list[PyTree], leaves: list[Leaf]) -> Notes:
        """Trace the function, unless JAX has it, and compile nothing."""
        (notes,) = self.run.eval_shape(*self.operands(values, leaves))
        return notes

    def __call__(self, values: list[PyTree], leaves: list[Leaf]) -> Result:
        """Run the program; stores nothing."""
        return Result(self.run(*self.operands(values, leaves)))

    def call_in_place(
        self, values: list[PyTree], leaves: list[Leaf], results: list[Any]
    ) -> None:
        """Run the program and append its `Result`, in one call of C code.

        The old values are gone when the program has run; so the new ones must have
        been put somewhere before an interrupt can come.
        """
        operands = self.operands(values, leaves)
        self._check_distinct(values, operands)
        results.extend(map(self.run, *[(operand,) for operand in operands]))

    def _check_distinct(self, values: list[PyTree], operands: Sequence[Any]) -> None:
        """No buffer that is to be overwritten may be wanted a second time."""
        seen: dict[Any, int] = {}
        for leaf in jax.tree.leaves(operands):
            key = _buffer(leaf)
            seen[key] = seen.get(key, 0) + 1
        for variable, value in zip(self.inputs.updated, values, strict=False):
            if any(seen[_buffer(leaf)] > 1 for leaf in jax.tree.leaves(value)):
                raise ScanValueError(
                    explain_error(
                        self.inputs.settings.owner,
                        f"{variable!r} with donate=True",
                        needed="a buffer that nothing else in the call uses",
                        came="one that is also an argument, captured by the function, "
                        "or held by another variable",
                        fix="pass or store a copy, as in jnp.array(x)",
                    )
                )

    def check_alive(self, values: list[PyTree], leaves: list[Leaf]) -> None:
        """Refuse inputs whose buffers are deleted."""
        owner = self.inputs.settings.owner
        _donation.check_alive(leaves, owner, "an argument")
        for variable, value in zip(self.reads, values, strict=True):
            _donation.check_alive(value, variable.subject, "its stored value")
        _donation.check_alive(self._captured, owner, "an array it closes over")

    def note_taken(self, values: list[PyTree]) -> None:
        """Remember who overwrote the old values."""
        for variable, value in zip(self.inputs.updated, values, strict=False):
            text = f"{self.inputs.settings.owner}, which updates {variable!r} with "
            _donation.note_taken(value, text + "donate=True")


class Result:
    """What a program gave: outputs, and new values of variables."""

    def __init__(self, returned: dict[Notes, tuple[list[Leaf], list[Leaf]]]) -> None:
        ((self.notes, (self.leaves, self.fresh)),) = returned.items()

    @property
    def outputs(self) -> PyTree:
        """In the structure that the user's function gave them."""
        return self.notes.output_tree.unflatten(self.leaves)

    @property
    def new(self) -> dict[SharedVariable, PyTree]:
        """The new values, whole."""
        notes = self.notes
        if notes.are_arrays:
            return dict(zip(notes.updated, self.fresh, strict=True))
        new, rest = {}, iter(self.fresh)
        for variable, tree in zip(notes.updated, notes.trees, strict=True):
            part = [next(rest) for _ in range(tree.num_leaves)]
            new[variable] = jax.tree.unflatten(tree, part)
        return new


def _trace(
    inputs: Inputs,
    updated: list[PyTree],
    others: list[PyTree],
    captured: Sequence[Leaf],
    arguments: list[Leaf],
) -> dict[Notes, tuple[list[Leaf], list[Leaf]]]:
    """What `jax.jit` traces: the user's function, with its loops rewritten."""
    notes = Notes()
    seen: dict[SharedVariable, PyTree] = {}

    def flat(bound: list[PyTree], leaves: list[Leaf]) -> Any:
        values = dict(zip(inputs.reads, bound, strict=True))
        frame = _frames.Frame(values, Scope.FUNCTION)
        tracers = {index: leaves[index] for index in inputs.integers}
        frame.integers = _frames.Integers(inputs, tracers)
        with _frames.enter(frame):
            packed, new = evaluate(inputs.call, leaves, frame, inputs.settings)
        seen.update(frame.reads)
        return packed, notes.learn(frame, packed, new)

    bound = [*updated, *others]
    closed, shapes = jax.make_jaxpr(flat, return_shape=True)(bound, arguments)
    _raise_missing(inputs, notes, seen, closed.consts)
    seen.clear()
    notes.program, constants = Program.close(closed)
    notes.has_callbacks = _has_callbacks(notes.program.jaxpr)
    known = dict(zip(map(_identity, inputs.captured), captured, strict=True))
    constants = [
        known.get(_identity(before), constant)
        for before, constant in zip(closed.consts, constants, strict=True)
    ]
    operands = [*constants, *jax.tree.leaves(bound), *arguments]
    options = inputs.settings.options
    results = evaluate_rewritten(notes.program.jaxpr, operands, options)
    if inputs.settings.donate:  # a value that was given away has to come back
        for variable, value in zip(inputs.updated, updated, strict=True):
            if variable not in notes.updated:
                results += notes.add(variable, value)
    results = _apart(results, operands)
    count = len(jax.tree.leaves(shapes[0]))
    return {notes: (results[:count], results[count:])}


def _raise_missing(
    inputs: Inputs, notes: Notes, seen: Mapping[SharedVariable, PyTree], constants: Any
) -> None:
    """Ask for what a trace has used that is no input, if there is any."""
    missing = {*notes.updated, *seen}.difference(inputs.reads)
    values = {id(leaf) for v in missing for leaf in jax.tree.leaves(seen.get(v))}
    arrays = [x for x in constants if not is_traced(x) and id(x) not in values]
    is_first = bool(arrays) and not inputs.searched
    if missing or is_first or not set(inputs.updated).issuperset(notes.updated):
        raise Missing(inputs, (*seen, *notes.updated), notes.updated, tuple(arrays))


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
    elif isinstance(value, BoundedLoop):
        yield value.body.jaxpr
    elif hasattr(open_jaxpr(value), "eqns"):
        yield value
