"""The recorded Theano programs with shared variables and random draws.

As in `cases.py`; shared variables arrive by name, and a program returns the pair
`(outputs, updates)`.
"""

from collections.abc import Callable
from typing import Any

STATE_CASES: dict[str, Callable[..., Any]] = {}


def case(program: Callable[..., Any]) -> Callable[..., Any]:
    STATE_CASES[program.__name__] = program
    return program


@case
def tut_counter(loops, xp, n, k):
    return loops.scan(lambda: {k: k.value + 1}, n_steps=int(n))


@case
def tut_binomial(loops, xp, X, W, b):
    draw = loops.RandomStreams(1234).binomial(size=(2,))
    return loops.scan(lambda v: xp.tanh(v @ W + b) * draw, sequences=X)


@case
def updates_one(loops, xp, x, c):
    return loops.scan(lambda a: (a + c.value, {c: c.value + 1.0}), sequences=x)


@case
def updates_simultaneous(loops, xp, c, d):
    return loops.scan(
        lambda: ([c.value, d.value], {c: c.value + 1, d: c.value}), n_steps=4
    )


@case
def updates_vector(loops, xp, v, s):
    def step():
        first, second = v.value[0], v.value[1]
        moved = xp.stack([second, first + second])
        return v.value.sum(), {v: moved, s: s.value * 2.0}

    return loops.scan(step, n_steps=5)


@case
def updates_gradient(loops, xp, x, c):
    return loops.scan(lambda a: (a * c.value, {c: c.value + a}), sequences=x)


@case
def updates_nested(loops, xp, c):
    def outer():
        rows, updates = loops.scan(lambda: (c.value, {c: c.value + 1}), n_steps=3)
        return rows, updates

    return loops.scan(outer, n_steps=2)


@case
def updates_final_value(loops, xp, a):
    _, updates = loops.scan(lambda: {a: a.value + 1}, n_steps=10)
    return [updates[a] + 1, a.value + 1], updates
