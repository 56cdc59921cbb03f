"""An exception out of a signal handler, at every point of every kind of call.

A trace function raises where a handler could: before a line, before an opcode. After
it, whatever was called is as if it had not been called, or as if it had ended; and
everything works, in this thread and in others.
"""

import functools
import random
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jscan

# What runs on behalf of a call: the package, and what it uses in Python for state.
OURS = (str(Path(jscan.__file__).parent), "contextlib.py", "threading.py")

pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"  # raised in a weakref's callback
)


class Interrupt(KeyboardInterrupt):
    """Nobody else raises it."""


def is_ours(frame: Any) -> bool:
    """Whether a frame belongs to the package, or works for it.

    Not those that work for others: a lock of tqdm's that is left held stays so.
    """
    while frame is not None and frame.f_code.co_filename.endswith(OURS[1:]):
        frame = frame.f_back
    return frame is not None and frame.f_code.co_filename.startswith(OURS[0])


def comes_from_an_interrupt(error: BaseException) -> bool:
    """Compiled code of JAX raises some errors anew, as errors of its own."""
    return Interrupt.__name__ in "".join(traceback.format_exception(error))


class Interrupted:
    """Makes a call, and interrupts it before its n-th line or opcode.

    Attributes:
        points: Lines or opcodes before the end or the interrupt.
        where: Where it was interrupted, or None.
    """

    def __init__(self, call: Callable[[], object], point: float, event: str) -> None:
        self.points, self.where = 0, None
        self._point, self._event = point, event
        before = sys.gettrace()
        sys.settrace(self._enter)
        try:
            call()
        except Interrupt:
            pass
        except Exception as error:
            if not comes_from_an_interrupt(error):
                raise
        finally:
            sys.settrace(before)

    def _enter(self, frame: Any, event: str, argument: Any) -> Any:
        if not is_ours(frame):
            return None
        frame.f_trace_opcodes = self._event == "opcode"
        return self._step

    def _step(self, frame: Any, event: str, argument: Any) -> Any:
        if event == self._event:
            self.points += 1
            if self.points == self._point:
                self.where = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
                sys.settrace(None)
                raise Interrupt
        return self._step


class State:
    """Three variables that always have the same value, and the calls that use them."""

    def __init__(self) -> None:
        self.variables = [jscan.shared(np.zeros(2), name=f"v{i}") for i in range(3)]
        self.rng = jscan.RandomStreams(1)
        draw = self.rng.uniform()
        x = jnp.ones(4)

        def more():
            return {v: v + 1.0 for v in self.variables}

        def total():
            return sum(v.value.sum() for v in self.variables)

        def decay(a, h):
            return h * 0.9 + a

        def watched(bar):
            return jscan.scan(decay, x, 0.0, progress=bar)

        bar = dict(file=Quiet())
        self.update = jscan.function(more)
        self.donate = jscan.function(more, donate=True)
        self.calls: dict[str, Callable[[], object]] = {
            "update": self.update,
            "donate": self.donate,
            "read": jscan.function(total),
            "argument": functools.partial(jscan.function(lambda a: (a, more())), x),
            "loop": jscan.function(lambda: jscan.scan(more, n_steps=1)),
            "draws": jscan.function(lambda: (draw.value, more())),
            "debug": jscan.function(more, mode="DEBUG"),
            "debug, reads": jscan.function(total, mode="DEBUG"),
            "apply": lambda: jscan.Updates(more()).apply(),
            "get_value": lambda: [v.get_value() for v in self.variables],
            "grad": lambda: jscan.grad(total, self.variables),
            "fresh": lambda: jscan.function(more)(),
            "eager": lambda: jscan.scan(decay, x, 0.0),
            "eager DEBUG": lambda: jscan.scan(decay, x, 0.0, mode="DEBUG"),
            "eager draws": lambda: jscan.scan(lambda: draw, n_steps=3),
            "bar": lambda: watched(bar),
            # With another bar it is another program.
            "fresh bar": lambda: watched(dict(file=Quiet())),
        }

    def value(self) -> float:
        """The one value, if there is one."""
        rows = np.array([v.get_value() for v in self.variables])
        assert len(np.unique(rows)) == 1, f"half an update: {rows[:, 0]}"
        return float(rows[0, 0])

    def check(self, name: str, before: float) -> None:
        """Everything works, here and in another thread."""
        assert self.value() in (before, before + 1.0)
        assert not jax.config.jax_disable_jit  # type: ignore[attr-defined]
        now = self.value()
        started = time.monotonic()
        thread = threading.Thread(target=self._use, daemon=True)
        thread.start()
        thread.join(30.0)
        assert not thread.is_alive(), "another thread hangs"
        assert time.monotonic() - started < 10.0
        assert self.value() == now + 2.0
        self._use()
        self.variables[0].set_value(np.full(2, now + 4.0))  # refused in a trace
        assert self.value() == now + 4.0
        counter = int(self.rng.state.value.counter)
        jscan.scan(lambda: self.rng.uniform(), n_steps=2)
        assert int(self.rng.state.value.counter) == counter + 2

    def _use(self) -> None:
        self.update()
        self.donate()


class Quiet:
    """A file for bars."""

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        pass


@pytest.fixture(scope="module")
def state() -> State:
    made = State()
    # Python 3.12 reports no opcodes to the first trace that asks for them.
    Interrupted(made.update, float("inf"), "opcode")
    return made


NAMES = list(State().calls)


# All but one by opcode, too: that one compiles at each point.
POINTS = [(name, event) for name in NAMES for event in ("line", "opcode")]
POINTS.remove(("fresh bar", "opcode"))


@pytest.mark.parametrize(("name", "event"), POINTS)
def test_interrupt_at_every_point(state: State, name: str, event: str):
    """At most so many points: spread evenly over the call, the ends of it whole."""
    call = state.calls[name]
    call()
    state.check(name, state.value())
    count = Interrupted(call, float("inf"), event).points
    assert count > 20
    ends = 20
    points = {*range(1, ends), *range(count - ends, count + 1)}
    points |= {*range(ends, count, max(1, count // 40))}
    reached = 0
    for point in sorted(points):
        before = state.value()
        done = Interrupted(call, point, event)
        reached += done.where is not None
        try:
            state.check(name, before)
        except BaseException as error:
            error.add_note(f"{name}: interrupted at {done.where}, {event} {point}")
            raise
    assert reached > 0.8 * len(points)


@pytest.mark.parametrize("name", ["update", "donate", "loop", "debug", "apply"])
def test_signals_at_random_moments(state: State, name: str):
    """Real signals; those that come while JAX's own code runs may break JAX itself."""
    call = state.calls[name]
    call()
    started = time.perf_counter()
    call()
    takes = time.perf_counter() - started
    armed = [False]

    def handler(_: int, frame: Any) -> None:
        if armed[0] and is_ours(frame):
            armed[0] = False
            raise Interrupt
        if armed[0]:  # soon
            signal.setitimer(signal.ITIMER_REAL, 1e-5)

    generator, interrupts = random.Random(0), 0

    def interrupted() -> None:
        try:
            armed[0] = True
            signal.setitimer(signal.ITIMER_REAL, generator.uniform(1e-5, 1.5 * takes))
            call()
        finally:
            armed[0] = False
            signal.setitimer(signal.ITIMER_REAL, 0.0)

    before = signal.signal(signal.SIGALRM, handler)
    try:
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            value = state.value()
            try:
                interrupted()
            except BaseException as error:
                if not comes_from_an_interrupt(error):
                    raise
                interrupts += 1
            assert state.value() in (value, value + 1.0)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert interrupts > 10
    state.check(name, state.value())


def test_a_donated_value_is_never_lost():
    """Between the program and the store there is no point at which both are gone."""
    W = jscan.shared(np.zeros(2), name="W")
    add = jscan.function(lambda: {W: W + 1.0}, donate=True)
    add()
    count = Interrupted(add, float("inf"), "opcode").points
    stored = 0
    for point in range(1, count + 1):
        before = W.get_value()[0]
        Interrupted(add, point, "opcode")
        after = W.get_value()[0]
        assert after in (before, before + 1.0)
        stored += after > before
    assert 0 < stored < count


def test_the_turn_of_a_call_that_was_interrupted_is_taken_over():
    """Not before its function is over; and then whatever became of the turn."""
    from jscan._base.turns import Turn, to_update

    W = jscan.shared(0.0, name="W")
    inside, go, left = threading.Event(), threading.Event(), threading.Event()

    def call() -> None:
        turn = Turn(to_update((W,)))
        turn.__enter__()  # and never leaves it
        inside.set()
        assert go.wait(30)

    def hold() -> None:
        call()
        left.set()
        assert go.wait(30)

    holder = threading.Thread(target=hold)
    holder.start()
    assert inside.wait(30)
    setter = threading.Thread(target=lambda: W.set_value(1.0))
    setter.start()
    setter.join(0.3)
    assert setter.is_alive()
    go.set()
    setter.join(30)
    assert W.get_value() == 1.0
    assert left.wait(30)
    holder.join(30)


def test_error_in_the_step_leaves_nothing(state: State):
    """An ordinary error at any depth is no different."""

    def fail():
        raise ArithmeticError("no")

    before = state.value()
    for mode in (None, "DEBUG"):
        call = jscan.function(
            lambda: (jscan.scan(lambda: fail(), n_steps=2), state.variables), mode=mode
        )
        with pytest.raises(ArithmeticError), nullcontext():
            call()
        state.check("error", before)
        before = state.value()
