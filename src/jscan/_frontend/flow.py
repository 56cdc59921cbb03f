"""What flows into a step and out of it, in words: the content of a drawing."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax

from jscan._base.errors import loop_label
from jscan._base.kinds import counted
from jscan._base.types import tree_text
from jscan._frontend.signature import (
    caller_names,
    captured_names,
    slice_names,
    step_name,
)
from jscan._frontend.spec import ScanSpec
from jscan._frontend.step import Step
from jscan._jax.types import stacked_aval
from jscan._state.array_likes import label_of
from jscan._state.streams import Stream
from jscan._state.variables import SharedVariable


@dataclass(frozen=True)
class Port:
    """One thing that a step reads or writes.

    Attributes:
        kind: ``sequence``, ``state``, ``constant``, ``captured``, ``variable``,
            ``random``; ``output``, ``update``, ``stop``.
        name: The user's, where it is known, else its place.
        type: Of the whole: of all rows of a sequence or an output.
        slices: What of it one step reads or writes: ``x[t-1], x[t]``.
        back: Of what is written: the name of what the next step reads it as.
    """

    kind: str
    name: str
    type: str
    slices: str
    back: str | None = None


@dataclass(frozen=True)
class Flow:
    """A loop: its name and steps, the call of its step, what that reads and writes."""

    title: str
    step: str
    call: str
    reads: tuple[Port, ...]
    writes: tuple[Port, ...]

    @property
    def loops_back(self) -> list[tuple[int, int]]:
        """Which of the writes the next step reads, as which of its reads."""
        kinds = {"output": "state", "update": "variable"}
        places = {(port.kind, port.name): at for at, port in enumerate(self.reads)}
        return [
            (at, places[kinds[port.kind], port.back])
            for at, port in enumerate(self.writes)
            if port.back is not None
        ]


def flow_of(spec: ScanSpec, step: Step) -> Flow:
    """The flow of a call whose step is traced."""
    label = _labels(spec)
    given = [
        *(_tapped("sequence", label(s), s.value, s) for s in spec.sequences),
        *(_tapped("state", label(s), s.row, s) for s in step.outputs if s.is_state),
        *(_constant(label(s), s) for s in spec.non_sequences),
    ]
    name = step_name(spec.fn)
    most = "at most " if step.has_stop or spec.limit is not None else ""
    where = ", from the last row on" if spec.options.go_backwards else ""
    return Flow(
        title=f"{loop_label(spec.options.name)}: {most}{_steps(spec.n_steps)}{where}",
        step=name,
        call=f"{name}({', '.join(port.slices for port in given)})",
        reads=(*(p for p in given if p.kind != "variable"), *_found(spec, step)),
        writes=(*_outputs(spec, step, label), *_written(step)),
    )


def _steps(count: Any) -> str:
    return counted(count, "step") if isinstance(count, int) else f"{count} steps"


def _labels(spec: ScanSpec) -> Callable[[Any], str]:
    """The caller's name of an argument, or the step's, or its place."""
    known, own = caller_names(), _parameters(spec)

    def label(part: Any) -> str:
        place = part.place.replace("outputs_info", "outputs")
        return known(part.source) or own.get(part.place) or place

    return label


def _parameters(spec: ScanSpec) -> dict[str, str]:
    """How the step calls what it gets, by place, where that is one argument."""
    try:
        parameters = inspect.signature(spec.fn).parameters.values()
    except (TypeError, ValueError):
        return {}
    names = [p.name for p in parameters if p.kind <= p.POSITIONAL_OR_KEYWORD]
    tapped = [(s.place, len(s.taps)) for s in (*spec.sequences, *spec.states)]
    found, start = {}, 0
    for place, count in [*tapped, *((s.place, 1) for s in spec.non_sequences)]:
        if count == 1 and start < len(names):
            found[place] = names[start]
        start += count
    return found


def _tapped(kind: str, name: str, whole: Any, part: Any) -> Port:
    return Port(kind, name, tree_text(whole), ", ".join(slice_names(name, part)))


def _constant(name: str, part: Any) -> Port:
    # A variable that is listed is read as one that is captured.
    kind = "variable" if isinstance(part.value, SharedVariable) else "constant"
    return Port(kind, name, _type(part.value), name)


def _type(value: Any) -> str:
    """The type of a tree that may hold shared variables."""
    held = lambda leaf: leaf.value if isinstance(leaf, SharedVariable) else leaf
    return tree_text(jax.tree.map(held, value))


def _found(spec: ScanSpec, step: Step) -> Iterator[Port]:
    """What the step reads without having been given it."""
    names = captured_names(spec.fn)
    for number, array in enumerate(step.captured):
        same = [name for name, value in names.items() if value is array]
        name = same[0] if same else f"captured {number}"
        yield Port("captured", name, tree_text(array), name)
    for variable in step.reads:
        name = label_of(variable)
        if isinstance(variable, Stream):
            draws = counted(step.draws.get(variable, 0), "draw")
            yield Port("random", name, "fresh at every step", draws)
        else:
            yield Port("variable", name, tree_text(variable.value), name)


def _outputs(spec: ScanSpec, step: Step, label: Callable[[Any], str]) -> Iterator[Port]:
    for output, row in zip(step.outputs, step.rows, strict=True):
        own = f"output {output.place.partition('[')[2].rstrip(']')}"
        name = label(output) if output.is_state else own
        kept = output.row if output.is_state else row
        rows = jax.tree.map(lambda aval: stacked_aval(aval, spec.n_steps), kept)
        slices = f"{name}[t]" if output.is_state else "one row"
        back = name if output.is_state else None
        yield Port("output", name, tree_text(rows), slices, back)


def _written(step: Step) -> Iterator[Port]:
    for variable in step.updated:
        name = label_of(variable)
        yield Port("update", name, tree_text(variable.value), f"new {name}", name)
    if step.has_stop:
        yield Port("stop", "until", "bool[]", "stop here?")
