"""The layout of past rows follows what was measured."""

import jax.numpy as jnp
import pytest

from jscan._execution.taps import plan_carry
from jscan._frontend.spec import OutputSpec


def state(taps, shape=()):
    span = -min(taps)
    return OutputSpec(
        "outputs_info[0]", initial=jnp.zeros((span, *shape)), taps=taps, has_rows=True
    )


@pytest.mark.parametrize(
    ("taps", "shape", "carried", "block"),
    [
        ((-1,), (), 1, None),
        ((-2, -1), (64,), 2, None),
        ((-8, -1), (), 8, None),
        ((-128, -1), (64,), 1, 128),
        ((-128, -1), (), 1, 128),
        ((-128,), (64,), 0, 128),
        (tuple(range(-9, 0)), (), 9, None),
        (tuple(range(-32, 0)), (64,), 32, None),
    ],
)
def test_chosen_layout(taps, shape, carried, block):
    plan = plan_carry([state(taps, shape)], n_steps=4096)
    assert (plan.layouts[0].carried, plan.block) == (carried, block)


def test_a_loop_that_may_stop_is_not_cut_into_blocks():
    plan = plan_carry([state((-128, -1), (64,))], n_steps=4096, blocks=False)
    assert plan.block is None
    assert plan.layouts[0].carried == 128
    assert plan.layouts[0].stacked


def test_states_share_one_block_length():
    plan = plan_carry([state((-128, -1), (64,)), state((-100,), (64,))], n_steps=4096)
    assert plan.block == 100
    assert [layout.long_taps for layout in plan.layouts] == [(-128,), (-100,)]
