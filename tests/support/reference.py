"""What a scan means: a plain loop over NumPy arrays, one line for each rule.

This is the readable definition that jscan is tested against; it knows nothing about
tracing. With `xp=jax.numpy` the same loop runs on JAX arrays, unrolled, so that JAX
can differentiate it. The module has the names a program needs from jscan (`scan`,
`map`, `reduce`, `foldl`, `foldr`, `shared`, `until`): one program runs on either.

A step returns `outputs`, `updates`, `until(condition)` or a tuple of these, in any
order. Updates are a dict of shared variables.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from support import reference_draws

Tree = Any


class Variable:
    """A value that lives between calls; a step reads `.value`."""

    def __init__(self, value: Tree) -> None:
        self.value = value


class Stop(NamedTuple):
    """Returned by a step: if the condition is true, this step was the last."""

    condition: Any


class Sequence(NamedTuple):
    """An input with a leading time axis, read at `taps` around the current time."""

    tree: Tree
    taps: list[int]

    def steps(self) -> int:
        # Tap 0 always counts, also where it is not asked for.
        length = len(jax.tree.leaves(self.tree)[0])
        return max(0, length + min([0, *self.taps]) - max([0, *self.taps]))

    def slices(self, time: int) -> list[Tree]:
        return [row(self.tree, time - min([0, *self.taps]) + tap) for tap in self.taps]


class State(NamedTuple):
    """A recurrent output: its initial values, oldest first, and its taps."""

    rows: list[Tree]
    taps: list[int]


@dataclass(frozen=True)
class Result:
    """What `scan` returns: a pair that knows how many steps ran."""

    outputs: Any
    updates: dict[Variable, Tree]
    n_steps: int

    def __iter__(self) -> Iterator[Any]:
        return iter((self.outputs, self.updates))

    def __getitem__(self, index: int) -> Any:
        return (self.outputs, self.updates)[index]


class Returned(NamedTuple):
    """A step's return value, taken apart."""

    outputs: list[Tree]
    updates: dict[Variable, Tree]
    stop: bool


def scan(
    fn: Callable[..., Any],
    sequences: Any = None,
    outputs_info: Any = None,
    non_sequences: Any = None,
    n_steps: int | None = None,
    go_backwards: bool = False,
    return_list: bool = False,
    *,
    truncate_gradient: int = -1,
    bound: int | None = None,
    xp: Any = np,
    constant: Callable[[Tree], Tree] = lambda tree: tree,
) -> Result:
    """Run `fn` step after step and stack what it returns.

    What jscan does not have: `bound` is how many steps there could have been, if more
    than `n_steps`; `xp` is `numpy` or `jax.numpy`; `constant` makes what it is given
    a constant to whoever differentiates.
    """
    inputs = [as_sequence(item) for item in as_list(sequences)]
    states = [as_state(item) for item in as_list(outputs_info)]
    usable = [sequence.steps() for sequence in inputs]
    total = min(usable) if n_steps is None else n_steps
    if total > min([total, *usable]):
        raise ValueError(f"n_steps={n_steps}, but the sequences give {min(usable)}")

    def call(step: int, histories: list[list[Tree]]) -> Returned:
        arguments = []
        for sequence, steps in zip(inputs, usable, strict=True):
            # Taps are cut in time order; only then is the order of steps reversed.
            arguments += sequence.slices(steps - 1 - step if go_backwards else step)
        for state, history in zip(states, histories, strict=True):
            if state is not None:
                arguments += [history[tap] for tap in state.taps]  # newest is [-1]
        return take_apart(fn(*arguments, *as_list(non_sequences)))

    # Types first, with one call whose values are thrown away: an initial of a narrow
    # type takes the wider type the step returns.
    histories = [[] if state is None else state.rows for state in states]
    with reference_draws.thrown_away() as drawn:
        while True:
            drawn.clear()
            with reference_draws.step():
                first = call(0, histories)
            kinds = first.outputs
            widened = [
                [promote(past, kind, xp) for past in history]
                for history, kind in zip(histories, kinds, strict=bool(states))
            ]
            if types(widened) == types(histories):
                break
            histories = widened
    if not states:  # every output is a map output
        states, histories = [None] * len(kinds), [[] for _ in kinds]

    def loop(cut: int) -> tuple[list[list[Tree]], dict[Variable, Tree], int]:
        """Rows, updates and steps; what comes of steps before `cut` is constant."""
        pasts = [list(history) for history in histories]
        rows: list[list[Tree]] = [[] for _ in kinds]
        before: dict[Variable, Tree] = {}
        executed = 0
        for step in range(total):
            with reference_draws.step():
                returned = call(step, pasts)
            outputs, new = returned.outputs, returned.updates
            if step < cut:
                outputs, values = constant((outputs, list(new.values())))
                new = dict(zip(new, values, strict=True))
            for output, past, column in zip(outputs, pasts, rows, strict=True):
                past.append(output)
                column.append(output)
            for variable, value in new.items():
                before.setdefault(variable, variable.value)
                variable.value = value  # all were computed from the values before
            executed = step + 1
            if returned.stop:  # do-while: the stopping step is kept
                break
        updates = {variable: variable.value for variable in first.updates}
        for variable, value in before.items():  # the loop itself changes nothing
            variable.value = value
        return rows, updates, executed

    cut = 0
    if truncate_gradient != -1:
        with reference_draws.thrown_away():
            cut = max(loop(0)[2] - truncate_gradient, 0)
    with reference_draws.loop(drawn, total if bound is None else bound):
        rows, updates, executed = loop(cut)

    outputs = [
        stack(column, kind, xp) for column, kind in zip(rows, kinds, strict=True)
    ]
    if len(outputs) == 1 and not return_list:
        return Result(outputs[0], updates, executed)
    return Result(outputs or None, updates, executed)


def take_apart(returned: Any) -> Returned:
    """Sort a step's return value into outputs, updates and the stop condition."""
    plain = type(returned) in (list, tuple)
    parts = list(returned) if plain else [returned]
    updates: dict[Variable, Tree] = {}
    stop = False
    outputs = []
    for part in parts:
        if isinstance(part, Stop):
            stop = bool(part.condition)
        elif isinstance(part, dict) and all(isinstance(k, Variable) for k in part):
            updates |= part
        else:
            outputs.append(part)
    marked = len(outputs) < len(parts)
    if plain and marked and len(outputs) == 1 and type(outputs[0]) in (list, tuple):
        outputs = list(outputs[0])  # ([a, b], updates)
    return Returned(outputs, updates, stop)


def as_list(items: Any) -> list[Any]:
    """`None` is nothing, a plain list or tuple is many, anything else is one."""
    if items is None:
        return []
    return list(items) if type(items) in (list, tuple) else [items]


def as_taps(taps: Any) -> list[int]:
    return [taps] if isinstance(taps, int) else list(taps)


def as_sequence(item: Any) -> Sequence:
    if isinstance(item, dict):
        return Sequence(item["input"], as_taps(item.get("taps", [0])))
    return Sequence(item, [0])


def as_state(item: Any) -> State | None:
    """A multi-tap initial has a time axis; its first `-min(taps)` rows count."""
    given = item if isinstance(item, dict) else {"initial": item}
    initial, taps = given.get("initial"), as_taps(given.get("taps", [-1]))
    if initial is None:
        return None
    if taps == [-1]:
        return State([initial], taps)
    return State([row(initial, time) for time in range(-min(taps))], taps)


def row(tree: Tree, time: int) -> Tree:
    """One time of every array; ones where a loop of no steps only asks for types."""

    def at(x: Any) -> Any:
        return x[time] if 0 <= time < len(x) else np.ones(x.shape[1:], x.dtype)[()]

    return jax.tree.map(at, tree)


def promote(past: Tree, kind: Tree, xp: Any) -> Tree:
    """Widen an initial value to what the step returns; Python numbers just follow."""

    def widen(value: Any, like: Any) -> Any:
        weak = isinstance(value, bool | int | float | complex)
        with jax.numpy_dtype_promotion("standard"):
            dtype = xp.result_type(like) if weak else jnp.result_type(value, like)
        return xp.asarray(value, dtype)[()]

    return jax.tree.map(widen, past, kind)


def types(histories: list[list[Tree]]) -> list[str]:
    leaves = jax.tree.leaves(histories)
    return [str(getattr(leaf, "dtype", "Python number")) for leaf in leaves]


def stack(column: list[Tree], kind: Tree, xp: Any) -> Tree:
    if not column:
        return jax.tree.map(
            lambda x: xp.zeros((0, *xp.shape(x)), xp.result_type(x)), kind
        )
    return jax.tree.map(lambda *values: xp.stack(values), *column)


def last(result: Result) -> Result:
    rows = jax.tree.map(lambda x: x[-1], result.outputs)
    return Result(rows, result.updates, result.n_steps)


def map(
    fn: Callable[..., Any], sequences: Any, non_sequences: Any = None, **options: Any
) -> Result:
    return scan(fn, sequences, None, non_sequences, **options)


def reduce(
    fn: Callable[..., Any],
    sequences: Any,
    outputs_info: Any,
    non_sequences: Any = None,
    **options: Any,
) -> Result:
    return last(scan(fn, sequences, outputs_info, non_sequences, **options))


foldl = reduce
foldr = partial(reduce, go_backwards=True)
shared = Variable
until = Stop
