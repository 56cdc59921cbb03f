"""Does anything break in a process that calls jscan from several threads for long?

Threads make random calls: functions that update variables that all share, in place and
not, draws from one stream, loops with fresh lambdas, errors in steps and in callbacks,
interrupts, caches that are too small and caches that are cleared. Each line of the
second table is a number of faults, and all must be 0; if one is not, the exit status
is 1. Now and then all threads rest, and what they have done is added up; every other
time the caches are cleared, and what is left of the memory is looked at.
"""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import faulthandler
import gc
import logging
import os
import random
import signal
import sys
import threading
import time
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("JSCAN_CACHE_SIZE", "16")  # so that much is thrown out
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")  # many calls

import jax
import numpy as np

import _timing
import jscan
from _soak_calls import FAULTS, Account, Interrupt, World

OURS = str(Path(jscan.__file__).parent)
HELPERS = ("contextlib.py", "threading.py")  # where they work for the package
PATIENCE = 240.0  # seconds after which a call is taken for a deadlock
RESTS = 8


def is_ours(frame: Any) -> bool:
    """Whether a frame belongs to the package, or works for it."""
    while frame is not None and frame.f_code.co_filename.endswith(HELPERS):
        frame = frame.f_back
    return frame is not None and frame.f_code.co_filename.startswith(OURS)


def by_count(generator: random.Random) -> Callable[[Callable[[], Any]], Any]:
    """Interrupts a call before the n-th line of the package.

    Not before an opcode: several threads that trace those crash Python 3.12.1.
    """

    def interrupted(call: Callable[[], Any]) -> Any:
        left = int(10 ** generator.uniform(0, 4))

        def enter(frame: Any, _: str, __: Any) -> Any:
            return step if is_ours(frame) else None

        def step(_: Any, what: str, __: Any) -> Any:
            nonlocal left
            left -= what == "line"
            if not left:
                sys.settrace(None)
                raise Interrupt
            return step

        sys.settrace(enter)
        try:
            return call()
        finally:
            sys.settrace(None)

    return interrupted


def by_signal(generator: random.Random) -> Callable[[Callable[[], Any]], Any]:
    """Interrupts a call of the main thread by a signal, once it is in the package."""
    armed = False

    def handler(_: int, frame: Any) -> None:
        nonlocal armed
        if frame.f_code is handler.__code__:
            return
        if armed and is_ours(frame):
            armed = False
            raise Interrupt
        if armed:  # soon
            signal.setitimer(signal.ITIMER_REAL, 1e-4)

    def interrupted(call: Callable[[], Any]) -> Any:
        nonlocal armed
        try:
            armed = True
            signal.setitimer(signal.ITIMER_REAL, 10 ** generator.uniform(-5, -1))
            return call()
        finally:
            armed = False
            signal.setitimer(signal.ITIMER_REAL, 0.0)

    signal.signal(signal.SIGALRM, handler)
    return interrupted


@dataclasses.dataclass(frozen=True)
class Memory:
    """What is in use while all threads rest and the caches are empty."""

    python: float  # MiB, as tracemalloc counts them
    arrays: int
    resident: float  # MiB of the process

    @classmethod
    def now(cls) -> Memory:
        jscan.clear_caches()
        jax.clear_caches()
        _forget_failed_traces()
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        # An array that was read as a number is two to JAX 0.10, with one memory.
        arrays = {array.unsafe_buffer_pointer() for array in jax.live_arrays()}
        return cls(
            tracemalloc.get_traced_memory()[0] / _timing.MEBIBYTE,
            len(arrays),
            pages * os.sysconf("SC_PAGE_SIZE") / _timing.MEBIBYTE,
        )


def _forget_failed_traces() -> None:
    """JAX keeps each trace that ended in an error, with the arrays it closed over.

    So do `jax.jit(f)(x)` and an `f` that adds an array to `x` and raises. What holds
    them are the finalizers of their tracers; no trace is going on now.
    """
    for finalizer in list(weakref.finalize._registry):  # type: ignore[attr-defined]
        known = finalizer.peek()
        if known and getattr(known[1], "__name__", "") == "finalize_const":
            finalizer.detach()


# Growth that is none: the fragments of a heap, what others keep for good, and what a
# call keeps that is made for the first time, as many are late in a run of one minute.
ALLOWED = Memory(python=4.0, arrays=0, resident=100.0)


class Soak:
    """The threads, and the one that watches them."""

    def __init__(self, seed: int, threads: int) -> None:
        self.world = World(seed, threads)
        self.accounts = [Account(self.world, index, seed) for index in range(threads)]
        self.begun = [time.monotonic()] * threads
        self.rest: threading.Barrier | None = None
        self.over = False
        self.samples: list[Memory] = []

    def work(self, index: int, interrupted: Callable[..., Any]) -> None:
        """Make calls until it is over."""
        account = self.accounts[index]
        while not self.over:
            self.begun[index] = time.monotonic()
            account.one(interrupted)
            if self.rest is not None:
                rest = self.rest
                rest.wait()
                rest.wait()

    def watch(self, seconds: float) -> None:
        """Let all rest now and then; end it all when the time is over."""
        for rests in range(RESTS):
            self._sleep(seconds / RESTS)
            rest = self.rest = threading.Barrier(len(self.accounts) + 1)
            while rest.n_waiting < len(self.accounts):
                self._sleep(0.01)
            rest.wait()
            self.rest = None
            self.check()
            if rests % 2:
                self.samples.append(Memory.now())
            self.begun = [time.monotonic()] * len(self.begun)
            self.over = rests == RESTS - 1
            rest.wait()

    def _sleep(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (now := time.monotonic()) < end:
            time.sleep(min(1.0, end - now))
            if now - min(self.begun) > PATIENCE:
                faulthandler.dump_traceback(all_threads=True)
                self.world.fault("deadlocks", f"a call of {PATIENCE:g} s")
                self.report()
                os._exit(1)

    def check(self) -> None:
        """While nobody calls: what all threads have done together."""
        world = self.world
        made = [account.value for account in self.accounts]
        pair = np.array([variable.get_value() for variable in world.pair])
        if world.accounts.get_value().tolist() != made:
            world.fault("lost updates", f"{world.accounts.get_value()} of {made}")
        if (pair != sum(made)).any():
            world.fault("half updates", f"left and right are {pair}, of {sum(made)}")
        drawn = [account.draws[: account.drawn] for account in self.accounts]
        numbers = np.concatenate(drawn)
        twice = len(numbers) - len(np.unique(numbers))
        if twice:
            world.fault("draws given twice", f"{twice} of {len(numbers)}")
        if world.rng.state.value.counter < sum(a.drawn for a in self.accounts):
            world.fault("draws given twice", "the stream is behind its draws")

    def grown(self) -> Iterator[tuple[str, str]]:
        """Each kind of memory, early and at the end, and whether it has grown."""
        early, last = self.samples[: len(self.samples) // 2], self.samples[-1]
        for name in ("python", "arrays", "resident"):
            before = max(getattr(sample, name) for sample in early)
            after = getattr(last, name)
            is_more = after > before + getattr(ALLOWED, name)
            text = f"growth of memory, {name}: {before:.1f} to {after:.1f}"
            yield text, str(int(is_more))

    def report(self) -> bool:
        """Print what was found; whether that was nothing."""
        world = self.world
        outcomes = ("done", "interrupted", "failed", "other error")
        rows = [[n, *(str(world.made[n, o]) for o in outcomes)] for n in world.calls]
        totals = [sum(int(row[i]) for row in rows) for i in range(1, 5)]
        _timing.table(("calls", *outcomes), [*rows, ["all", *map(str, totals)]])
        drawn = sum(account.drawn for account in self.accounts)
        updates = sum(account.value for account in self.accounts)
        cpu = time.process_time()
        print(f"\n{drawn} draws, {updates} updates, {cpu:.0f} s of processor time\n")
        found = [(kind, str(world.found[kind])) for kind in FAULTS]
        if self.over:
            found += self.grown()
        _timing.table(("faults", "found"), found)
        return all(number == "0" for _, number in found)


def _end_all(failed: Any) -> None:
    """Nothing goes on when a thread has ended by an error."""
    sys.excepthook(failed.exc_type, failed.exc_value, failed.exc_traceback)
    os._exit(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="one minute, for CI")
    given = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    logging.getLogger("jax").setLevel(logging.CRITICAL)  # it tells of failed callbacks
    _timing.print_machine()
    faulthandler.enable()
    tracemalloc.start()
    soak = Soak(given.seed, given.threads)
    generators = [random.Random(i) for i in range(given.threads)]
    seconds = 60.0 * (1.0 if given.quick else given.minutes)
    others = [threading.Thread(target=soak.watch, args=(seconds,), daemon=True)]
    for index in range(1, given.threads):
        arguments = index, by_count(generators[index])
        others.append(threading.Thread(target=soak.work, args=arguments, daemon=True))
    threading.excepthook = _end_all
    for thread in others:
        thread.start()
    soak.work(0, by_signal(generators[0]))
    for thread in others:
        thread.join()
    sys.exit(not soak.report())


if __name__ == "__main__":
    main()
