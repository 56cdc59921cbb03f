"""The two worlds a random call runs in: jscan's, and the one of the reference."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jscan
from fuzz.loops import Loop
from support import reference, reference_draws

SEEDS = (7, 8)


class Unsettled(Exception):
    """Rounding decides when the loop stops, so nothing is to be learned."""


class Jscan:
    """What a step needs, by jscan."""

    xp = jnp

    def __init__(self, variables: list[Any]) -> None:
        self.variables = [jscan.shared(value) for value in variables]
        self.streams = [jscan.RandomStreams(seed) for seed in SEEDS]
        self.draws: dict[Any, Any] = {}
        self.shared = jscan.shared
        self.until = jscan.until

    def dtype(self, dtype: str) -> str:
        return dtype

    def holds(self, value: Any) -> Any:
        return value > 0.1

    def counters(self) -> list[Any]:
        return [stream.state.value.counter for stream in self.streams]

    def as_argument(self, draw: Any) -> Any:
        return draw

    def run(self, loop: Loop, step: Any, arguments: dict[str, Any]) -> Any:
        arguments = {k: v for k, v in arguments.items() if v is not None}
        if loop.gives_last:
            arguments.setdefault("outputs_info", None)
        if loop.view not in ("scan", "scan_checkpoints"):
            arguments.setdefault("sequences", None)
        return getattr(jscan, loop.view)(step, **arguments, **loop.options)

    def rows_of(self, loop: Loop, result: Any) -> Any:
        return result.outputs if loop.gives_last else result.filled(0)

    def updates(self, own: dict[Any, Any], more: Any, form: int) -> Any:
        merged = jscan.Updates(own) + (more or {})
        if form == 0:
            return dict(merged)
        return list(merged.items()) if form == 1 else merged


class Meaning:
    """The same by the reference.

    Args:
        variables: What they are worth at first.
        wide: Whether all numbers are in double precision, for differences.
        tape: What is constant under `truncate_gradient`.
        margin: How near a condition may come to its threshold.
    """

    xp = np

    def __init__(
        self,
        variables: list[Any],
        wide: bool = False,
        tape: Tape | None = None,
        margin: float = 0.0,
    ) -> None:
        self.variables = [reference.shared(value) for value in variables]
        self.streams = [reference_draws.RandomStreams(s, wide) for s in SEEDS]
        self.draws: dict[Any, Any] = {}
        self.shared = reference.shared
        self.until = reference.until
        self._wide = wide
        self._tape = tape or Tape()
        self._margin = margin

    def dtype(self, dtype: str) -> str:
        if not self._wide:
            return dtype
        kind = dtype.rstrip("0123456789")
        return {"complex": "complex128", "float": "float64", "bfloat": "float64"}.get(
            kind, dtype
        )

    def holds(self, value: Any) -> Any:
        if abs(value - 0.1) < self._margin:
            raise Unsettled
        return value > 0.1

    def counters(self) -> list[Any]:
        return [np.asarray(stream.counter, "uint32") for stream in self.streams]

    def as_argument(self, draw: Any) -> Any:
        return draw.value

    def run(self, loop: Loop, step: Any, arguments: dict[str, Any]) -> Any:
        count = arguments.pop("n_steps")
        del arguments["max_steps"]
        if loop.n_steps == "traced":
            count = min(max(int(count), 0), loop.bound)
        options = {
            key: value
            for key, value in loop.options.items()
            if key in ("go_backwards", "truncate_gradient", "return_list")
        }
        if loop.view == "foldr":
            options["go_backwards"] = True
        for key in ("sequences", "outputs_info", "non_sequences"):
            arguments[key] = _without_variables(arguments[key], key)
        result = reference.scan(
            step,
            **arguments,
            **options,
            n_steps=loop.bound if count is None else count,
            bound=loop.bound,
            constant=self._tape.constant,
        )
        every = loop.options.get("save_every_N")
        if every is not None:
            last = max(result.n_steps - 1, 0)
            picked = [*range(every - 1, last, every), last][: result.n_steps]
            take = lambda rows: rows[np.array(picked, int)]
            rows = jax.tree.map(take, result.outputs)
        elif loop.gives_last:
            if result.n_steps == 0:
                rows = _newest(arguments["outputs_info"], result.outputs)
            else:
                rows = jax.tree.map(lambda rows: rows[-1], result.outputs)
        else:
            return result
        return reference.Result(rows, result.updates, result.n_steps)

    def rows_of(self, loop: Loop, result: Any) -> Any:
        return result.outputs

    def updates(self, own: dict[Any, Any], more: Any, form: int) -> Any:
        return {**own, **(more or {})}


class Tape:
    """Constants of one run, which are those of every run after it."""

    def __init__(self) -> None:
        self._recorded: list[Any] = []
        self._place: int | None = None  # where a replay is

    def rewind(self) -> None:
        self._place = 0

    def constant(self, tree: Any) -> Any:
        if self._place is None:
            self._recorded.append(tree)
            return tree
        self._place += 1
        return self._recorded[self._place - 1]


def _without_variables(argument: Any, key: str) -> Any:
    """As a sequence or an initial, a variable is its value when the loop begins."""
    if key == "non_sequences":
        return argument
    return jax.tree.map(
        lambda leaf: leaf.value if isinstance(leaf, reference.Variable) else leaf,
        argument,
        is_leaf=lambda leaf: leaf is None,
    )


def _newest(infos: Any, outputs: Any) -> Any:
    """What a fold of no steps gives: the initials, in the types of the outputs."""
    states = [reference.as_state(info) for info in reference.as_list(infos)]
    rows = [state.rows[-1] for state in states if state is not None]
    initials = rows[0] if len(rows) == 1 else (rows or None)
    return jax.tree.map(lambda x, of: np.asarray(x, of.dtype)[()], initials, outputs)
