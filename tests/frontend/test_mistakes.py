"""Two hundred mistakes of users: what each error says, and that its fix works.

Good errors name the place, what was needed, what came, and a fix, in one or two lines.
"""

import re

import jax
import pytest

import jscan
from support.mistakes.calls import CALLS
from support.mistakes.state import STATE
from support.mistakes.steps import STEPS

pytestmark = pytest.mark.filterwarnings("ignore:.*float16")
MISTAKES = {**CALLS, **STEPS, **STATE}


def test_no_mistake_stands_twice():
    assert len(MISTAKES) == len(CALLS) + len(STEPS) + len(STATE)


def text_of(error: BaseException) -> str:
    return "\n".join([str(error), *getattr(error, "__notes__", ())])


@pytest.mark.parametrize("name", MISTAKES)
def test_the_error_says_what_to_do(name: str, standard_promotion: None):
    mistake = MISTAKES[name]
    with pytest.raises(mistake.raised) as caught:
        mistake.wrong()
    text = text_of(caught.value)
    for word in mistake.words:
        assert re.search(word, text), f"{word!r} is missing in: {text}"
    if mistake.grade == "A":
        assert re.search("Fix: |Instead of ", text), text
    if isinstance(caught.value, jscan.ScanError):
        lines = str(caught.value).splitlines()
        assert len(lines) <= 2
        assert all(len(line) <= 320 for line in lines), max(map(len, lines))


def test_nearly_all_errors_are_good():
    """Of 201 mistakes that were tried first 57 were A, 74 B, and 18 a crash."""
    grades = [mistake.grade for mistake in MISTAKES.values()]
    assert {*grades} <= {"A", "B"}
    assert len(grades) >= 200
    assert grades.count("A") >= 0.85 * len(grades)


@pytest.mark.parametrize("name", MISTAKES)
def test_the_fix_works(name: str, standard_promotion: None):
    jax.block_until_ready(MISTAKES[name].right())
