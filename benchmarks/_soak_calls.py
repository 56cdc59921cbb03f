"""What the threads of `soak.py` do: calls of every kind, and what must hold after each.

Every thread has an account of its own, an entry of a variable that each of its updates
changes together with others. So it is known after each call, also after one that was
interrupted, whether it was whole.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import random
import threading
import traceback
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jscan

FAULTS = (
    "lost updates",
    "half updates",
    "draws given twice",
    "wrong results",
    "unexpected errors",
    "deadlocks",
)


class Injected(Exception):
    """An error of a step or a callback; nobody else raises it."""


class Interrupt(KeyboardInterrupt):
    """An interrupt; nobody else raises it."""


class World:
    """What all threads share.

    Attributes:
        accounts: How many updates each thread has made.
        pair: Two variables that are always updated together: they stay equal.
        rng: The stream from which all draw.
        calls: The kinds of calls, by name; each takes the thread's `Account`.
        found: How often each fault was found.
        made: How often each kind of call was made, by what became of it.
    """

    def __init__(self, seed: int, threads: int) -> None:
        self.accounts = jscan.shared(np.zeros(threads), name="accounts")
        self.pair = [jscan.shared(np.zeros(3), name=name) for name in ("left", "right")]
        self.rng = jscan.RandomStreams(seed)
        self.calls = _calls(self)
        self.found = dict.fromkeys(FAULTS, 0)
        self.made: collections.Counter[tuple[str, str]] = collections.Counter()
        self._lock = threading.Lock()

    def fault(self, kind: str, text: str) -> None:
        """Count a fault, and say what was seen of the first ones."""
        with self._lock:
            self.found[kind] += 1
            if sum(self.found.values()) <= 10:
                print(f"{kind}: {text}\n", flush=True)

    def more(self, index: Any) -> dict[Any, Any]:
        """The updates that every update makes."""
        new = {variable: variable + 1.0 for variable in self.pair}
        return {**new, self.accounts: self.accounts.value.at[index].add(1.0)}


@dataclasses.dataclass(frozen=True)
class Call:
    """A kind of call.

    Attributes:
        run: Makes it for an account; returns the numbers that were drawn, if any.
        updates: How often it updates the variables.
        weight: How often it is made, beside others.
        fails: Whether it raises `Injected`.
        may_be_interrupted: False where that would break what is not of the package.
    """

    run: Callable[[Account], Any]
    updates: int = 0
    weight: float = 1.0
    fails: bool = False
    may_be_interrupted: bool = True


class Account:
    """What one thread does.

    Attributes:
        index: Its number.
        random: What is random in it.
        value: How many updates it has made.
        draws: What it drew, the latest.
        drawn: How many that were.
    """

    def __init__(self, world: World, index: int, seed: int) -> None:
        self.world = world
        self.index = index
        self.random = random.Random(f"{seed} {index}")
        self.value = 0
        self.draws = np.zeros(1_000_000)
        self.drawn = 0

    def one(self, interrupted: Callable[[Callable[[], Any]], Any]) -> None:
        """Make a call, and look at what it left."""
        calls = self.world.calls
        weights = [call.weight for call in calls.values()]
        (name,) = self.random.choices(list(calls), weights)
        call = calls[name]
        run = functools.partial(call.run, self)
        outcome, steps = "done", (call.updates,)
        try:
            may = call.may_be_interrupted and self.random.random() < 0.2
            drawn = interrupted(run) if may else run()
        except BaseException as error:
            if type(error) is KeyboardInterrupt:
                raise  # the user's own
            text = "".join(traceback.format_exception(error))
            if Interrupt.__name__ in text:  # JAX raises some errors anew, as its own
                outcome, steps = "interrupted", (0, call.updates)
            elif Injected.__name__ in text and call.fails:
                outcome, steps = "failed", (0,)
            else:
                outcome, steps = "other error", (0, call.updates)
                self.world.fault("unexpected errors", f"{name}: {text}")
        else:
            if call.fails:
                self.world.fault("wrong results", f"{name}: the error was lost")
            self._note(drawn)
        self.world.made[name, outcome] += 1
        self._check(name, outcome, steps)

    def _note(self, drawn: Any) -> None:
        for number in () if drawn is None else np.ravel(drawn):
            self.draws[self.drawn % len(self.draws)] = number
            self.drawn += 1

    def _check(self, name: str, outcome: str, steps: tuple[int, ...]) -> None:
        now = int(self.world.accounts.get_value()[self.index])
        if now - self.value not in steps:
            text = f"{name}, {outcome}: {self.value} became {now}"
            self.world.fault("lost updates", text)
        self.value = now

    def equal(self, values: Any) -> None:
        rows = np.asarray(values)
        if len(np.unique(rows)) != 1:
            self.world.fault("half updates", f"left and right are {rows.tolist()}")

    def eager_read(self) -> None:
        left, _ = self.world.pair
        x = jnp.arange(3.0)
        rows = np.asarray(jscan.scan(lambda a: a * 0.0 + left.value, x).outputs)
        if rows.shape != (3, 3) or len(np.unique(rows)) != 1:
            self.world.fault("half updates", f"in one loop left was {rows.tolist()}")

    def bar(self) -> None:
        options = dict(file=_Quiet(), desc=str(self.index))
        x = np.arange(float(self.random.randrange(2, 6)))
        rows = jscan.scan(lambda a, s: s + a, x, 0.0, progress=options).outputs
        self._same("bar", rows, np.cumsum(x))

    def fresh(self, how: str) -> None:
        """A loop that nobody has run, beside the same loop in NumPy."""
        step = _random_step(self.random)
        x = np.linspace(-1.0, 1.0, self.random.randrange(2, 7))
        stop = 0.2 if how == "until" else None

        def loop(x: Any) -> Any:
            def one(a: Any, s: Any) -> Any:
                row = step(jnp, a, s)
                return row if stop is None else (row, jscan.until(row > stop))

            return jscan.scan(one, x, 0.1).outputs

        expected = _rows(step, x, stop)
        if how == "gradient":
            moved = (_rows(step, x + h, None).sum() for h in (1e-6, -1e-6))
            slope = np.subtract(*moved) / 2e-6
            found = jax.grad(lambda x: loop(x).sum())(jnp.asarray(x)).sum()
            self._same(how, found, slope)
        elif how == "optimize":
            budget = self.random.randrange(2**20, 2**21)
            self._same(how, jscan.optimize(loop, memory_budget=budget)(x), expected)
        else:
            self._same(how, loop(x), expected)

    def _same(self, how: str, found: Any, expected: Any) -> None:
        found, expected = np.asarray(found), np.asarray(expected)
        if found.shape != expected.shape or not np.allclose(
            found, expected, 1e-5, 1e-7
        ):
            text = f"{how}: {found.tolist()} for {expected.tolist()}"
            self.world.fault("wrong results", text)


def _calls(world: World) -> dict[str, Call]:
    """The kinds of calls; an update changes the pair and the caller's account."""
    draw, more = world.rng.uniform(), world.more

    def fail(x: Any) -> Any:
        raise Injected

    def from_a_callback(x: Any) -> Any:
        return jax.pure_callback(fail, jax.ShapeDtypeStruct((), float), x)

    def with_account(
        body: Callable[..., Any], **options: Any
    ) -> Callable[[Account], Any]:
        function = jscan.function(body, **options)
        return lambda account: function(account.index)

    def fresh(**options: Any) -> Callable[[Account], Any]:
        return lambda a: jscan.function(lambda: more(a.index), **options)()

    def steps(i: Any) -> Any:
        return jscan.scan(lambda: more(i), n_steps=2).updates

    def drawn_in_steps(i: Any) -> Any:
        rows, updates = jscan.scan(lambda: (draw, more(i)), n_steps=2)
        return rows, updates

    def pair() -> list[Any]:
        return [variable.value for variable in world.pair]

    inner = jscan.function(more)
    sized = jscan.function(lambda n, i: ([jnp.zeros(n)], more(i)))
    read, peek = jscan.function(pair), jscan.function(pair, mode="DEBUG")
    top = Call(lambda _: world.rng.uniform().value)
    return {
        "update": Call(with_account(more), 1, weight=3),
        "in place": Call(with_account(more, donate=True), 1, weight=3),
        "in Python": Call(with_account(more, mode="DEBUG"), 1, weight=2),
        "loop": Call(with_account(steps), 2),
        "loop, in place": Call(with_account(steps, donate=True), 2),
        "inner function": Call(with_account(lambda i: inner(i)), 1),
        "new function": Call(fresh(), 1, weight=0.2),
        "new, in place": Call(fresh(donate=True), 1, weight=0.2),
        "sizes": Call(
            lambda a: sized(a.random.randrange(30), a.index) and None, 1, 0.3
        ),
        "read": Call(lambda a: a.equal(read())),
        "read in Python": Call(lambda a: a.equal(peek())),
        "get_value": Call(lambda _: [v.get_value() for v in world.pair] and None),
        "eager read": Call(Account.eager_read),
        "draw": Call(with_account(lambda _: draw.value)),
        "draw, update": Call(with_account(lambda i: (draw.value, more(i))), 1),
        "draws in steps": Call(with_account(drawn_in_steps), 2),
        "eager draws": Call(lambda _: jscan.scan(lambda: draw, n_steps=3).outputs),
        "draw at top": top,
        "fresh lambda": Call(lambda a: a.fresh("values"), weight=0.3),
        "fresh gradient": Call(lambda a: a.fresh("gradient"), weight=0.2),
        "fresh until": Call(lambda a: a.fresh("until"), weight=0.2),
        "fresh optimize": Call(lambda a: a.fresh("optimize"), weight=0.1),
        "bar": Call(Account.bar, weight=0.2, may_be_interrupted=False),
        "error in a step": Call(
            with_account(lambda i: (jscan.scan(lambda: fail(0), n_steps=2), more(i))),
            fails=True,
            weight=0.3,
        ),
        "error in Python": Call(
            with_account(lambda i: (fail(0), more(i)), mode="DEBUG"), fails=True
        ),
        "error in a callback": Call(
            with_account(lambda i: (from_a_callback(draw.value), more(i))), fails=True
        ),
        "error in an eager loop": Call(
            lambda _: jscan.scan(from_a_callback, jnp.ones(2)).outputs, fails=True
        ),
        "clear_caches": Call(lambda _: jscan.clear_caches(), weight=0.02),
        "jax.clear_caches": Call(
            lambda _: jax.clear_caches(), weight=0.01, may_be_interrupted=False
        ),
    }


class _Quiet:
    """A file for bars."""

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        pass


def _random_step(generator: random.Random) -> Callable[..., Any]:
    """A step ``(xp, a, s) -> row`` of some operations of NumPy's or JAX's."""
    kinds = generator.choices(("add", "scale", "sin", "tanh", "mix"), k=4)
    plan = [(kind, round(generator.uniform(0.2, 0.9), 3)) for kind in kinds]

    def step(xp: Any, a: Any, s: Any) -> Any:
        row = 0.5 * s + a
        for kind, number in plan:
            match kind:
                case "add":
                    row = row + number
                case "scale":
                    row = row * number
                case "mix":
                    row = row * s + number * a
                case _:
                    row = getattr(xp, kind)(row)
        return row

    return step


def _rows(step: Callable[..., Any], x: Any, stop: float | None) -> Any:
    rows, s = [], 0.1
    for a in x:
        s = step(np, a, s)
        rows.append(s)
        if stop is not None and s > stop:
            break
    return np.asarray(rows)
