"""Recurrent networks as one writes them with `lax.scan`, and ways to place them."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

STEPS, BATCH, INPUTS, STATE = 64, 64, 48, 128
GATES = {"rnn": "h", "gru": "rzn", "lstm": "ifog"}
PLACEMENTS = ("data", "columns", "rows", "sequence")


def forward(parameters, state, xs):
    """The states of a network with weights for each gate."""
    net = {1: "rnn", 3: "gru", 4: "lstm"}[len(parameters) // 3]

    def step(state, x):
        h = state[0]
        new = _CELLS[net](
            {k: x @ parameters["x" + k] + parameters["b" + k] for k in GATES[net]},
            {k: h @ parameters["h" + k] for k in GATES[net]},
            state,
        )
        return new, new[0]

    return jax.lax.scan(step, state, xs)[1]


def loss(parameters, state, xs):
    return (forward(parameters, state, xs) ** 2).mean()


gradient = jax.grad(loss)


def _rnn(a, b, state):
    del state
    return (jnp.tanh(a["h"] + b["h"]),)


def _gru(a, b, state):
    reset, keep = (jax.nn.sigmoid(a[k] + b[k]) for k in "rz")
    return ((1 - keep) * jnp.tanh(a["n"] + reset * b["n"]) + keep * state[0],)


def _lstm(a, b, state):
    put, forget, out = (jax.nn.sigmoid(a[k] + b[k]) for k in "ifo")
    cell = forget * state[1] + put * jnp.tanh(a["g"] + b["g"])
    return out * jnp.tanh(cell), cell


_CELLS = {"rnn": _rnn, "gru": _gru, "lstm": _lstm}


@dataclass(frozen=True)
class Placed:
    """Arguments of a network, and how each is split over the mesh."""

    values: tuple[Any, Any, Any]
    specs: tuple[Any, Any, Any]

    def on(self, mesh: Mesh) -> tuple[Any, Any, Any]:
        places = jax.tree.map(lambda spec: NamedSharding(mesh, spec), self.specs)
        return jax.tree.map(jax.device_put, self.values, places)


def devices(count: int = 8, kind: AxisType = AxisType.Auto) -> Mesh:
    return jax.make_mesh((count,), ("d",), (kind,), devices=jax.devices()[:count])


def placed(net: str, placement: str) -> Placed:
    """A network split over the axis `d`.

    Args:
        net: `"rnn"`, `"gru"` or `"lstm"`.
        placement: What is split: the batch (`"data"`), the columns of all weights and
            the state (`"columns"`), the rows of all weights and what they are
            multiplied with (`"rows"`), or the steps (`"sequence"`).
    """
    rng = np.random.default_rng(0)

    def some(*shape: int) -> np.ndarray:
        return (rng.normal(size=shape) * 0.1).astype(np.float32)

    parameters = {}
    for gate in GATES[net]:
        parameters["x" + gate] = some(INPUTS, STATE)
        parameters["h" + gate] = some(STATE, STATE)
        parameters["b" + gate] = some(1, STATE)
    state = tuple(some(BATCH, STATE) for _ in range(1 + (net == "lstm")))
    weight, bias, carried, xs = {
        "data": (P(), P(), P("d"), P(None, "d")),
        "columns": (P(None, "d"), P(None, "d"), P(None, "d"), P()),
        "rows": (P("d"), P(), P(None, "d"), P(None, None, "d")),
        "sequence": (P(), P(), P(), P("d")),
    }[placement]
    specs = {k: bias if len(v) == 1 else weight for k, v in parameters.items()}
    return Placed(
        (parameters, state, some(STEPS, BATCH, INPUTS)),
        (specs, (carried,) * len(state), xs),
    )
