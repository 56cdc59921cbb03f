"""What does optimizing cost before the first call?

Two figures a program. *Build* is what a user waits for: tracing, rewriting, lowering
and compiling, with and without the optimizer. *Own time* is the optimizer's part,
traced and lowered with it minus without it, as a share of XLA's compile time.
Every build starts from empty caches; the two programs take turns.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp

import _timing
from jscan import optimize
from workloads import WORKLOADS, Function
from workloads.networks import fused_lstm, gru, lstm, rnn

NAMES = (
    "tutorial/map tanh(x @ W + b)",
    "tutorial/Gibbs sampling",
    "series/AR(8)",
    "series/GARCH(1,1)",
    "filter/Kalman d=4",
    "equation/Lorenz by Runge-Kutta",
    "network/language model, loss in the loop",
    "network/both directions",
    "control/loop in a loop",
)
HEADER = (
    "program",
    "equations",
    "build, plain",
    "build, optimized",
    "ratio",
    "own time",
)


@dataclasses.dataclass(frozen=True)
class Builds:
    """Repeated builds of one program, plain and optimized in turns."""

    plain: list[_timing.Program]
    optimized: list[_timing.Program]

    def median(self, side: str, part: str) -> float:
        """Median of one part of one side, in seconds."""
        return statistics.median(getattr(p, part) for p in getattr(self, side))

    @property
    def extra_seconds(self) -> float:
        """How much longer the optimized program takes to build."""
        return self.median("optimized", "build_seconds") - self.median(
            "plain", "build_seconds"
        )

    @property
    def ratio(self) -> float:
        """Median over the turns of optimized / plain build time."""
        pairs = zip(self.plain, self.optimized, strict=True)
        return statistics.median(b.build_seconds / a.build_seconds for a, b in pairs)

    @property
    def own_share(self) -> float:
        """The optimizer's own time over XLA's compile time of the plain program."""
        pairs = zip(self.plain, self.optimized, strict=True)
        own = statistics.median(b.lower_seconds - a.lower_seconds for a, b in pairs)
        return own / self.median("plain", "compile_seconds")


def programs() -> Iterator[tuple[str, Function, tuple[object, ...]]]:
    """The gradients of some workloads and of the four kinds of network."""
    networks = {"rnn": rnn, "gru": gru, "lstm": lstm, "fused lstm": fused_lstm}
    for name, make in networks.items():
        problem = make(64, 8, 64)
        yield f"{name}, forward", problem.function, problem.arguments
        yield f"{name}, gradient", problem.gradient(), problem.arguments
    for workload in WORKLOADS:
        if workload.name in NAMES:
            # Compile time does not depend on the number of steps.
            problem = workload.problem(quick=True)
            yield f"{workload.name}, forward", problem.function, problem.arguments
            if workload.gradient is not None:
                name = f"{workload.name}, gradient"
                yield name, problem.gradient(), problem.arguments
    yield from large_programs()


def large_programs() -> Iterator[tuple[str, Function, tuple[object, ...]]]:
    """Very many loops, very deep ones, and a very long step, and their gradients."""
    rows, w = jnp.linspace(0.0, 1.0, 50), jnp.float32(0.5)

    def many(w: jax.Array) -> jax.Array:
        x = rows
        for number in range(200):
            step = lambda h, v, number=number: (jnp.tanh(h * w + v + number),) * 2
            x = jax.lax.scan(step, 0.1 * w, x)[1]
        return x.sum()

    def deep(w: jax.Array, level: int = 6) -> jax.Array:
        if not level:
            return jnp.sin(w)
        step = lambda h, v: (jnp.tanh(h + deep(h * v, level - 1)),) * 2
        return jax.lax.scan(step, w, rows[:3])[1][-1]

    def long(w: jax.Array) -> jax.Array:
        def step(h: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array]:
            for number in range(1000):
                h = jnp.sin(h) * w if number % 2 else h + v * number
            return h, h

        return jax.lax.scan(step, w, rows)[1].sum()

    programs = {"200 loops": many, "6 loops deep": deep, "a step of 2,000": long}
    for name, function in {**programs, **long_steps()}.items():
        yield f"large/{name}, forward", function, (w,)
        yield f"large/{name}, gradient", jax.grad(function), (w,)


def long_steps() -> dict[str, Callable[[jax.Array], jax.Array]]:
    """Steps of 2,000 operations of other kinds."""
    matrix = 0.1 * jnp.sin(jnp.arange(64.0)).reshape(8, 8)
    vectors = jnp.cos(jnp.arange(400.0)).reshape(50, 8)

    def products(w: jax.Array) -> jax.Array:
        def step(h: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array]:
            for number in range(250):
                h = jnp.tanh(h @ (w * matrix) + v * number)
                h = h + 0.1 * jnp.take(matrix, jnp.argmax(h), axis=0, mode="clip")
            return h, h.sum()

        return jax.lax.scan(step, vectors[0], vectors)[1].sum()

    @jax.jit
    def cell(h: jax.Array, v: jax.Array, w: jax.Array) -> jax.Array:
        return jnp.tanh(h * w + v) * jax.nn.sigmoid(h - v)

    def calls(w: jax.Array) -> jax.Array:
        def step(h: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array]:
            for number in range(300):
                h = jax.nn.silu(cell(h, v * number, w))
            return h, h

        return jax.lax.scan(step, w, vectors[:, 0])[1].sum()

    return {"2,000 with products": products, "2,000 in calls": calls}


def builds(
    function: Function,
    arguments: tuple[object, ...],
    repeats: int,
    clock: Callable[[], float] = time.perf_counter,
) -> Builds:
    """Builds the program `repeats` times each way, from empty caches."""
    sides = Builds([], [])
    for turn in range(repeats + 1):
        for into, candidate in (
            (sides.plain, function),
            (sides.optimized, optimize(function)),
        ):
            jax.clear_caches()
            program = _timing.build(candidate, arguments, clock)
            if turn:  # the first turn fills the caches of Python and of LLVM
                into.append(program)
    return sides


def count_equations(function: Function, arguments: tuple[object, ...]) -> int:
    """Equations of the traced program, those of inner programs included."""

    def count(jaxpr: object) -> int:
        total = 0
        for equation in getattr(jaxpr, "eqns", ()):
            total += 1
            for value in jax.tree.leaves(
                list(equation.params.values()), is_leaf=lambda x: hasattr(x, "jaxpr")
            ):
                total += count(getattr(value, "jaxpr", value))
        return total

    return count(jax.make_jaxpr(function)(*arguments).jaxpr)


def main() -> None:
    how = _timing.settings(__doc__ or "")
    _timing.print_machine()
    repeats = 1 if how.quick else 5
    clock = time.process_time if how.cpu else time.perf_counter
    measured: dict[str, Builds] = {}

    def cells() -> Iterator[list[str]]:
        for name, function, arguments in programs():
            if not how.wants(name) or (how.quick and len(measured) >= 2):
                continue
            sides = measured[name] = builds(function, arguments, repeats, clock)
            yield [
                name,
                str(count_equations(function, arguments)),
                _timing.duration(sides.median("plain", "build_seconds")),
                _timing.duration(sides.median("optimized", "build_seconds")),
                f"{sides.ratio:.2f}x",
                f"{100 * sides.own_share:.0f}%",
            ]

    _timing.table(HEADER, cells())
    over = {
        name: sides
        for name, sides in measured.items()
        if sides.extra_seconds > 0.3 * sides.median("plain", "build_seconds") + 0.05
    }
    print(f"\nmore than 1.3x plus 50 ms: {len(over)} of {len(measured)}")
    for name, sides in over.items():
        print(f"  {name}: {sides.ratio:.2f}x")


if __name__ == "__main__":
    main()
