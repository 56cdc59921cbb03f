"""Runs one program through one transform, optimized and as written."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator
from unittest import mock

import jax
import jax.numpy as jnp

from jscan.optimize import optimize
from optimize.agreement import PROBES, disagreement, perturbed
from optimize.programs import Arrays, Program

Function = Callable[[Arrays, Arrays], object]
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


TRANSFORMS: dict[str, Transform] = {
    "value": lambda f: lambda n, i: optimize(f)(n, i),
    "optimize-grad": lambda f: optimize(gradient(f)),
    "grad-optimize": lambda f: gradient(optimize(f)),
    "optimize-grad-optimize": lambda f: optimize(gradient(optimize(f))),
    "optimize-jvp": lambda f: optimize(tangent(f)),
    "jvp-optimize": lambda f: tangent(optimize(f)),
    "optimize-vmap": lambda f: optimize(batched(f)),
    "vmap-optimize": lambda f: batched(optimize(f)),
}
PLAIN: dict[str, Transform] = {
    "value": lambda f: f,
    "grad": gradient,
    "jvp": tangent,
    "vmap": batched,
}


def plain_transform(name: str) -> Transform:
    """The same transform without `optimize`."""
    return PLAIN[name.replace("optimize", "").strip("-") or "value"]


def run_both(
    written: Function, optimized: Function, arguments: tuple[Arrays, Arrays]
) -> tuple[object, object]:
    """Both results from one executable, compiled fast: LLVM is not under test."""
    both = jax.jit(lambda n, i: (written(n, i), optimized(n, i)))
    options = {"xla_backend_optimization_level": 0}
    return both.lower(*arguments).compile(compiler_options=options)(*arguments)


@contextlib.contextmanager
def strictly() -> Iterator[None]:
    """Failures inside the optimizer are raised, and 64-bit types exist."""
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    try:
        with mock.patch.dict(os.environ, JSCAN_DEBUG="1", JSCAN_OPTIMIZE="1"):
            yield
    finally:
        jax.config.update("jax_enable_x64", before)


@strictly()
def check(program: Program, transform: str) -> None:
    """Fails where a program optimized and as written differ."""
    arguments = program.arguments()
    written = plain_transform(transform)(program.function)
    optimized = TRANSFORMS[transform](program.function)
    plain, result = run_both(written, optimized, arguments)

    def probes() -> Iterator[object]:
        compiled = jax.jit(written)
        for seed in range(PROBES):
            yield compiled(*perturbed(arguments, seed))
        unrolled = dataclasses.replace(program, unroll=max(program.length, 1))
        yield jax.jit(plain_transform(transform)(unrolled.function))(*arguments)

    found = disagreement(plain, result, probes)
    if found is not None:
        loop = jax.make_jaxpr(optimized)(*arguments)
        raise AssertionError(f"{transform}: {found}\n{program}\noptimized:\n{loop}")
