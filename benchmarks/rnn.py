"""How much faster do recurrent networks run, forward and gradient?

The grid has a tanh network, a GRU and an LSTM (gates apart and gates fused), one to 64
rows, 64 to 512 units. Where torch is installed, its LSTM takes its turn in each round
of the LSTM rows: it packs the weights once and uses both cores, which XLA cannot.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable, Iterator

import jax

import _timing
from jscan import optimize
from workloads import Problem
from workloads.networks import fused_lstm, gru, lstm, rnn

FAMILIES: dict[str, Callable[[int, int, int], Problem]] = {
    "rnn": rnn,
    "gru": gru,
    "lstm": lstm,
    "fused lstm": fused_lstm,
}

# Steps, rows, units: as many steps as keep a call below half a second.
SHAPES = [
    (2048, 1, 64),
    (512, 1, 128),
    (512, 1, 256),
    (256, 1, 512),
    (512, 8, 64),
    (512, 8, 128),
    (512, 8, 256),
    (128, 8, 512),
    (256, 32, 64),
    (256, 32, 128),
    (256, 32, 256),
    (64, 32, 512),
    (256, 64, 128),
    (128, 64, 256),
    (64, 64, 512),
]
QUICK_SHAPES = [(8, 8, 16)]

HEADER = (
    "network",
    "steps, rows, units",
    "pass",
    "plain, a step",
    "plain / optimized [quartiles]",
    "plain / torch",
    "temporary MiB",
)


@dataclasses.dataclass(frozen=True)
class Row:
    """One cell of the grid."""

    family: str
    shape: tuple[int, int, int]
    direction: str
    plain: _timing.Program
    optimized: _timing.Program
    timings: dict[str, _timing.Timing]

    @property
    def ratio(self) -> float:
        """How many times faster the optimized program is."""
        return self.timings["optimized"].ratio

    def cells(self) -> list[str]:
        """The row as the table shows it."""
        torch = self.timings.get("torch")
        temp = [_timing.mebibytes(p.temp_bytes) for p in (self.plain, self.optimized)]
        return [
            self.family,
            ", ".join(map(str, self.shape)),
            self.direction,
            _timing.duration(self.timings["plain"].seconds / self.shape[0]),
            str(self.timings["optimized"]),
            "" if torch is None else f"{torch.ratio:.2f}x",
            " → ".join(temp),
        ]


def torch_lstm(
    shape: tuple[int, int, int], how: _timing.Settings
) -> dict[str, Callable[[], object]]:
    """Torch's LSTM of the same size on the CPU; nothing without torch."""
    if importlib.util.find_spec("torch") is None:
        return {}
    import torch

    if how.cpu:  # its waiting threads spin, which would count as work
        torch.set_num_threads(1)
    return torch_network("LSTM", shape, "cpu")


def torch_network(
    name: str, shape: tuple[int, int, int], device: str
) -> dict[str, Callable[[], object]]:
    """A network of torch: forward, and gradient of the sum of squares."""
    import torch

    length, batch, hidden = shape
    network = getattr(torch.nn, name)(hidden, hidden).to(device)
    xs = torch.randn(length, batch, hidden, device=device)
    finish = torch.cuda.synchronize if device == "cuda" else lambda: None

    def forward() -> object:
        with torch.no_grad():
            outputs = network(xs)[0]
        finish()
        return outputs

    def gradient() -> object:
        network.zero_grad()
        network(xs)[0].square().sum().backward()
        finish()
        return network.weight_hh_l0.grad

    return {"forward": forward, "gradient": gradient}


def rows(how: _timing.Settings) -> Iterator[Row]:
    """Measures the grid."""
    for family, make in FAMILIES.items():
        for shape in QUICK_SHAPES if how.quick else SHAPES:
            if not how.wants(f"{family} {','.join(map(str, shape))}"):
                continue
            torch = torch_lstm(shape, how) if "lstm" in family else {}
            problem = make(*shape)
            directions = {
                "forward": problem.function,
                "gradient": problem.gradient(),
            }
            for direction, function in directions.items():
                plain = _timing.build(function, problem.arguments)
                optimized = _timing.build(optimize(function), problem.arguments)
                calls = {"plain": plain.call, "optimized": optimized.call}
                if direction in torch:
                    calls["torch"] = torch[direction]
                timings = _timing.measure(calls, how)
                yield Row(family, shape, direction, plain, optimized, timings)
            jax.clear_caches()


def summary(measured: list[Row]) -> None:
    """Prints geometric means by number of rows."""
    print()
    for direction in ("forward", "gradient"):
        for label, batches in (("1 and 8", (1, 8)), ("32 and 64", (32, 64))):
            ratios = [
                one.ratio
                for one in measured
                if one.direction == direction and one.shape[1] in batches
            ]
            if ratios:
                mean = _timing.geometric_mean(ratios)
                print(
                    f"{direction}, {label} rows: geometric mean {mean:.2f}x, "
                    f"least {min(ratios):.2f}x, most {max(ratios):.2f}x"
                )


def main() -> None:
    how = _timing.settings(__doc__ or "")
    _timing.print_machine()
    measured: list[Row] = _timing.collected(HEADER, rows(how))
    summary(measured)


if __name__ == "__main__":
    main()
