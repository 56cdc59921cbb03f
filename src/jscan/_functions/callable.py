"""How a compiled function is called, and what its calls store."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import operator
import sys
import types
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jscan._base.errors import ScanTypeError
from jscan._base.turns import NOTHING, Claim, Turn
from jscan._base.types import Leaf, PyTree
from jscan._base.verbs import shorten
from jscan._functions.call_arguments import Arguments, Sorter
from jscan._functions.compiled import Compiled
from jscan._functions.inputs import Inputs, Missing, Notes, Result, Settings
from jscan._functions.trace import evaluate
from jscan._jax.types import is_traced
from jscan._loops.bars import close_since, opened
from jscan._optimizer import Options
from jscan._programs.program import Program
from jscan._state import frames
from jscan._state.streams import Stream, take
from jscan._state.variables import SharedVariable, store, values_of

# What a trace raises where it needs the value of an int.
_TROUBLE = (TypeError, ValueError, IndexError)


class Calls:
    """What `Function` does; that class says with which types."""

    def __init__(self, fn: Callable[..., Any], settings: Settings) -> None:
        self.fn = fn
        self._settings = settings
        self.name = settings.name
        self._sorter = Sorter(fn, settings.owner, settings.static_argnames)
        self._claim = Claim(frozenset(), in_place=True)  # of DEBUG calls, as known
        functools.update_wrapper(self, fn)

    def __call__(self, *args: Any, **kwargs: Any) -> PyTree:
        """Call the function; all new values are stored together when it has ended."""
        try:
            return self._call(self._sorter.sort(args, kwargs))
        except Exception as error:
            shorten(error)
            raise

    def _call(self, arguments: Arguments) -> PyTree:
        inside = frames.current()
        if self._settings.debug or jax.config.jax_disable_jit:  # type: ignore[attr-defined]
            return self._run_in_python(arguments)
        while True:
            compiled = self._lookup(arguments)
            if compiled is None:
                arguments, compiled = self._learn(arguments)[:2]
            try:
                if inside is not None:
                    return self._run_inside(compiled, arguments.traced)
                return self._run(compiled, arguments.traced)
            except (Missing, frames.NeedsPython) as request:  # of a trace in this call
                if request.owner is not compiled.inputs:
                    raise
                arguments = self._learn(arguments)[0]
            except _TROUBLE:
                if not arguments.kind.integers - arguments.layout.python:
                    raise
                before, (arguments, *_) = arguments, self._learn(arguments)
                if arguments.layout.python == before.layout.python:
                    raise  # it was no trace

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else types.MethodType(self, instance)

    def __repr__(self) -> str:
        return f"<Function {self.name}>"

    def lower(self, *args: Any, **kwargs: Any) -> Any:
        """The lowered program of a call with these arguments, as `jax.jit` gives it.

        Its ``compile().memory_analysis()`` and ``cost_analysis()`` tell what a call
        needs. Nothing is run and nothing stored.
        """
        arguments, compiled, _ = self._learn(self._sorter.sort(args, kwargs))
        values = list(map(frames.value_of, compiled.reads))  # types alone matter
        program, operands = compiled.prepared(values, arguments.traced)
        return program.lower(*operands)

    def _traced(self, *args: Any, **kwargs: Any) -> tuple[Program, list[Leaf] | None]:
        """The program of a call before any rewriting, and its operands where known."""
        arguments, compiled, notes = self._learn(self._sorter.sort(args, kwargs))
        return notes.program, compiled.flat(notes, arguments.traced)

    def _with_options(self, options: Options) -> Any:
        """This function with the loops of its program rewritten as `options` say."""
        return type(self)(self.fn, dataclasses.replace(self._settings, options=options))

    def __reduce__(self) -> Any:
        """By name where the module has it, else made anew from the Python function."""
        with contextlib.suppress(AttributeError):
            name, module = self.fn.__qualname__, sys.modules.get(self.fn.__module__)
            if operator.attrgetter(name)(module) is self:
                return name
        return type(self), (self.fn, self._settings)

    def _lookup(self, arguments: Arguments) -> Compiled | None:
        try:
            return arguments.layout.programs.get(arguments.constants)
        except TypeError:
            raise arguments.unhashable(self._settings.owner) from None

    def _learn(self, arguments: Arguments) -> tuple[Arguments, Compiled, Notes]:
        """Trace with as few concrete ints as the function allows, and keep that."""
        python = arguments.layout.python
        rest = arguments.kind.integers - python
        try:
            found = self._trace(arguments)
        except _TROUBLE:
            if not rest:
                raise
            found = self._trace(arguments.laid_out(python | rest))
            for index in sorted(rest):
                needed = found[0].layout.python - {index}
                with contextlib.suppress(*_TROUBLE):  # this one is needed, too
                    found = self._trace(arguments.laid_out(needed))
        arguments, compiled, _ = found
        arguments.kind.layout = arguments.layout
        arguments.layout.programs[arguments.constants] = compiled
        return found

    def _trace(self, arguments: Arguments) -> tuple[Arguments, Compiled, Notes]:
        """Trace until every variable that is read is an input."""
        compiled = self._lookup(arguments)
        while True:
            if compiled is None:
                known = self._sorter.described(arguments, self._settings.in_shardings)
                call = arguments.caller(self.fn, self._settings.owner)
                compiled = Compiled(Inputs(call, known, self._settings))
            values = list(map(frames.value_of, compiled.reads))
            try:
                notes = compiled.notes(values, arguments.traced)
            except (Missing, frames.NeedsPython) as request:
                if request.owner is not compiled.inputs:
                    raise
                if isinstance(request, Missing):
                    compiled = Compiled(compiled.inputs.with_more(request))
                    continue
                traced, python = arguments.layout.traced, arguments.layout.python
                needed = python | {traced[index] for index in request.indices}
                arguments, compiled = arguments.laid_out(needed), None
            else:
                return arguments, compiled, notes

    def _run(self, compiled: Compiled, leaves: list[Leaf]) -> PyTree:
        """A call from Python."""
        bars, values = opened(), []
        try:
            with Turn(compiled.claim):
                values = values_of(compiled.reads)
                program = compiled.settled(values, leaves)
                if compiled.in_place:
                    result = self._run_in_place(compiled, program, values, leaves)
                else:
                    result = self._kept(compiled.run(program, values, leaves))
            (notes,), outputs, _ = result
            return notes.output_tree.unflatten(outputs)
        except BaseException as error:
            close_since(bars)
            if isinstance(error, RuntimeError | ValueError):
                compiled.check(values, leaves)
            raise

    def _run_in_place(
        self, compiled: Compiled, program: Any, values: list[PyTree], leaves: list[Leaf]
    ) -> Result:
        """When the program has run the old values are gone: the new ones are stored.

        That is also so when an interrupt comes, unless the program itself has failed.
        """
        results: list[Any] = []
        try:
            compiled.call_in_place(program, values, leaves, results)
            return self._kept(results[0])
        except BaseException:
            if results:
                with contextlib.suppress(Exception):
                    self._kept(results[0])
            raise
        finally:
            compiled.note_taken(values)

    def _kept(self, result: Result) -> Result:
        """The result, after its new values are stored."""
        (notes,), outputs, fresh = result
        if notes.has_callbacks:  # an error may be late
            jax.block_until_ready((outputs, fresh))
        if fresh:
            self._store(notes.new(fresh), fresh)
        return result

    def _run_inside(self, compiled: Compiled, leaves: list[Leaf]) -> PyTree:
        """A call from another function (or a step): the new values are its, too."""
        draws_here = frames.sampling_frame() is None  # it stands in a cost
        with Turn(compiled.claim if draws_here else NOTHING):
            values = list(map(frames.value_of, compiled.reads))
            found = compiled.run(compiled.program(None), values, leaves)
            (notes,), outputs, fresh = found
            self._store_inside(notes.new(fresh), notes.draws)
        return notes.output_tree.unflatten(outputs)

    def _store_inside(self, new: dict[SharedVariable, PyTree], draws: Any) -> None:
        frame = frames.current()
        assert frame is not None
        for variable, value in new.items():
            if isinstance(variable, Stream) and isinstance(draws.get(variable), int):
                take(variable, draws[variable])
                continue
            if frame.scope is not frames.Scope.FUNCTION:
                raise ScanTypeError(
                    f"the update of {variable!r}",
                    needed="a call from Python or from another function",
                    came=f"a call from a {frame.scope.value}",
                    fix=f"give jscan.optimize or jscan.explain {self.name} itself"
                    if frame.scope is frames.Scope.REWRITTEN
                    else f"call {self.name}.fn there and return its updates",
                    owner=self._settings.owner,
                )
            frame.set(variable, value)
            frame.stored[variable] = value

    def _store(self, new: dict[SharedVariable, PyTree], leaves: list[Leaf]) -> None:
        if any(map(is_traced, leaves)):
            for variable, value in new.items():
                leaves = jax.tree.leaves(value)
                if frames.is_lasting(variable) and any(map(is_traced, leaves)):
                    raise ScanTypeError(
                        f"the update of {variable!r}",
                        needed="a call on values",
                        came="a call inside jax.grad, jax.vmap or jax.jit, which "
                        "would store a tracer",
                        fix="use the transformation inside the function, or in it a "
                        "function without updates",
                        owner=self._settings.owner,
                    )
        store(new)

    def _run_in_python(self, arguments: Arguments) -> PyTree:
        """``mode="DEBUG"``: the function on real values, line by line."""
        arguments = arguments.laid_out(arguments.kind.integers)
        call = arguments.caller(self.fn, self._settings.owner)
        leaves = [jnp.asarray(leaf) for leaf in arguments.traced]
        while True:
            how = dict(staged=False, without_jit=True)
            frame = frames.Frame({}, frames.Scope.FUNCTION, **how)
            claim, outputs, fresh = self._claim, None, []
            with Turn(claim if frame.parent is None else NOTHING):
                try:
                    with frame:
                        outputs, new = evaluate(call, leaves, frame, self._settings)
                except Exception:
                    if claim.reads.issuperset(frame.reads) or not frame.has_lost():
                        raise
                    new = None  # another thread has overwritten what it read
                else:
                    if frame.parent is not None:
                        self._store_inside(new, frame.draws)
                        return outputs
                    fresh = jax.tree.leaves(list(new.values()))
                    jax.block_until_ready((outputs, fresh))  # late errors
                    known = claim.reads.issuperset(frame.reads)
                    if known and claim.updates.issuperset(new):
                        self._store(new, fresh)
                        return outputs
            reads = claim.reads.union(frame.reads)
            self._claim = Claim(reads, claim.updates.union(new or ()), in_place=True)
            if new is not None:
                with Turn(self._claim):
                    # Another thread may have stored a value in the meantime.
                    if all(
                        map(operator.is_, values_of(frame.reads), frame.reads.values())
                    ):
                        self._store(new, fresh)
                        return outputs
