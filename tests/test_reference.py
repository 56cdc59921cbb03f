"""The NumPy reference is right: it gives the outputs Theano 0.9.0 gave."""

import inspect

import numpy as np
import pytest

import reference
from theano import recorded
from theano.cases import CASES
from theano.cases_state import STATE_CASES
from theano.cases_stops import TRUNCATE_CASES, UNTIL_CASES

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
    assert "truncate_gradient" not in inspect.signature(reference.scan).parameters
