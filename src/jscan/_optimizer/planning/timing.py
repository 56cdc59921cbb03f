"""Programs, compiled and timed beside each other on values of the same types."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jscan._jax.jaxprs import avals_of, open_jaxpr, run_jaxpr
from jscan._jax.marks import marked

_ROUNDS = 100  # at most
_FEW = 3  # after so many, what is far behind is timed no more
_FAR = 1.5
_ENOUGH = 0.4  # seconds of a race that has had its few turns


@dataclass
class Budget:
    """Seconds that measuring may take; a program that compiles cannot be stopped."""

    seconds: float = 0.0
    spent: float = 0.0
    dearest: float = 0.0  # what took longest so far

    @property
    def left(self) -> float:
        """What is left of it."""
        return self.seconds - self.spent

    @property
    def is_over(self) -> bool:
        """Whether no more is begun, as it might take too long."""
        return self.left <= self.dearest

    @contextmanager
    def taking(self) -> Iterator[None]:
        """While something is done that counts."""
        start = time.perf_counter()
        try:
            yield
        finally:
            taken = time.perf_counter() - start
            self.spent += taken
            self.dearest = max(self.dearest, taken)


@contextmanager
def apart() -> Iterator[None]:
    """Where programs run at once although the code stands in a trace.

    What is traced here would hold as constants what it computes of nothing.
    """
    with (
        jax.ensure_compile_time_eval(),
        jax.transfer_guard("allow"),
        jax.debug_nans(False),
        jax.debug_infs(False),
    ):
        yield


def compiled(jaxpr: Any) -> Any:
    """A closed program, as the compiler takes it when it stays as it is."""

    def as_it_is(*values: Any) -> list[Any]:
        return run_jaxpr(jaxpr, *values)

    avals = avals_of(open_jaxpr(jaxpr)[0].invars)
    return jax.jit(marked(as_it_is)).lower(*avals).compile()


def operands_for(avals: Sequence[Any]) -> list[Any]:
    """Values of these types: small numbers, with which sums neither grow nor vanish."""
    rng = np.random.default_rng(0)
    return [_operand(aval, rng) for aval in avals]


def _operand(aval: Any, rng: np.random.Generator) -> Any:
    if jnp.issubdtype(aval.dtype, jax.dtypes.prng_key):
        return _keys(aval)
    if jnp.issubdtype(aval.dtype, jnp.inexact):
        width = max(aval.shape[-2:], default=1)
        return jnp.asarray(rng.uniform(-1, 1, aval.shape) / width**0.5, aval.dtype)
    most = 2 if aval.dtype == bool else 8
    return jnp.asarray(rng.integers(0, most, aval.shape), aval.dtype)


def _keys(aval: Any) -> Any:
    kinds: list[Any] = []
    jax.eval_shape(lambda key: kinds.append(jax.random.key_impl(key)), aval)
    key = jax.random.key(0, impl=kinds[0])
    return jax.random.split(key, aval.size).reshape(aval.shape)


def seconds_of(program: Any, operands: Sequence[Any]) -> float:
    """What one run takes."""
    start = time.perf_counter()
    jax.block_until_ready(program(*operands))
    return time.perf_counter() - start


def race(
    programs: Mapping[str, Any],
    operands: Sequence[Any],
    seconds: float,
    *,
    whole: bool = False,
) -> dict[str, float]:
    """Lower quartiles of runs in turns, so that what disturbs one meets all of them.

    The first run of each counts only if there is no time for more; of long programs
    none but the first two may be run. What is far behind after a few turns does not
    go on. In a `whole` race all are run, to its end.
    """
    start = time.perf_counter()
    passed = lambda: time.perf_counter() - start
    first: dict[str, float] = {}
    for name, program in programs.items():
        if whole or len(first) < 2 or passed() < seconds:
            first[name] = seconds_of(program, operands)
    taken: dict[str, list[float]] = {name: [] for name in first}
    running = list(first)
    for turn in range(_ROUNDS):
        if passed() > (_ENOUGH if turn > _FEW else seconds):
            break
        for name in running:
            taken[name].append(seconds_of(programs[name], operands))
        if turn == _FEW and not whole:
            best = min(map(_quartile, taken.values()))
            running = [n for n in running if _quartile(taken[n]) < _FAR * best]
    return {name: _quartile(taken[name] or [first[name]]) for name in first}


def _quartile(times: list[float]) -> float:
    return sorted(times)[len(times) // 4]
