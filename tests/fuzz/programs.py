"""A random program: a call, shared variables around it, and what is done with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from fuzz import steps
from fuzz.choices import Choices
from fuzz.generate import kind_of, loop_of
from fuzz.loops import FLOATS, Kind, Loop
from fuzz.worlds import Jscan

DERIVATIVES = ("value", "value", "grad", "grad", "jvp", "linearize", "hvp")
INNER = ("", "", "", "jit", "optimize", "checkpoint")
OUTER = ("", "", "jit", "jit", "optimize", "function", "vmap", "jit vmap", "vmap jit")
OUTER += ("map", "disable_jit", "optimize jit", "jit optimize")


@dataclass(frozen=True)
class Program:
    """A call, the shared variables around it, and what is done with it."""

    loop: Loop
    variables: tuple[Kind, ...]
    derivative: str
    inner: str
    outer: str
    seed: int

    @property
    def is_traced(self) -> bool:
        """Whether the number of steps is only known when the program runs."""
        return self.outer != "disable_jit" and bool(self.inner + self.outer)


def drawn(choices: Choices) -> Program:
    variables = tuple(choices.many(lambda: kind_of(choices), 0, 2))
    loop = loop_of(choices, len(variables))
    derivative, outer = choices.pick(DERIVATIVES), choices.pick(OUTER)
    inner = choices.pick(INNER) if outer != "disable_jit" else ""
    if derivative == "hvp" and any(x.may_end_early for x in loop.and_inner()[1:]):
        # JAX 0.10 loses, in a `lax.scan`, the derivative rule of the loop within.
        derivative = derivative if jax.__version_info__ >= (0, 12) else "grad"
    return Program(loop, variables, derivative, inner, outer, choices.below(1000))


def play(world: Any, program: Program, tree: Any) -> Any:
    """Make the call; what can be seen of it."""
    world.kinds = program.variables
    steps.make_draws(world, program.loop, tree["loop"])
    result = steps.call(world, program.loop, tree["loop"])
    updates = {
        f"variable {n}": result.updates[variable]
        for n, variable in enumerate(world.variables)
        if variable in result.updates
    }
    seen = {
        "outputs": result.outputs,
        "updates": updates,
        "n_steps": result.n_steps,
        "counters": world.counters(),
    }
    has_rows = program.loop.outputs and not program.loop.gives_last
    if isinstance(world, Jscan) and has_rows and program.seed % 3 == 0:
        seen["mask"], seen["filled"] = result.mask, result.filled(0)
    return seen


def cost_of(xp: Any, seen: Any) -> Any:
    """What is differentiated: outputs and updates, each number with a weight."""
    total = xp.zeros((), "float64")
    leaves = jax.tree.leaves([seen["outputs"], seen["updates"]])
    for place, leaf in enumerate(leaves):
        if str(leaf.dtype) not in FLOATS:
            continue
        weights = np.cos(np.arange(leaf.size) + place).reshape(leaf.shape)
        total = total + (leaf.real.astype("float64") * weights).sum()
        if str(leaf.dtype).startswith("complex"):
            total = total + (leaf.imag.astype("float64") * (weights - 0.3)).sum()
    return total
