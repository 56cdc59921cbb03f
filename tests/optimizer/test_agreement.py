"""The judge of the fuzzer is judged: it must see what is wrong, and only that."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import pytest

from support.optimizer.agreement import disagreement
from support.optimizer.checking import SETUPS, check, strictly, transforms
from support.optimizer.programs import Instruction, Output, Program, Slot

pytestmark = pytest.mark.any_jax

VALUES = jnp.asarray([1.0, -2.0, 3.0], jnp.float32)

PROGRAM = Program(
    number="float32",
    integer="int32",
    length=5,
    width=3,
    reverse=False,
    unroll=1,
    carries=(Slot("vector"), Slot("scalar", integer=True)),
    sequences=(Slot("vector"),),
    invariants=(Slot("square"),),
    body=(Instruction("product", (0, 1, 0)), Instruction("add"), Instruction("tanh")),
    carried=(0, 0),
    outputs=(Output(0, use="last"), Output(0, integer=True, use="sum")),
)


def unchanged() -> Iterator[object]:
    """Probes of a program that is stable."""
    yield VALUES
    yield VALUES * (1 + 1e-7)


@pytest.mark.parametrize(
    "wrong",
    [
        VALUES.at[1].add(1e-3),
        VALUES.at[0].set(jnp.nan),
        VALUES.at[2].set(jnp.inf),
        -VALUES,
    ],
    ids=["a value", "NaN", "infinity", "signs"],
)
def test_a_difference_is_seen(wrong: jax.Array):
    assert disagreement(VALUES, wrong, unchanged) is not None


def test_rounding_is_not_a_difference():
    assert disagreement(VALUES, VALUES * (1 + 3e-7), unchanged) is None


def test_integers_must_be_equal():
    numbers = jnp.arange(3)
    assert disagreement(numbers, numbers.at[1].add(1), lambda: iter(())) is not None


def test_other_types_are_seen():
    with pytest.raises(AssertionError, match="became"):
        disagreement(VALUES, VALUES.astype(jnp.float16), unchanged)


def test_an_unstable_program_has_more_room():
    def probes() -> Iterator[object]:
        yield VALUES + 0.01

    assert disagreement(VALUES, VALUES + 0.05, probes) is None
    assert disagreement(VALUES, VALUES + 1.0, probes) is not None


def test_a_wrong_optimizer_is_caught(monkeypatch: pytest.MonkeyPatch):
    """An optimizer that loses the last row's sign does not pass."""

    def wrong(function):
        return lambda *arguments: jax.tree.map(lambda leaf: -leaf, function(*arguments))

    monkeypatch.setattr(
        "support.optimizer.checking.transforms",
        lambda name, setup: (lambda f: f, wrong),
    )
    with pytest.raises(AssertionError, match="differs"):
        check(PROGRAM, "value")


@strictly()
def test_something_is_optimized():
    """The transforms really call the optimizer: the programs differ."""
    plain, optimized = transforms("optimize-grad", SETUPS["keen"])
    arguments = PROGRAM.arguments()
    with SETUPS["keen"].applied():
        texts = [
            str(jax.make_jaxpr(transform(PROGRAM.function))(*arguments))
            for transform in (plain, optimized)
        ]
    assert texts[0] != texts[1]
