"""The front end's fuzzer: a random call in a random transform, against the reference.

Numbers are compared with those of a NumPy loop, derivatives with its differences. What
`truncate_gradient` cuts is a constant of the differences (`Tape`). Programs whose last
step is decided by rounding say nothing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import warnings
from collections.abc import Callable, Iterator
from pprint import pformat
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

import jscan
from fuzz.choices import Choices
from fuzz.expected import Expected
from fuzz.numbers import Numbers
from fuzz.programs import Program, cost_of, drawn, play
from fuzz.worlds import Jscan, Unsettled


def text(choices: Choices) -> str:
    return pformat(dataclasses.asdict(drawn(choices)), sort_dicts=False)


def run(choices: Choices) -> str | None:
    """Fails where the two disagree; else says how a program was refused, if it was."""
    program = drawn(choices)
    numbers = Numbers(program.loop, program.variables, program.seed)
    lanes = [numbers.lane(n) for n in range(2 if _is_batched(program) else 1)]
    try:
        expected = [Expected(program, numbers, *lane) for lane in lanes]
    except Unsettled:
        return "unsettled: rounding decides when the loop stops"
    refusals = expected_refusals(program)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*rows?, fewer than")
        try:
            actual = jax.tree.map(np.asarray, observed(program, numbers, lanes))
        except jscan.ScanError as error:
            for pattern in refusals:
                if re.search(pattern, str(error), re.DOTALL):
                    return f"refused: {pattern}"
            raise
    assert not any(map(_must, refusals)), f"not refused: {refusals}"
    for n, lane in enumerate(expected):
        here = actual
        if _is_batched(program):
            here = jax.tree.map(lambda leaf, n=n: leaf[n], actual)
        lane.check(here)
    return None


def _is_batched(program: Program) -> bool:
    return "vmap" in program.outer or program.outer == "map"


def _must(pattern: str) -> bool:
    return not pattern.startswith("(?#perhaps)")


def expected_refusals(program: Program) -> list[str]:
    """What errors of ours may say; those that must come, and those that may."""
    found, top = [], program.loop
    if top.n_steps == "traced" and not program.is_traced and top.most > top.bound:
        found.append(r"needed at most max_steps|needed at least \d+ steps?, as n_steps")
    if top.options.get("mode") == "DEBUG" and program.is_traced and top.may_end_early:
        found.append("(?#perhaps)this mode is a Python loop")
    return found


WRAPPERS: dict[str, Callable[[Any], Any]] = {
    "": lambda f: f,
    "jit": jax.jit,
    "optimize": jscan.optimize,
    "checkpoint": jax.checkpoint,
    "function": jscan.function,
    "disable_jit": lambda f: f,
    "vmap": jax.vmap,
    "map": lambda f: lambda *args: jax.lax.map(lambda lane: f(*lane), args),
}


def wrapped(names: str, function: Any) -> Any:
    """The last name is the innermost transform."""
    for name in reversed(names.split() or [""]):
        function = WRAPPERS[name](function)
    return function


def observed(program: Program, numbers: Numbers, lanes: Any) -> Any:
    """What jscan gives in the transform."""

    def plain(point: Any, whole: Any) -> Any:
        if isinstance(point, Tracer):
            tree = numbers.tree(jnp, point, whole)
        else:
            tree = numbers.tree(np, np.asarray(point), list(map(np.asarray, whole)))
            if program.seed % 2:
                tree = jax.tree.map(jnp.asarray, tree)
        return play(Jscan(tree["variables"]), program, tree)

    inner = wrapped(program.inner, plain)

    def cost(point: Any, whole: Any) -> Any:
        seen = inner(point, whole)
        return cost_of(jnp, seen), seen

    direction = jnp.asarray(numbers.direction)

    def transformed(point: Any, whole: Any) -> Any:
        if program.derivative == "value":
            return {"seen": inner(point, whole)}
        if program.derivative == "grad":
            gradient, seen = jax.grad(cost, has_aux=True)(point, whole)
            return {"seen": seen, "slope": direction @ gradient}
        along = lambda p: cost(p, whole)
        if program.derivative == "jvp":
            _, slope, seen = jax.jvp(along, (point,), (direction,), has_aux=True)
            return {"seen": seen, "slope": slope}
        if program.derivative == "linearize":
            _, linear, seen = jax.linearize(along, point, has_aux=True)
            return {"seen": seen, "slope": linear(direction)}
        slope_at = lambda p: direction @ jax.grad(lambda p: along(p)[0])(p)
        slope, curvature = jax.jvp(slope_at, (point,), (direction,))
        seen = inner(point, whole)
        return {"seen": seen, "slope": slope, "curvature": curvature}

    given = lanes[0]
    if _is_batched(program):
        given = jax.tree.map(lambda *values: np.stack(values), *lanes)
    given = jax.tree.map(jnp.asarray, given)
    with _setting(program):
        return wrapped(program.outer, transformed)(*given)


@contextlib.contextmanager
def _setting(program: Program) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        if program.outer == "disable_jit":
            stack.enter_context(jax.disable_jit())
        yield
