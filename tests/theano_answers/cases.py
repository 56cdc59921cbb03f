"""The recorded Theano programs as jscan programs: loops, taps, derivatives, views.

Each function takes the module with the loops (jscan, or the NumPy reference), the
array namespace that goes with it, and the recorded arguments by name.
"""

from collections.abc import Callable
from typing import Any

import jax

CASES: dict[str, Callable[..., Any]] = {}


def case(program: Callable[..., Any]) -> Callable[..., Any]:
    CASES[program.__name__] = program
    return program


# The examples of Theano's loop tutorial, with its numbers.


@case
def tut_tanh(loops, xp, X, W, b):
    return loops.scan(lambda v: xp.tanh(v @ W + b), sequences=X).outputs


@case
def tut_sequence(loops, xp, X, W, Y, U, P, V):
    return loops.scan(
        lambda y, p, h: xp.tanh(h @ W + y @ U + p @ V),
        sequences=[Y, P[::-1]],
        outputs_info=[X],
    ).outputs


@case
def tut_row_norms(loops, xp, X):
    return loops.scan(lambda row: xp.sqrt((row**2).sum()), sequences=[X]).outputs


@case
def tut_col_norms(loops, xp, X):
    return loops.scan(lambda row: xp.sqrt((row**2).sum()), sequences=[X.T]).outputs


@case
def tut_trace(loops, xp, X):
    indices = xp.arange(5)
    outputs, _ = loops.scan(
        lambda i, j, total: X[i, j] + total,
        sequences=[indices, indices],
        outputs_info=0.0,
    )
    return outputs[-1]


@case
def tut_two_taps(loops, xp, X, U, V, W, b, n):
    return loops.scan(
        lambda before, last: before @ U + last @ V + xp.tanh(last @ W + b),
        outputs_info=[dict(initial=X, taps=[-2, -1])],
        n_steps=int(n),
    ).outputs


@case
def tut_jacobian(loops, xp, A, v):
    def row(i):
        return jax.grad(lambda v: xp.tanh(v @ A)[i])(v)

    return loops.scan(row, sequences=[xp.arange(3)]).outputs


@case
def tut_power(loops, xp, A, k):
    outputs, _ = loops.scan(
        lambda power, A: power * A,
        outputs_info=xp.ones_like(A),
        non_sequences=A,
        n_steps=int(k),
    )
    return outputs[-1]


@case
def tut_polynomial(loops, xp, c, x):
    outputs, _ = loops.scan(
        lambda c, power, x: c * x**power,
        sequences=[c, xp.arange(10000)],
        non_sequences=x,
    )
    return outputs.sum()


@case
def tut_polynomial_reduction(loops, xp, c, x):
    outputs, _ = loops.scan(
        lambda c, power, total, x: total + c * x**power,
        sequences=[c, xp.arange(10000)],
        outputs_info=0.0,
        non_sequences=x,
    )
    return outputs[-1]


# Sequences: taps, lengths, direction.


def sequence_taps(name: str, taps: list[int]) -> None:
    def program(loops, xp, x):
        def step(*slices):
            return [slices[0], sum((k + 1) * s**2 for k, s in enumerate(slices))]

        return loops.scan(step, sequences=dict(input=x, taps=taps)).outputs

    CASES[f"seq_taps_{name}"] = program


sequence_taps("past", [-2, -1])
sequence_taps("past_only", [-3, -2])
sequence_taps("future", [0, 2])
sequence_taps("future_only", [2, 3])
sequence_taps("mixed", [-1, 0, 1])
sequence_taps("order", [-3, 2, -1])


@case
def lengths_unequal(loops, xp, x, y, h):
    return loops.scan(
        lambda a, b, h: h * 0.5 + a * b,
        sequences=[x, dict(input=y, taps=[-1])],
        outputs_info=h,
    ).outputs


@case
def n_steps_shorter(loops, xp, x, h):
    return loops.scan(
        lambda a, h: h * a + 1, sequences=x, outputs_info=h, n_steps=3
    ).outputs


@case
def back_state(loops, xp, x, h, w):
    return loops.scan(
        lambda a, h: h * w + a, sequences=x, outputs_info=h, go_backwards=True
    ).outputs


@case
def back_unequal(loops, xp, x, y):
    return loops.scan(
        lambda a, b: a + 10 * b, sequences=[x, y], go_backwards=True
    ).outputs


@case
def back_taps_n_steps(loops, xp, x):
    return loops.scan(
        lambda a, b, c: [a, b * c],
        sequences=dict(input=x, taps=[-1, 0, 1]),
        n_steps=2,
        go_backwards=True,
    ).outputs


# Outputs and states.


@case
def outs_mixture(loops, xp, x, y, h, z, w):
    def step(a, b, h, z_before, z_last, w):
        new = xp.tanh(h * w + b)
        return [a * new.sum(), new, z_before * w - z_last * a + b[0]]

    return loops.scan(
        step,
        sequences=[x, y],
        outputs_info=[None, h, dict(initial=z, taps=[-2, -1])],
        non_sequences=[w],
    ).outputs


@case
def outs_order(loops, xp, x, z, h):
    return loops.scan(
        lambda a, z3, z1, h: [a + h, z3 + 0.5 * z1, z1 * h, h * 0.9 + a],
        sequences=x,
        outputs_info=[None, dict(initial=z, taps=[-3, -1]), None, h],
    ).outputs


@case
def taps_gap(loops, xp, z):
    return loops.scan(
        lambda a, b: a + b, outputs_info=dict(initial=z, taps=[-5, -3]), n_steps=6
    ).outputs


@case
def taps_long_initial(loops, xp, x, z):
    return loops.scan(
        lambda s, last, third: third - 2 * last + s,
        sequences=x,
        outputs_info=dict(initial=z, taps=[-1, -3]),
    ).outputs


@case
def taps_minus_two(loops, xp, x, z, w):
    return loops.scan(
        lambda s, a: a * w + s, sequences=x, outputs_info=dict(initial=z, taps=[-2])
    ).outputs


@case
def state_ignored(loops, xp, x, h, w):
    return loops.scan(
        lambda s, h, w: [w * s + 0 * h, w],
        sequences=x,
        outputs_info=[h, None],
        non_sequences=w,
    ).outputs


@case
def state_int(loops, xp, x, c, h):
    return loops.scan(
        lambda a, c, h: [c + 1, h * 0.5 + a * c], sequences=x, outputs_info=[c, h]
    ).outputs


@case
def state_2d(loops, xp, x, h, W):
    return loops.scan(
        lambda a, h: xp.tanh(h @ W + a), sequences=x, outputs_info=h
    ).outputs


@case
def state_3d(loops, xp, h):
    return loops.scan(lambda h: xp.sin(h) + h.mean(), outputs_info=h, n_steps=3).outputs


@case
def second_one_tap(loops, xp, x, h, w):
    return loops.scan(
        lambda a, h: xp.tanh(h * w) + a * h, sequences=x, outputs_info=h
    ).outputs


@case
def grad_two_taps(loops, xp, z, w):
    return loops.scan(
        lambda a, b: xp.sin(a * w) + b * w,
        outputs_info=dict(initial=z, taps=[-2, -1]),
        n_steps=4,
    ).outputs


# Theano's views of scan.


@case
def map(loops, xp, x, y, w):
    return loops.map(
        lambda a, b, w: [a * b, a - w], sequences=[x, y], non_sequences=[w]
    ).outputs


@case
def reduce(loops, xp, x, z):
    return loops.reduce(
        lambda a, total: a + 10 * total, sequences=x, outputs_info=z
    ).outputs


@case
def reduce_two(loops, xp, x, y, s, p):
    return loops.reduce(
        lambda a, b, s, p: [s + a * b, p * (1 + a), a - b],
        sequences=[x, y],
        outputs_info=[s, p, None],
    ).outputs


@case
def foldl(loops, xp, x, z):
    return loops.foldl(
        lambda a, total: a + 10 * total, sequences=x, outputs_info=z
    ).outputs


@case
def foldr(loops, xp, x, z):
    return loops.foldr(
        lambda a, total: a + 10 * total, sequences=x, outputs_info=z
    ).outputs


# Loops in loops, and one after another.


@case
def nested(loops, xp, M, h, w):
    def outer(row, h, w):
        inner, _ = loops.scan(
            lambda a, s, w: xp.tanh(s + a * w),
            sequences=row,
            outputs_info=h,
            non_sequences=w,
        )
        return inner[-1]

    return loops.scan(outer, sequences=M, outputs_info=h, non_sequences=w).outputs


@case
def chained(loops, xp, x, h, w):
    first, _ = loops.scan(lambda a, h: h * w + a, sequences=x, outputs_info=h)
    second, _ = loops.scan(
        lambda a, h: h * a + w, sequences=first, outputs_info=h, go_backwards=True
    )
    return [second, first]
