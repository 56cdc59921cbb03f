"""Taps that reach far back, in loops shorter and longer than the reach.

Such states are remembered in other ways than short windows. Whichever way is chosen,
the values and derivatives are those of the reference.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

import jscan
from support import reference
from support.checking import check_scan
from support.comparing import assert_close
from support.programs import numbers


def mixed(xp: Any, *arguments: Any) -> Any:
    """A bounded function in which every argument counts differently."""
    return xp.sin(sum((0.4 + 0.3 * n) * a for n, a in enumerate(arguments)))


@pytest.mark.parametrize(
    ("taps", "n_steps"),
    [
        ([-40], 17),
        ([-40], 97),
        ([-1, -40], 39),
        ([-1, -40], 40),
        ([-1, -40], 41),
        ([-40, -1], 120),
        ([-3, -50, -20], 130),
        ([-33, -34], 70),
        ([-9, -1], 30),
        ([-40, -1], 0),
        ([-40, -1], 1),
    ],
    ids=str,
)
def test_one_state(taps, n_steps):
    z = numbers(-min(taps) + 2)  # two rows more than are used

    def program(loops, xp, z):
        return loops.scan(
            lambda *past: mixed(xp, *past),
            outputs_info=dict(initial=z, taps=taps),
            n_steps=n_steps,
        ).outputs

    check_scan(
        lambda z: program(jscan, jnp, z),
        lambda z: program(reference, np, z),
        z,
        batch=False,
        second=False,
    )


def everything(loops, xp, x, y, z, v, h, **options):
    """Two long states beside a short one, a map output and windows of sequences."""

    def step(x_before, x_after, y, z_old, z_last, v_old, v_older, h):
        new = mixed(xp, z_last, z_old, x_after, h)
        tree = {"v": mixed(xp, v_old["v"], v_older["v"], new * y)}
        return [new, y * x_before, tree, mixed(xp, h, z_old, x_before)]

    return loops.scan(
        step,
        sequences=[dict(input=x, taps=[-1, 1]), y],
        outputs_info=[
            dict(initial=z, taps=[-30, -1]),
            None,
            dict(initial={"v": v}, taps=[-12, -45]),
            h,
        ],
        **options,
    ).outputs


ARGUMENTS = (
    numbers(102),
    numbers(110, 2, seed=1),
    numbers(30, seed=2),
    numbers(45, 2, seed=3),
    numbers(seed=4),
)


@pytest.mark.parametrize("go_backwards", [False, True], ids=["forwards", "backwards"])
@pytest.mark.parametrize("n_steps", [None, 25])
def test_beside_other_outputs(go_backwards, n_steps):
    options = {"go_backwards": go_backwards, "n_steps": n_steps}
    check_scan(
        lambda *args: everything(jscan, jnp, *args, **options),
        lambda *args: everything(reference, np, *args, **options),
        *ARGUMENTS,
        batch=n_steps is None and go_backwards,
        second=n_steps is not None and not go_backwards,
    )


def test_unrolled_beside_other_outputs():
    args = [jnp.asarray(a) for a in ARGUMENTS]
    actual = everything(jscan, jnp, *args, unroll=4)
    assert_close(actual, everything(reference, np, *ARGUMENTS), 1e-10)


def test_last_row_only():
    """`reduce` keeps no rows, yet a long lag has to read them."""
    x, z = numbers(90), numbers(40, seed=1)

    def program(loops, xp, x, z):
        return loops.reduce(
            lambda x, old, last: [mixed(xp, old, last, x), x * old],
            sequences=x,
            outputs_info=[dict(initial=z, taps=[-40, -1]), None],
        ).outputs

    check_scan(
        lambda x, z: program(jscan, jnp, x, z),
        lambda x, z: program(reference, np, x, z),
        x,
        z,
        second=False,
    )


@pytest.mark.parametrize("n_steps", [25, 100])
def test_integers_with_a_shared_variable(n_steps):
    """A lagged count: exact, and the variable sees every step once."""
    z = np.arange(40, dtype="int32")

    def program(loops):
        counter = loops.shared(np.int32(0))
        outputs, updates = loops.scan(
            lambda old, last: (
                (old + 2 * last + counter.value) % 1000,
                {counter: counter.value + 1},
            ),
            outputs_info=dict(initial=z, taps=[-40, -1]),
            n_steps=n_steps,
        )
        return [outputs, updates[counter]]

    assert_close(program(jscan), program(reference), 0.0)
    assert int(np.asarray(program(jscan)[1])) == n_steps


def test_inside_another_loop():
    """The lagged loop as the step of an outer loop, differentiated."""
    rows, z = numbers(3, 50), numbers(20, seed=1)

    def program(loops, xp, rows, z):
        def outer(row, z):
            inner, _ = loops.scan(
                lambda x, old, last: mixed(xp, old, last, x),
                sequences=row,
                outputs_info=dict(initial=z, taps=[-20, -1]),
            )
            return inner[-20:]

        return loops.scan(outer, sequences=rows, outputs_info=z).outputs

    check_scan(
        lambda rows, z: program(jscan, jnp, rows, z),
        lambda rows, z: program(reference, np, rows, z),
        rows,
        z,
        second=False,
    )


def test_wide_state_in_single_precision():
    """A window of a thousand rows of sixteen numbers, against a plain Python loop."""
    z = numbers(1000, 16).astype("float32")
    outputs = jax.jit(
        lambda z: (
            jscan.scan(
                lambda last, old: 0.5 * last + 0.25 * old,
                outputs_info=dict(initial=z, taps=[-1, -1000]),
                n_steps=1300,
            ).outputs
        )
    )(z)
    expected = list(z.astype("float64"))
    for _ in range(1300):
        expected.append(0.5 * expected[-1] + 0.25 * expected[-1000])
    assert outputs.dtype == jnp.float32
    np.testing.assert_allclose(outputs, expected[1000:], 1e-4, 1e-6)


def test_a_symbolic_length():
    """A program that is exported for every length knows no number of blocks."""

    def wave(loops, xp, xs, past):
        return loops.scan(
            lambda x, *past: x + mixed(xp, *past),
            sequences=xs,
            outputs_info=dict(initial=past, taps=[-40, -1]),
        ).outputs

    (length,) = export.symbolic_shape("t")
    types = [jax.ShapeDtypeStruct((n, 2), float) for n in (length, 40)]
    ours = jax.jit(lambda *given: wave(jscan, jnp, *given))
    exported = export.export(ours)(*types)
    for count in (17, 97):
        given = numbers(count, 2), numbers(40, 2)
        assert_close(exported.call(*given), wave(reference, np, *given))
