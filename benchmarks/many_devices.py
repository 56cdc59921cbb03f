"""What would a step cost on up to 1,024 devices? A calculation, not a measurement.

The formulas say which collectives a step of one recurrent layer takes part in, under
data, tensor and time parallelism; a test holds their bytes to what XLA compiles for 2,
4 and 8 devices. The times follow from them by the rates of a device that is made up:
they say how the three ways compare, and not how fast anything is.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

import _timing
from jscan import optimize, scan

FLOAT = 4  # bytes


@dataclasses.dataclass(frozen=True)
class Size:
    """Steps, rows and units of a layer; its two matrices are `units` squared."""

    steps: int
    rows: int
    units: int

    @property
    def state(self) -> int:
        """Bytes of one state."""
        return FLOAT * self.rows * self.units

    @property
    def weights(self) -> int:
        """Bytes of both matrices, and of their gradients."""
        return FLOAT * 2 * self.units**2

    @property
    def flops(self) -> int:
        """Of the products of a step of training, forward and backward."""
        return 3 * 2 * self.steps * self.rows * 2 * self.units**2


@dataclasses.dataclass(frozen=True)
class Collective:
    """What all devices do together, `times` a step of training."""

    kind: str
    times: int
    bytes: int


@dataclasses.dataclass(frozen=True)
class Device:
    """Rates of a device that is made up, in the order of what is sold in 2026."""

    flops: float = 200e12
    iteration: float = 5e-6  # seconds of an iteration that computes next to nothing
    links: tuple[float, float] = (300e9, 40e9)  # bytes a second: in a host, between
    latencies: tuple[float, float] = (3e-6, 10e-6)
    in_a_host: int = 8


def data(size: Size, devices: int) -> list[Collective]:
    """Each has some rows of the batch: gradients and the loss are added up, once."""
    del devices
    return [Collective("all-reduce", 1, size.weights + FLOAT)]


def tensor(size: Size, devices: int) -> list[Collective]:
    """Each has some columns of the weights: every step needs the whole state."""
    del devices
    return [
        Collective("all-gather", size.steps, size.state),  # before a product
        Collective("all-reduce", size.steps, size.state),  # behind its derivative
        Collective("all-gather", 1, size.steps * size.state),  # for the gradients
        Collective("all-reduce", 1, FLOAT),
    ]


def time(size: Size, devices: int) -> list[Collective]:
    """Each has some of the steps: what they do to a state is gathered from all."""
    parts = Collective("all-gather", 4, devices * size.state)  # 2 forward, 2 backward
    return [parts, *data(size, devices)]


WAYS = {"data": data, "tensor": tensor, "time": time}


def traffic(way: str, size: Size, devices: int) -> int:
    """Bytes that the collectives of one step of training give a device."""
    found = WAYS[way](size, devices) if devices > 1 else []
    return sum(each.times * each.bytes for each in found)


def seconds(way: str, size: Size, devices: int, one: Device | None = None) -> float:
    """A step of training: products, iterations, collectives, one after the other."""
    one = one or Device()
    total = size.flops / devices / one.flops
    iterations = 2 * size.steps
    if way == "time":  # up and down a tree over the steps of a part, and over parts
        iterations = 2 * 2 * math.ceil(math.log2(size.steps / devices) + 1)
        iterations += 2 * 2 * math.ceil(math.log2(devices))
    total += iterations * one.iteration
    far = devices > one.in_a_host
    for each in WAYS[way](size, devices) if devices > 1 else ():
        rounds = 2 if each.kind == "all-reduce" else 1
        sent = rounds * each.bytes * (devices - 1) / devices
        wait = rounds * math.ceil(math.log2(devices)) * one.latencies[far]
        total += each.times * (sent / one.links[far] + wait)
    return total


def step(way: str, size: Size) -> tuple[Any, tuple[Any, Any], tuple[Any, Any]]:
    """A step of training that is split so: the function, values, where they lie.

    Under time parallelism it is a linear recurrence with learned factors.
    """

    def cost(weights: Any, xs: jax.Array) -> jax.Array:
        start = jnp.zeros(xs.shape[1:])
        if way == "time":
            factors = jax.nn.sigmoid(xs @ weights[0])
            decay = lambda a, x, h: a * h + x
            states = scan(decay, [factors, xs @ weights[1]], start).outputs
        else:
            cell = lambda x, h, w, u: jnp.tanh(x @ w + h @ u)
            states = scan(cell, xs, start, list(weights)).outputs
        return (states**2).mean()

    passes = "default+associate" if way == "time" else None
    keys = jax.random.split(jax.random.key(0), 3)
    square = (size.units, size.units)
    weights = tuple(0.1 * jax.random.normal(key, square) for key in keys[:2])
    xs = jax.random.normal(keys[2], (size.steps, size.rows, size.units))
    places = {
        "data": (P(), P(None, "d")),
        "tensor": (P(None, "d"), P()),
        "time": (P(), P("d")),
    }
    new = optimize(jax.value_and_grad(cost), passes=passes)
    return new, (weights, xs), places[way]


LAYER = Size(steps=8192, rows=1024, units=1024)
COUNTS = (1, 8, 64, 256, 1024)


def rows(size: Size = LAYER) -> Iterator[list[str]]:
    """The table of the documentation."""
    for devices in COUNTS:
        cells = [f"{devices:,}"]
        for way in WAYS:
            sent = traffic(way, size, devices)
            took = 1e3 * seconds(way, size, devices)
            cells += [f"{took:,.0f} ms, {sent / 2**20:,.0f} MiB"]
        yield cells


def main() -> None:
    _timing.settings(__doc__ or "")
    print(f"a calculation: {LAYER}, {Device()}\n")
    header = ("devices", *(f"{way} parallel" for way in WAYS))
    _timing.table(header, rows())


if __name__ == "__main__":
    main()
