"""The rules of `scan`, each as one call against the NumPy reference.

`check_scan` looks at values, `jit`, `vmap`, gradient, forward mode and Hessian.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

import jscan
from support import reference
from support.checking import check_scan
from support.comparing import assert_close
from support.programs import numbers

CALLS: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {}


def call(*args: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register `program(loops, xp, *args)`, which runs on jscan and the reference."""

    def register(program: Callable[..., Any]) -> Callable[..., Any]:
        CALLS[program.__name__] = (program, args)
        return program

    return register


@pytest.mark.parametrize("name", CALLS)
def test_call_agrees_with_the_reference_in_every_transform(name):
    program, args = CALLS[name]
    check_scan(
        lambda *args: program(jscan, jnp, *args),
        lambda *args: program(reference, np, *args),
        *args,
    )


@call(numbers(6))
def window_in_written_order(loops, xp, x):
    return loops.scan(
        lambda a, b, c: [a * b, c**3], dict(input=x, taps=[1, -1, 0])
    ).outputs


@call(numbers(6))
def one_tap_as_a_number(loops, xp, x):
    return loops.scan(lambda a: a**2, dict(input=x, taps=-2)).outputs


@call(numbers(6))
def repeated_sequence_tap(loops, xp, x):
    return loops.scan(lambda a, b: a * b, dict(input=x, taps=[0, 0])).outputs


@call(numbers(6), numbers(4, seed=1), numbers(5, 2, seed=2))
def three_lengths_backwards(loops, xp, x, y, z):
    return loops.scan(
        lambda x, before, y, z: [x * y, before * z],
        sequences=[dict(input=x, taps=[0, -1]), y, z],
        go_backwards=True,
    ).outputs


@call(numbers(3, 2), numbers(2, seed=1))
def state_after_map_output(loops, xp, x, h):
    return loops.scan(lambda x, h: [x * h, xp.tanh(x + h)], x, [None, h]).outputs


@call(numbers(5, seed=3), numbers(6, seed=1), numbers(2, seed=2))
def written_order_of_state_taps(loops, xp, x, y, z):
    """A longer initial than needed: the first rows are the ones used."""
    return loops.scan(
        lambda x, last, fifth, before: [last * fifth + x, before**2 - x],
        sequences=x,
        outputs_info=[dict(initial=y, taps=[-1, -5]), dict(initial=z, taps=[-2])],
    ).outputs


@call(numbers(3, 2, 2), numbers(2, 2, seed=1))
def three_states_feed_each_other(loops, xp, z, W):
    return loops.scan(
        lambda a3, a1, b, c, W: [xp.sin(a3 @ W) + c, a1 * b, xp.tanh(b - c)],
        outputs_info=[dict(initial=z, taps=[-3, -1]), W, z[0]],
        non_sequences=[W],
        n_steps=4,
    ).outputs


@call({"a": numbers(4), "b": numbers(4, 2, seed=1)}, {"h": numbers(2, 2, seed=2)})
def trees_with_taps(loops, xp, rows, initial):
    def step(now, after, before, last):
        total = xp.tanh(now["a"] * last["h"] + after["b"] * before["h"])
        return [{"h": total}, now["a"] * after["a"]]

    return loops.scan(
        step,
        sequences=dict(input=rows, taps=[0, 1]),
        outputs_info=[dict(initial=initial, taps=[-2, -1]), None],
    ).outputs


class Pair(NamedTuple):
    left: Any
    right: Any


@call(numbers(3), numbers(3, seed=1), numbers(seed=2))
def named_tuples_are_one_sequence_and_one_output(loops, xp, x, y, h):
    def step(rows, state):
        new = xp.sin(state.left + rows.left) * rows.right
        return Pair(new, state.right + new)

    return loops.scan(step, Pair(x, y), Pair(h, 2 * h)).outputs


@call(numbers(3))
def nested_list_is_one_output(loops, xp, x):
    return loops.scan(lambda x: (x, [x**2, (x**3, x)]), x).outputs


@call(numbers(4), numbers(seed=1))
def step_returns_its_arguments(loops, xp, x, h):
    """The old state as an output: the initial, then the rows shifted by one."""
    return loops.scan(lambda x, h: [h, xp.sin(h) + x, x], x, [None, h, None]).outputs


@call(numbers(4), numbers(seed=1))
def same_value_as_state_and_as_output(loops, xp, x, h):
    def step(x, h):
        new = xp.sin(h) * x
        return [new, new]

    return loops.scan(step, x, [h, None]).outputs


@call(numbers(seed=1), numbers(3, seed=2))
def gradient_only_through_a_captured_weight(loops, xp, h, w):
    return loops.scan(lambda h: w.sum() + 0 * h, outputs_info=h, n_steps=3).outputs


@call(numbers(3), numbers(seed=1))
def no_argument_but_the_captured_ones(loops, xp, w, c):
    return loops.scan(lambda: w * xp.sin(c), n_steps=3).outputs


@call(numbers(4, 3), numbers(3, seed=1))
def inner_loop_with_taps_over_the_row(loops, xp, rows, z):
    def outer(row, z):
        inner, _ = loops.scan(
            lambda a, before, last: xp.tanh(before + last * a),
            sequences=row,
            outputs_info=dict(initial=z, taps=[-3, -1]),
        )
        return inner

    return loops.scan(outer, sequences=rows, outputs_info=[z]).outputs


@call(numbers(5), numbers(3, seed=1))
def gather_with_an_integer_sequence(loops, xp, x, w):
    index = xp.asarray([2, 0, 1, 2, 2])
    return loops.scan(lambda i, x: w[i] * x**2, [index, x]).outputs


@call(numbers())
def sixteenth_power_by_four_squarings(loops, xp, x):
    return loops.scan(lambda p: p**2, outputs_info=x + 1, n_steps=4).outputs


@call(numbers(4), numbers(6, seed=1))
def all_views(loops, xp, x, y):
    step = lambda a, b, total: a * b + xp.sin(total)
    start = xp.asarray(0.5)
    return [
        loops.map(lambda a, b: [a + b, a * b], [x, y], go_backwards=True).outputs,
        loops.reduce(step, [x, y], start).outputs,
        loops.reduce(step, [x, y], start, go_backwards=True).outputs,
        loops.foldl(step, [x, y], start).outputs,
        loops.foldr(step, [x, y], start).outputs,
        loops.reduce(lambda a: a**2, x, None).outputs,
    ]


STEPS = {"zero": 0, "one": 1, "two": 2}


@pytest.mark.parametrize("n_steps", STEPS.values(), ids=STEPS)
@pytest.mark.parametrize("go_backwards", [False, True], ids=["forwards", "backwards"])
def test_few_steps_with_taps_ahead(n_steps, go_backwards):
    """The literal one is an ordinary loop; zero steps give zero rows of full width."""
    x, z = numbers(5, 2), numbers(3, 2, seed=1)

    def program(loops, x, z):
        return loops.scan(
            lambda after, third, last: [after * last, third + after],
            sequences=dict(input=x, taps=[2]),
            outputs_info=[None, dict(initial=z, taps=[-3, -1])],
            n_steps=n_steps,
            go_backwards=go_backwards,
        ).outputs

    check_scan(
        lambda x, z: program(jscan, x, z), lambda x, z: program(reference, x, z), x, z
    )


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8", "bool", "complex64"])
def test_state_keeps_its_type(dtype):
    """Every type may be a state; the rows come back in it."""
    x = np.asarray([3, 0, 1, 5]).astype(dtype)

    def program(loops):
        return loops.scan(
            lambda a, b, h: [h | a if dtype == "bool" else h * b + a, a],
            sequences=dict(input=x, taps=[0, 1]),
            outputs_info=[x[0], None],
        ).outputs

    assert_close(program(jscan), program(reference), 1e-6)
