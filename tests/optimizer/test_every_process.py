"""Processes that run one program together have to make the same of it."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAMS = range(1000, 1030)


def main() -> None:
    """Print a digest of every program, optimized, as XLA gets it."""
    import jax

    from fuzz import optimizer
    from fuzz.choices import Choices
    from support.optimizer.checking import SETUPS, strictly, transforms
    from support.optimizer.machines import KEEN, every_machine

    for seed in PROGRAMS:
        program, transform, name = optimizer.drawn(Choices(seed))
        setup = SETUPS[name]
        with every_machine(KEEN), strictly(), setup.applied():
            program = setup.sized(program)
            optimized = transforms(transform, setup)[1](program.function)
            text = jax.jit(optimized).lower(*program.arguments()).as_text()
        print(seed, hashlib.sha256(text.encode()).hexdigest())


@pytest.mark.any_jax
def test_neither_hashes_nor_addresses_decide():
    """Else collectives would come in another order, and no cache would know a loop."""

    def start(hash_seed: int, junk: int) -> subprocess.Popen:
        keep = f"junk = [object() for _ in range({junk})]"
        call = f"{keep}; from optimizer import test_every_process as t; t.main()"
        path = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
        return subprocess.Popen(
            [sys.executable, "-c", call],
            env={**os.environ, "PYTHONHASHSEED": str(hash_seed), "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            text=True,
        )

    started = [start(1, 0), start(777, 100_003)]
    texts = [process.communicate(timeout=300)[0] for process in started]
    assert len(texts[0].splitlines()) == len(PROGRAMS)
    assert texts[0] == texts[1]
