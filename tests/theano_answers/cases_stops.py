"""The recorded Theano programs that stop early, cut gradients or keep checkpoints.

As in `cases.py`. Programs of `UNTIL_CASES` stop by themselves.
"""

from collections.abc import Callable
from typing import Any

UNTIL_CASES: dict[str, Callable[..., Any]] = {}
TRUNCATE_CASES: dict[str, Callable[..., Any]] = {}
CHECKPOINT_CASES: dict[str, Callable[..., Any]] = {}


def until_case(program: Callable[..., Any]) -> Callable[..., Any]:
    UNTIL_CASES[program.__name__] = program
    return program


def truncate_case(program: Callable[..., Any]) -> Callable[..., Any]:
    TRUNCATE_CASES[program.__name__] = program
    return program


@until_case
def until_map(loops, xp, x):
    return loops.scan(lambda a: (a * 10, loops.until(a >= 3)), sequences=x)


@until_case
def until_never(loops, xp, x):
    return loops.scan(lambda a: (a * 10, loops.until(a > 99)), sequences=x)


@until_case
def until_state(loops, xp, h, w, top):
    return loops.scan(
        lambda h, w, top: (h * w, loops.until(h * w > top)),
        outputs_info=h,
        non_sequences=[w, top],
        n_steps=100,
    )


@until_case
def until_multi(loops, xp, z, c):
    def step(a, b):
        return [a + b, a * b], {c: c.value + 1}, loops.until(a + b > 20)

    return loops.scan(
        step, outputs_info=[dict(initial=z, taps=[-2, -1]), None], n_steps=50
    )


@until_case
def until_truncate(loops, xp, h, w):
    return loops.scan(
        lambda h, w: (h * w + 1, loops.until(h * w + 1 > 30)),
        outputs_info=h,
        non_sequences=w,
        n_steps=40,
        truncate_gradient=2,
    )


def truncated_state(name: str, k: int, **options: Any) -> None:
    def program(loops, xp, x, h, w):
        return loops.scan(
            lambda a, h: h * w + a,
            sequences=x,
            outputs_info=h,
            truncate_gradient=k,
            **options,
        )

    TRUNCATE_CASES[name] = program


for k in (1, 2, 3, 4, 5, 10):
    truncated_state(f"truncate_k{k}", k)
truncated_state("truncate_k2_last", 2)
truncated_state("truncate_k3_row2", 3)
truncated_state("truncate_k2_back", 2, go_backwards=True)
truncated_state("truncate_k2_n_steps", 2, n_steps=4)


def truncated_map_and_taps(k: int) -> None:
    def program_map(loops, xp, x, w):
        return loops.scan(
            lambda a, w: a * a * w,
            sequences=x,
            non_sequences=w,
            truncate_gradient=k,
        )

    def program_taps(loops, xp, x, z, w):
        return loops.scan(
            lambda a, p, q: p * w + q * (w + 1) + a,
            sequences=x,
            outputs_info=dict(initial=z, taps=[-2, -1]),
            truncate_gradient=k,
        )

    TRUNCATE_CASES[f"truncate_map_k{k}"] = program_map
    TRUNCATE_CASES[f"truncate_two_taps_k{k}"] = program_taps


for k in (1, 2, 3):
    truncated_map_and_taps(k)


@truncate_case
def truncate_taps_reach_initial(loops, xp, x, z, w):
    return loops.scan(
        lambda a, q, p: q * w + p * (w + 1) + a,
        sequences=x,
        outputs_info=dict(initial=z, taps=[-1, -3]),
        truncate_gradient=3,
    )


@truncate_case
def truncate_seq_taps(loops, xp, x, h):
    return loops.scan(
        lambda before, after, h: h * 0.5 + before * after,
        sequences=dict(input=x, taps=[-1, 1]),
        outputs_info=h,
        truncate_gradient=2,
    )


@truncate_case
def truncate_mixture(loops, xp, x, h, z, w):
    return loops.scan(
        lambda a, h, p, q: [xp.tanh(h * w + a), p * w + q * h, a * w * h],
        sequences=x,
        outputs_info=[h, dict(initial=z, taps=[-2, -1]), None],
        truncate_gradient=2,
    )


def checkpoints(n_steps: int, every: int) -> None:
    def program(loops, xp, A):
        return loops.scan_checkpoints(
            lambda power, A: power * A,
            outputs_info=[xp.ones_like(A)],
            non_sequences=[A],
            n_steps=n_steps,
            save_every_N=every,
        )

    CHECKPOINT_CASES[f"checkpoints_{n_steps}_by_{every}"] = program


checkpoints(5, 2)
checkpoints(6, 3)
checkpoints(3, 10)
