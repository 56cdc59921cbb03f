"""Random programs: optimized and as written, the results are the same.

A fixed set runs everywhere; `scripts/fuzz optimizer` runs as many more as you like.
"""

import pytest

from fuzz import optimizer
from fuzz.choices import Choices

PROGRAMS, GROUPS = 160, 8


@pytest.mark.parametrize("group", range(GROUPS))
def test_random_programs(group: int, monkeypatch: pytest.MonkeyPatch):
    """Optimized and plain agree for every transform, in either order."""
    for seed in range(group, PROGRAMS, GROUPS):
        try:
            optimizer.run(Choices(seed))
        except Exception as error:
            error.add_note(f"scripts/fuzz optimizer --first-seed {seed} --programs 1")
            raise
