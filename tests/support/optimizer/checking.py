"""Runs one program through one transform, optimized and as written."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
from jax.extend import core

from jscan import optimize
from jscan._jax import operations as _work
from jscan._optimizer import PASS_NAMES
from jscan._optimizer.costs import layouts as _layouts
from jscan._optimizer.costs.unrolling import Launches
from jscan._optimizer.passes.hoist import cut_rows as _cut_rows
from jscan._optimizer.passes.save_memory import logsumexp as _logsumexp
from support.compiling import AS_USERS_DO, QUICKLY
from support.optimizer.agreement import PROBES, disagreement, perturbed
from support.optimizer.machines import SHIPPED, every_machine
from support.optimizer.programs import Arrays, Program

Function = Callable[[Arrays, Arrays], Any]
Transform = Callable[[Function], Function]


def cost(function: Function) -> Callable[[Arrays, Arrays], jax.Array]:
    """A real number to differentiate: weighted sums of all float results."""

    def total(numbers: Arrays, integers: Arrays) -> jax.Array:
        result = jnp.zeros(())
        for leaf in jax.tree.leaves(function(numbers, integers)):
            if jnp.issubdtype(leaf.dtype, jnp.inexact):
                weight = jnp.linspace(0.5, 1.5, leaf.size).reshape(leaf.shape)
                result = result + jnp.sum(leaf.real.astype(weight.dtype) * weight)
        return result

    return total


def gradient(function: Function) -> Function:
    return lambda numbers, integers: jax.grad(cost(function))(numbers, integers)


def tangent(function: Function) -> Function:
    def pushed(numbers: Arrays, integers: Arrays) -> object:
        tangents = [jnp.ones_like(a) for a in numbers]
        return jax.jvp(lambda n: function(n, integers), (numbers,), (tangents,))

    return pushed


def batched(function: Function) -> Function:
    def stacked(numbers: Arrays, integers: Arrays) -> object:
        if not numbers:
            return function(numbers, integers)
        pairs = [jnp.stack([a, a * 0.5]) for a in numbers]
        return jax.vmap(function, (0, None))(pairs, integers)

    return stacked


@dataclasses.dataclass(frozen=True)
class Setup:
    """How the optimizer is called.

    Attributes:
        keen: Whether the cost model finds that everything pays: what is sound must be
            so whatever it costs, and small programs alone would rarely be rewritten.
        joins: Whether products are put together and transposed whatever their size,
            and none is written as a sum.
        shipped: Whether the cost model is the one of a user, with all its thresholds,
            and loops are so long that some of them are passed.
        memory_budget: As `optimize` takes it.
        passes: As `optimize` takes them.
        machine: The platform whose costs are used, wherever the test runs.
    """

    keen: bool = False
    joins: bool = False
    shipped: bool = False
    memory_budget: int | None = None
    passes: tuple[str, ...] | None = None
    machine: str = "cpu"

    def optimize(self, function: Function) -> Function:
        """`jscan.optimize` with these options."""
        return optimize(function, passes=self.passes, memory_budget=self.memory_budget)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """The cost model as keen as asked for."""
        with contextlib.ExitStack() as patches:
            changes: dict[str, Any] = dict(_KEEN if self.keen else {})
            changes |= _JOINS if self.joins else {}
            machine = SHIPPED[self.machine]
            if not self.shipped:
                changes["batch_start"] = 0  # every batch pays
            if isinstance(machine.unrolling, Launches):
                soon = dataclasses.replace(machine.unrolling, shortest=2)
                changes["unrolling"] = soon
            machine = dataclasses.replace(machine, **changes)
            patches.enter_context(every_machine(machine))
            cheap = _nothing_is_cheap() if self.keen else ()
            for patch in (*cheap, *(_any_layout() if self.joins else ())):
                patches.enter_context(patch)
            yield

    def sized(self, program: Program) -> Program:
        """The program in the size that the setup is meant for."""
        longer = LONGER if self.shipped else 1
        return dataclasses.replace(program, length=program.length * longer)


_KEEN = {
    "smallest_side": 2,
    "smallest_outer_product": 1,
    "products_a_row": 0,
    "chunk_bytes": 200,
    "joined_bytes": 10**9,
    "joined_dot": 1024,
    "cut_rows": 1,
    "whole_rows": 0,
}
_JOINS = {
    "smallest_side": 2,
    "small_dot": 0,
    "small_sum": 0,
    "transposed_rows": 1,
    "transposed_vector": 1,
    "threaded_dot": 1,
    "threaded_vector": 1,
    "fewest_lags": 1,
    "whole_rows": 1,
}
LONGER = 50
WITHOUT_LIBRARY: Any = {**AS_USERS_DO, "xla_cpu_experimental_ynn_fusion_type": ""}


def _nothing_is_cheap() -> Iterator[Any]:
    yield mock.patch.object(_work, "_CHEAP", frozenset())
    yield mock.patch.object(_cut_rows, "_FEWEST_STEPS", 1)
    yield mock.patch.object(_logsumexp, "keeps_logsumexp_rows", return_value=None)


def _any_layout() -> Iterator[Any]:
    yield mock.patch.object(_layouts, "_TINY", 1)
    yield mock.patch.object(_layouts, "_STORED", 0.0)
    yield mock.patch.object(_layouts, "_SMALL", 1)


SETUPS = {
    "default": Setup(),
    "keen": Setup(keen=True),
    "keen-little-memory": Setup(keen=True, memory_budget=500),
    "joins": Setup(joins=True),
    "shipped": Setup(shipped=True),
    "associate": Setup(passes=PASS_NAMES),
    "gpu": Setup(machine="gpu"),
}

# `f` is the program, `o` optimizes.
TRANSFORMS: dict[str, Callable[[Transform], Transform]] = {
    "value": lambda o: lambda f: o(f),
    "optimize-grad": lambda o: lambda f: o(gradient(f)),
    "grad-optimize": lambda o: lambda f: gradient(o(f)),
    "optimize-grad-optimize": lambda o: lambda f: o(gradient(o(f))),
    "optimize-jvp": lambda o: lambda f: o(tangent(f)),
    "jvp-optimize": lambda o: lambda f: tangent(o(f)),
    "optimize-vmap": lambda o: lambda f: o(batched(f)),
    "vmap-optimize": lambda o: lambda f: batched(o(f)),
}
NAMES = tuple(TRANSFORMS)

PLAIN: dict[str, Transform] = {
    "value": lambda f: f,
    "grad": gradient,
    "jvp": tangent,
    "vmap": batched,
}


def transforms(name: str, setup: Setup) -> tuple[Transform, Transform]:
    """A transform of a program without and with the optimizer."""
    plain = PLAIN[name.replace("optimize", "").strip("-") or "value"]
    return plain, TRANSFORMS[name](setup.optimize)


def run_both(
    written: Function,
    optimized: Function,
    arguments: tuple[Arrays, Arrays],
    options: Any,
) -> tuple[Any, Any]:
    """Both results from one executable."""
    both = jax.jit(lambda n, i: (written(n, i), optimized(n, i)))
    return both.lower(*arguments).compile(compiler_options=options)(*arguments)


@contextlib.contextmanager
def strictly() -> Iterator[None]:
    """Failures inside the optimizer are raised, and 64-bit types exist."""
    before = jax.config.jax_enable_x64  # type: ignore[attr-defined]
    jax.config.update("jax_enable_x64", True)
    try:
        with mock.patch.dict(os.environ, JSCAN_DEBUG="1", JSCAN_OPTIMIZE="1"):
            yield
    finally:
        jax.config.update("jax_enable_x64", before)


@strictly()
def check(program: Program, transform: str, setup: Setup = SETUPS["default"]) -> None:
    """Fails where a program optimized and as written differ."""
    program = setup.sized(program)
    arguments = numbers, integers = program.arguments()
    plainly, optimized = transforms(transform, setup)
    written = plainly(program.function)

    def both(options: Any) -> tuple[Any, Any]:
        with setup.applied():
            function = optimized(program.function)
            return run_both(written, function, arguments, options)

    def probes() -> Iterator[object]:
        compiled = jax.jit(written)
        for seed in range(PROBES):
            yield compiled(perturbed(numbers, seed), integers)
        # XLA makes 0 of what is 0 * inf, where it sees both factors.
        traced, tree = jax.make_jaxpr(written, return_shape=True)(*arguments)
        one_by_one = core.jaxpr_as_fun(traced)(*jax.tree.leaves(arguments))
        yield jax.tree.unflatten(jax.tree.structure(tree), one_by_one)
        unrolled = dataclasses.replace(program, unroll=min(program.length, 8) or 1)
        yield jax.jit(plainly(unrolled.function))(numbers, integers)

    narrow = any(line.operation == "narrow" for line in program.body)
    unit = float(jnp.finfo(jnp.bfloat16).eps) / 8 if narrow else 0.0
    found = disagreement(*both(QUICKLY), probes, unit)
    if found is not None:
        # Compiled quickly, XLA may round one value in two ways, once for each reader,
        # and then it is not equal to itself. What counts is what users run.
        found = disagreement(*both(AS_USERS_DO), probes, unit)
    if found is not None:
        # The library that XLA hands large reductions to drops NaN (`extremes.py`).
        _, result = both(AS_USERS_DO)
        compiled = jax.jit(written).lower(*arguments).compile(WITHOUT_LIBRARY)
        found = disagreement(compiled(*arguments), result, probes, unit)
    if found is not None:
        with setup.applied():
            loop = jax.make_jaxpr(optimized(program.function))(*arguments)
        raise AssertionError(
            f"{transform}, {setup}: {found}\n{program}\noptimized:\n{loop}"
        )
