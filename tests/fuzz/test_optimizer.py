"""Random programs: optimized and as written, the results are the same.

A fixed set runs on each version of JAX; `scripts/fuzz optimizer` runs as many more as
you like.
"""

import pytest

from fuzz import optimizer
from fuzz.choices import Choices
from jscan._jax.names import JAX_VERSION

PROGRAMS, GROUPS = 160, 8
PART = JAX_VERSION >= (0, 11)  # each version has programs of its own


@pytest.mark.parametrize("group", range(GROUPS))
def test_random_programs(group: int, monkeypatch: pytest.MonkeyPatch):
    """Optimized and plain agree for every transform, in either order."""
    for seed in range(2 * group + PART, PROGRAMS, 2 * GROUPS):
        try:
            optimizer.run(Choices(seed))
        except Exception as error:
            error.add_note(f"scripts/fuzz optimizer --first-seed {seed} --programs 1")
            raise
