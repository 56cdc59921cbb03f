"""Runs many random programs, one a seed, and says which of them went wrong.

    scripts/fuzz frontend --programs 5000
    scripts/fuzz optimizer --first-seed 40000 --programs 100
    scripts/fuzz frontend --first-seed 17 --programs 1 --shrink

A fault is an answer that differs, or an error that is not an expected refusal. What
was refused is counted by its text, so that a refusal does not hide a fault.
"""

from __future__ import annotations

import argparse
import collections
import importlib
import re
import sys
import time
import traceback
import warnings
from collections.abc import Iterable
from typing import Any

import jax

from fuzz.choices import Choices, shrunk

# What has been compiled is let go from time to time.
PROGRAMS_KEPT = 100


def main() -> int:
    """The exit status is 1 if there were faults."""
    options = _options()
    fuzzer = importlib.import_module(f"fuzz.{options.fuzzer}")
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_numpy_rank_promotion", "raise")
    jax.config.update("jax_numpy_dtype_promotion", "strict")
    warnings.simplefilter("error")
    seeds = range(options.first_seed, options.first_seed + options.programs)
    started = time.monotonic()
    outcomes: collections.Counter[str] = collections.Counter()
    faults: list[int] = []
    for number, seed in enumerate(seeds, 1):  # until an interrupt, if there is one
        try:
            outcomes[fuzzer.run(Choices(seed)) or "agreed"] += 1
        except KeyboardInterrupt:
            seeds = range(options.first_seed, seed)
            break
        except Exception as error:
            faults.append(seed)
            _show(f"seed {seed}: {_summary(error)}")
            if options.shrink:
                _shrink(fuzzer, seed, error)
        if number % PROGRAMS_KEPT == 0:
            jax.clear_caches()
            spent = time.monotonic() - started
            _show(f"-- {number} programs, {len(faults)} faults, {spent:.0f} s")
    for outcome, count in outcomes.most_common():
        _show(f"{count:6} {outcome}")
    _show(
        f"{options.fuzzer}: {len(seeds)} programs from seed {seeds.start}, "
        f"JAX {jax.__version__}: {len(faults)} faults {faults or ''}"
    )
    return bool(faults)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("fuzzer", choices=["frontend", "optimizer"])
    parser.add_argument("--programs", type=int, default=200)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument(
        "--shrink", action="store_true", help="look for the simplest such program"
    )
    return parser.parse_args()


def _shrink(fuzzer: Any, seed: int, error: Exception) -> None:
    """Show the simplest program found that fails in the same way."""
    kind = _kind(error)
    last = error

    def fails(given: list[int]) -> bool:
        nonlocal last
        try:
            fuzzer.run(Choices(given=given))
        except Exception as found:
            if _kind(found) == kind:
                last = found
                return True
        return False

    whole = Choices(seed)
    fuzzer.text(whole)  # takes the same choices
    taken = shrunk(whole.taken, fails)
    _show(f"given={taken}\n{fuzzer.text(Choices(given=taken))}")
    _show("".join(traceback.format_exception(last)))


def _kind(error: Exception) -> str:
    """What stays the same of an error when a program gets simpler."""
    return type(error).__name__ + re.sub(r"[-\d.]+|\[.*", "", _summary(error))[:60]


def _summary(error: Exception) -> str:
    lines: Iterable[str] = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {' / '.join(list(lines)[:4])[:300]}"


def _show(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
