"""The NumPy reference is right: it gives the outputs Theano 0.9.0 gave."""

import numpy as np
import pytest

import jscan
from support import reference
from theano_answers import recorded
from theano_answers.cases import CASES
from theano_answers.cases_state import STATE_CASES
from theano_answers.cases_stops import TRUNCATE_CASES, UNTIL_CASES

# A loop over NumPy arrays has no gradients inside the step and no random streams.
NOT_NUMPY = {"tut_jacobian", "tut_binomial"}
PROGRAMS = {
    name: program
    for table in (CASES, STATE_CASES, UNTIL_CASES)
    for name, program in table.items()
    if name not in NOT_NUMPY and name != "until_truncate"
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_reference_gives_the_recorded_outputs(name):
    inputs = {key: value[()] for key, value in recorded.part(name, "in").items()}
    before = recorded.part(name, "shared")
    variables = {key: reference.shared(value[()]) for key, value in before.items()}
    for call in ("", "2") if variables else ("",):
        returned = PROGRAMS[name](reference, np, **inputs, **variables)
        outputs, updates = returned if name not in CASES else (returned, {})
        expected = recorded.outputs(name, f"out{call}")
        for value, answer in zip(recorded.as_outputs(outputs), expected, strict=True):
            recorded.assert_equal(value, answer, f"output{call}")
        for variable, value in updates.items():
            variable.value = value
        for key, answer in recorded.part(name, f"final{call}").items():
            recorded.assert_equal(variables[key].value, answer, f"final{call} {key}")


def test_reference_covers_every_program_it_can_run():
    left_out = NOT_NUMPY | {"until_truncate"} | set(TRUNCATE_CASES)
    names = {name for name in recorded.names() if not name.startswith("checkpoints")}
    assert names == set(PROGRAMS) | left_out


@pytest.mark.parametrize(
    ("bound", "rows"), [(0, [10.0]), (3, [10.0, 20.0, 30.0]), (99, range(10, 70, 10))]
)
def test_reference_keeps_the_stopping_step(bound, rows):
    """Theano: true at once gives one row, never true gives all."""
    step = lambda a: (a * 10, reference.until(a >= bound))
    outputs, _ = reference.scan(step, np.arange(1.0, 7.0))
    np.testing.assert_array_equal(outputs, rows)


# Theano 0.9.0 on x = 1..6: the number of steps and what the first step sees.
TAPS_TABLE = [
    ([0], 6, [1]),
    ([-1], 5, [1]),
    ([-2], 4, [1]),
    ([1], 5, [2]),
    ([2], 4, [3]),
    ([1, 2], 4, [2, 3]),
    ([2, 3], 3, [3, 4]),
    ([-2, -1], 4, [1, 2]),
    ([-3, -2], 3, [1, 2]),
    ([-1, 0, 1], 4, [1, 2, 3]),
    ([1, -1], 4, [3, 1]),
    ([-3, 2, -1], 1, [1, 6, 3]),
]


@pytest.mark.parametrize("loops", [reference, jscan], ids=["reference", "jscan"])
@pytest.mark.parametrize(("taps", "steps", "first"), TAPS_TABLE, ids=str)
def test_steps_and_slices_of_sequence_taps(loops, taps, steps, first):
    outputs, _ = loops.scan(
        lambda *slices: list(slices),
        dict(input=np.arange(1, 7), taps=taps),
        return_list=True,
    )
    assert [len(rows) for rows in outputs] == [steps] * len(taps)
    assert [rows[0] for rows in outputs] == first


@pytest.mark.parametrize("loops", [reference, jscan], ids=["reference", "jscan"])
def test_backwards_taps_are_cut_in_time_order(loops):
    """X = 1..6 with taps [-1, 0, 1]: the first step backwards sees 4, 5, 6."""
    outputs, _ = loops.scan(
        lambda *slices: list(slices),
        dict(input=np.arange(1, 7), taps=[-1, 0, 1]),
        n_steps=2,
        go_backwards=True,
    )
    np.testing.assert_array_equal(outputs, [[4, 3], [5, 4], [6, 5]])
