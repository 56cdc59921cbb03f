"""Random programs: optimized and as written, the results are the same.

A fixed set runs everywhere. `JSCAN_FUZZ=5000 pytest tests/optimizer/test_fuzz.py`
draws that many new ones for each transform.
"""

from __future__ import annotations

import os

import hypothesis
import pytest
from hypothesis import strategies as st

from support.optimizer.checking import NAMES, SETUPS, check
from support.optimizer.generate import programs
from support.optimizer.programs import TWINS

LOCAL = int(os.environ.get("JSCAN_FUZZ", "0"))

# `associate` changes rounding on purpose and is tried above.
_PAIRS = ("default", "keen", "keen-little-memory")

profile = hypothesis.settings(
    max_examples=LOCAL or 25,
    derandomize=not LOCAL,
    database=None,
    deadline=None,
    # The explain phase traces every line of JAX, which takes minutes.
    phases=[hypothesis.Phase.generate, hypothesis.Phase.shrink],
    suppress_health_check=[
        hypothesis.HealthCheck.too_slow,
        hypothesis.HealthCheck.data_too_large,
    ],
)


@pytest.mark.parametrize("transform", NAMES)
@profile
@hypothesis.given(data=st.data())
def test_random_programs(transform: str, data: st.DataObject):
    """Optimized and plain agree for every transform, in either order."""
    program = data.draw(programs(transform))
    setup = data.draw(st.sampled_from(sorted(SETUPS)))
    check(program, transform, SETUPS[setup])


@pytest.mark.parametrize("transform", ["value", "optimize-grad", "grad-optimize"])
@hypothesis.settings(profile, max_examples=LOCAL or 15)
@hypothesis.given(data=st.data())
def test_random_pairs_of_loops(transform: str, data: st.DataObject):
    """As above, for programs with a second loop that may be joined to the first."""
    program = data.draw(programs(transform, TWINS[1:]))
    check(program, transform, SETUPS[data.draw(st.sampled_from(_PAIRS))])
