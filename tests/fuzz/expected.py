"""What the reference gives for a random program: what is seen, and its differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from fuzz.loops import Loop
from fuzz.numbers import Numbers
from fuzz.programs import Program, cost_of, play
from fuzz.worlds import Meaning, Tape
from support import reference_draws
from support.comparing import assert_close

HALF, SINGLE, DOUBLE = 0.06, 5e-5, 1e-9
STEP = {"slope": 1e-5, "curvature": 1e-3}


class Expected:
    """What the reference gives for one lane."""

    def __init__(
        self, program: Program, numbers: Numbers, point: np.ndarray, whole: Any
    ) -> None:
        self.program, self.numbers = program, numbers
        self.point, self.whole = point, whole
        self.tolerance = _tolerance(program)
        self.seen = self._play(point, margin=20 * self.tolerance)

    def _play(
        self,
        point: np.ndarray,
        margin: float = 0.0,
        wide: bool = False,
        tape: Tape | None = None,
    ) -> Any:
        tree = self.numbers.tree(np, point, self.whole, wide)
        with reference_draws.program():
            world = Meaning(tree["variables"], wide, tape, margin)
            with np.errstate(all="ignore"):
                return play(world, self.program, tree)

    def check(self, actual: Any) -> None:
        """Compare."""
        seen = dict(actual["seen"])
        loop = self.program.loop
        executed = self.seen["n_steps"]
        padded = self._is_padded(seen)
        expected = _padded(loop, self.seen, padded)
        if "mask" in seen:
            rows = loop.bound if padded else executed
            np.testing.assert_array_equal(seen.pop("mask"), np.arange(rows) < executed)
            filled = self.seen["outputs"]
            if padded:
                filled = jax.tree.map(
                    lambda rows: _behind(rows, loop.bound, np.zeros_like), filled
                )
            tolerance = self.tolerance
            assert_close(seen.pop("filled"), filled, tolerance, least=1.0)
        _compare(seen, expected, self.tolerance)
        if "slope" in actual:
            self._check_slopes(actual, padded)

    def _is_padded(self, seen: Any) -> bool:
        """Whether rows that did not run are there."""
        loop = self.program.loop
        if not loop.may_end_early or loop.gives_last or loop.view == "scan_checkpoints":
            return False
        if not self.program.is_traced:
            return False
        if self.program.outer == "vmap" and not self.program.inner:
            if loop.n_steps == "traced":
                return True
            leaves = jax.tree.leaves(seen["outputs"])  # all lanes may know it
            return bool(leaves) and len(leaves[0]) == loop.bound
        return True

    def _check_slopes(self, actual: Any, padded: bool) -> None:
        tape = Tape()
        middle = self._cost(0.0, tape, padded)

        def moved(size: float) -> tuple[float, float]:
            return self._cost(size, tape, padded), self._cost(-size, tape, padded)

        above, below = moved(STEP["slope"])
        slope = (above - below) / (2 * STEP["slope"])
        margin = max(20 * self.tolerance, 1e-6) * (1 + abs(slope))
        scale = np.abs(self.numbers.direction).sum() ** 0.5
        np.testing.assert_allclose(
            actual["slope"], slope, 0, margin * scale, err_msg="slope"
        )
        if "curvature" in actual:
            above, below = moved(STEP["curvature"])
            curvature = (above - 2 * middle + below) / STEP["curvature"] ** 2
            margin = max(200 * self.tolerance, 1e-3) * (1 + abs(curvature))
            np.testing.assert_allclose(
                actual["curvature"], curvature, 0, margin * scale, err_msg="curvature"
            )

    def _cost(self, size: float, tape: Tape, padded: bool) -> float:
        seen = self._play(
            self.point + size * self.numbers.direction, wide=True, tape=tape
        )
        tape.rewind()
        if seen["n_steps"] != self.seen["n_steps"]:
            raise AssertionError("the steps of a difference; a margin is too small")
        return float(cost_of(np, _padded(self.program.loop, seen, padded)))


def _padded(loop: Loop, seen: Any, padded: bool) -> Any:
    if not padded:
        return seen
    repeat = lambda rows: _behind(rows, loop.bound, lambda row: row)
    return {**seen, "outputs": jax.tree.map(repeat, seen["outputs"])}


def _behind(rows: np.ndarray, bound: int, make: Callable[[Any], Any]) -> np.ndarray:
    """The rows with so many behind them that there are `bound`; zeros behind none."""
    missing = bound - len(rows)
    last = make(rows[-1:]) if len(rows) else np.zeros((1, *rows.shape[1:]), rows.dtype)
    return np.concatenate([rows, np.repeat(last, missing, axis=0)])


def _tolerance(program: Program) -> float:
    """That of the least precise type."""
    kinds = {kind.dtype for kind in program.variables}
    for loop in program.loop.and_inner():
        for thing in (*loop.sequences, *loop.outputs):
            kinds.add(thing.kind.dtype)
            if getattr(thing, "start", "") == "narrow":
                kinds.add("float32")
        kinds |= {kind.dtype for kind in loop.constants}
        kinds |= {noise.dtype or "float64" for noise in loop.noises}
    if kinds & {"float16", "bfloat16"}:
        return HALF
    return SINGLE if kinds & {"float32", "complex64"} else DOUBLE


def _compare(actual: Any, expected: Any, tolerance: float) -> None:
    """Same trees, shapes and types, and numbers that are as near as they can be."""
    if "n_steps" in expected:
        steps = np.asarray(expected["n_steps"], actual["n_steps"].dtype)
        expected = {**expected, "n_steps": steps}
    assert_close(actual, expected, tolerance, least=1.0)
