"""How one machine differs from those whose costs the tables hold."""

from dataclasses import asdict, dataclass
from typing import Any

from jscan._jax.operations import RANDOM

LEAST, MOST = 0.05, 20.0
"""Limits of a factor: below, a batch saves nothing there; above, something is wrong."""


@dataclass(frozen=True)
class Speeds:
    """Factors of the costs in a table, each 1 where a machine is like those.

    Attributes:
        start: Of what it takes to start a batch.
        narrow: Of what a batch saves at a transcendental function of a narrow row,
            which it computes by vector instructions.
        wide: The same of a wide row, which it divides among cores.
        products: Of what it saves at a product.
        draws: Of what it saves at random numbers.
        memory: Of what a byte of fresh memory takes.
    """

    start: float = 1.0
    narrow: float = 1.0
    wide: float = 1.0
    products: float = 1.0
    draws: float = 1.0
    memory: float = 1.0

    @classmethod
    def read(cls, data: Any) -> "Speeds | None":
        """What a file says; `None` if it says anything else."""
        try:
            speeds = cls(**{name: float(value) for name, value in data.items()})
        except (TypeError, ValueError, AttributeError):
            return None
        within = (LEAST <= factor <= MOST for factor in asdict(speeds).values())
        return speeds if all(within) else None

    def of(self, name: str) -> float:
        """The factor of what a batch saves at an operation that is no function."""
        if name == "dot_general":
            return self.products
        return self.draws if name in RANDOM else 1.0


AS_SHIPPED = Speeds()
