"""`python -m jscan calibrate`: how this machine differs from that of the shipped costs.

For most kinds of work a loop that does it at each step is timed beside a batch of all
steps at once. What the batch saves by the step, over what it saved on the machine where
the shipped costs were measured, is the factor of this kind of work. How long a batch
takes to start, and its memory, show in its times on few and on many numbers.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict

import jax
import jax.numpy as jnp

from jscan._base.stores import save
from jscan._jax.here import backend_of, here
from jscan._jax.names import JAX_VERSION
from jscan._optimizer.costs.machines import machine_for
from jscan._optimizer.costs.speeds import LEAST, MOST, Speeds
from jscan._optimizer.costs.tables import calibrated_file
from jscan._optimizer.planning.timing import race

_SECONDS = 40.0  # after which no probe is begun
_STEPS = 2000

# Nanoseconds there, by JAX 0.10 and by 0.12: AMD EPYC, two cores, 2026-11-28.
_THERE = {
    "start": (28_000, 25_500),
    "narrow": (34, 35),
    "wide": (209, 336),
    "products": (1950, 1860),
    "draws": (587, 65),
    "memory": (0.32, 0.29),
}
REFERENCE = {kind: both[JAX_VERSION >= (0, 11)] for kind, both in _THERE.items()}

Step = Callable[[jax.Array], jax.Array]


def _cheap(x: jax.Array) -> jax.Array:
    return x + 1


def _draw(x: jax.Array) -> jax.Array:
    seed = jax.lax.bitcast_convert_type(x, jnp.uint32)
    key = jax.random.wrap_key_data(seed, impl="threefry2x32")
    return jax.random.bits(key, (8,), jnp.uint32)


def _product(x: jax.Array) -> jax.Array:
    return x @ jnp.full((x.shape[-1], x.shape[-1]), 0.01, x.dtype)


def _saved(*probes: tuple[Step, tuple[int, ...]]) -> float:
    """Nanoseconds that steps of these kinds, on rows of these shapes, save together."""
    return sum(_saved_by(step, shape) for step, shape in probes)


def _saved_by(step: Step, shape: tuple[int, ...]) -> float:
    rows = jnp.full((_STEPS, *shape), 0.5, jnp.float32)

    def looped(f: Step) -> Step:
        return lambda xs: jax.lax.scan(lambda c, x: (c, f(x)), None, xs)[1]

    forms = {
        "loop": looped(step),
        "batch": jax.vmap(step),
        "cheap loop": looped(_cheap),
        "cheap batch": _cheap,
    }
    programs = {name: jax.jit(f).lower(rows).compile() for name, f in forms.items()}
    times = race(programs, [rows], seconds=1.0, whole=True)
    saved = times["loop"] - times["cheap loop"]
    saved -= times["batch"] - times["cheap batch"]
    return 1e9 * saved / _STEPS


def _per_number(step: Step, size: int) -> float:
    """Nanoseconds of an operation on so many numbers, by the number."""
    numbers = jnp.ones(size, jnp.float32)
    program = jax.jit(step).lower(numbers).compile()
    return 1e9 * race({"it": program}, [numbers], seconds=0.5)["it"] / size


# start: a small batch is divided among threads, too, which wake up for it.
# memory: a large result is memory that is made anew.
PROBES: dict[str, Callable[[], float]] = {
    "start": lambda: (
        2**14 * (_per_number(jnp.sin, 2**14) - _per_number(jnp.sin, 2**20))
    ),
    "narrow": lambda: _saved((jnp.tanh, (8,))),
    "wide": lambda: _saved((jnp.tanh, (256,)), (jnp.sin, (256,))),
    "products": lambda: _saved((_product, (1, 128)), (_product, (16, 32))),
    "draws": lambda: _saved((_draw, (2,))),
    "memory": lambda: (_per_number(_cheap, 2**24) - _per_number(_cheap, 2**20)) / 4,
}


def measure() -> Speeds:
    """The factors of this machine; 1 for what there was no time for."""
    end = time.monotonic() + _SECONDS
    factors = asdict(Speeds())
    for kind, probe in PROBES.items():
        if time.monotonic() > end:
            print(f"  {kind:9} no time was left for it")
            continue
        taken, there = probe(), REFERENCE[kind]
        factors[kind] = round(min(max(taken / there, LEAST), MOST), 3)
        print(
            f"  {kind:9}{factors[kind]:6.2f}   ({taken:.3g} ns, there {there:.3g} ns)"
        )
    return Speeds(**factors)


def calibrate() -> None:
    """Measure this machine and store its table, where there is something to weigh."""
    backend = backend_of()
    if not machine_for(backend).batch_start:
        print(
            f"On {backend} all expensive work leaves a loop: nothing has to be weighed."
        )
        return
    where = f"{here()['device']}, {here()['cores']} cores"
    print(f"Costs on {where}, as factors of those that jscan brings along:")
    speeds, path = measure(), calibrated_file()
    save(path, here(), asdict(speeds))
    print(f"Stored in {path}")
    print("JSCAN_MACHINE=calibrated, or optimize(f, machine='calibrated'), goes by it.")
