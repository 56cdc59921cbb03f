"""What a workload is, and the list that the modules of this package fill."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

Function = Callable[..., object]

NEVER_SLOWER = 0.95
OLD_JAX = jax.__version__.startswith("0.10.")


@dataclasses.dataclass(frozen=True)
class Problem:
    """A loop as a good JAX programmer writes it first, with its arguments.

    Attributes:
        function: `function(parameters, data)`; contains at least one loop.
        parameters: What the gradient is taken for, a pytree of float arrays.
        data: Everything else.
        steps: Iterations of the (innermost) loop in one call.
    """

    function: Function
    parameters: object
    data: object
    steps: int

    @property
    def arguments(self) -> tuple[object, object]:
        """The arguments of `function`, and of its gradient."""
        return self.parameters, self.data

    def gradient(self) -> Function:
        """The gradient of the sum of squares of the outputs."""

        def cost(parameters: object, data: object) -> jax.Array:
            outputs = jax.tree.leaves(self.function(parameters, data))
            floats = [x for x in outputs if jnp.issubdtype(x.dtype, jnp.floating)]
            return sum((jnp.sum(x * x) for x in floats), start=jnp.float32(0))

        return jax.grad(cost)


@dataclasses.dataclass(frozen=True)
class Workload:
    """A named problem in two sizes, and the least speed-ups asked of it.

    Attributes:
        name: Row name, `family/case`.
        make: Builds the problem with a number of steps.
        length: Steps when measured.
        quick_length: Steps in a smoke run.
        forward: Least ratio plain / optimized.
        gradient: The same for the gradient; `None` where there is no gradient.
    """

    name: str
    make: Callable[[int], Problem]
    length: int
    quick_length: int
    forward: float
    gradient: float | None

    def problem(self, quick: bool, steps: int | None = None) -> Problem:
        """The problem in the asked size, of at most so many steps."""
        length = self.quick_length if quick else self.length
        return self.make(length if steps is None else min(length, steps))


WORKLOADS: list[Workload] = []


def workload(
    name: str,
    length: int,
    *,
    quick_length: int = 16,
    forward: float = NEVER_SLOWER,
    gradient: float | None = NEVER_SLOWER,
) -> Callable[[Callable[[int], Problem]], Callable[[int], Problem]]:
    """Adds the decorated builder to `WORKLOADS`."""

    def register(make: Callable[[int], Problem]) -> Callable[[int], Problem]:
        WORKLOADS.append(Workload(name, make, length, quick_length, forward, gradient))
        return make

    return register


def normal(*shape: int, scale: float = 1.0, seed: int = 0) -> jax.Array:
    """Float32 noise that is the same in every run."""
    draw = np.random.default_rng((seed, *shape)).standard_normal(shape)
    return jnp.asarray(scale * draw, jnp.float32)


def matrix(rows: int, columns: int, seed: int = 0) -> jax.Array:
    """A weight matrix that keeps the scale of what it multiplies."""
    return normal(rows, columns, scale=1 / np.sqrt(rows), seed=seed)


def integers(high: int, *shape: int) -> jax.Array:
    """Integers in `[0, high)` that are the same in every run."""
    draw = np.random.default_rng(shape).integers(0, high, shape)
    return jnp.asarray(draw, jnp.int32)
