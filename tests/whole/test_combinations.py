"""Everything a loop can be told, together: a small set in which every pair occurs.

The expected rows come from a NumPy loop written here, the expected derivatives from
its central differences. A truncated gradient is the derivative with respect to the
parameters of the *kept* steps, while the steps before them keep their numbers; so the
loop below takes the parameters twice.
"""

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jscan
from jscan._frontend.spec import Checkpoint

LENGTH = 9
Parameters = list[np.ndarray]  # x [LENGTH], z [3], w [], start []


class Case(NamedTuple):
    """One call; the fields are its choices."""

    ending: str = "known"
    taps: tuple[int, ...] = (-1,)
    updates: bool = False
    draws: bool = False
    truncate: int = -1
    checkpoint: Checkpoint = None
    backwards: bool = False
    transform: str = "eager"

    def __str__(self) -> str:
        return "-".join(
            f"{name}={value}".replace(" ", "")
            for name, value in self._asdict().items()
            if value != self._field_defaults[name]
        )


CHOICES = {
    "ending": ["known", "until", "traced"],
    "taps": [(-1,), (-3, -1)],
    "updates": [False, True],
    "draws": [False, True],
    "truncate": [-1, 2, 5],
    "checkpoint": [None, 4, "sqrt", "recursive"],
    "backwards": [False, True],
    "transform": ["eager", "jit", "vmap"],
}


def allowed(case: Case) -> bool:
    """`jax.jit` refuses shared variables; `jscan.function` has a test of its own."""
    compiled = case.transform != "eager" or case.ending == "traced"
    return not (compiled and (case.updates or case.draws))


def pairs_of(case: Case) -> set[Any]:
    return set(itertools.combinations(zip(case._fields, case, strict=True), 2))


def covering_cases() -> Iterator[Case]:
    """Few cases that together hold every pair of choices: greedily, the best next."""
    every = [Case(*c) for c in itertools.product(*CHOICES.values())]
    every = [case for case in every if allowed(case)]
    missing = set().union(*map(pairs_of, every))
    while missing:
        best = max(every, key=lambda case: len(pairs_of(case) & missing))
        missing -= pairs_of(best)
        yield best


CASES = list(covering_cases())


def noise() -> np.ndarray:
    """What the loop's stream draws: the same stream, drawn one by one outside."""
    rng = jscan.RandomStreams(11)
    return np.array(
        [float(rng.uniform(size=(), dtype="float64")) for _ in range(LENGTH)]
    )


def expected_rows(
    case: Case, kept: Parameters, before: Parameters, samples: np.ndarray
) -> tuple[np.ndarray, float, int]:
    """Rows ``[LENGTH, 2]`` (zero where no step ran), the variable, the step count."""

    def run(cut: int) -> tuple[list[Any], Any, int]:
        first = {True: list(kept[1]), False: list(before[1])}
        produced: list[Any] = []
        total = before[3] if cut else kept[3]
        rows = []
        for step in range(LENGTH):
            is_kept = step >= cut
            x, _, w, _ = kept if is_kept else before
            history = [*first[is_kept], *produced]
            past = [history[len(history) + tap] for tap in case.taps]
            now = x[LENGTH - 1 - step] if case.backwards else x[step]
            new = np.tanh(sum(past) * w + now)
            if case.draws:
                new = new + 0.1 * samples[step]
            if case.updates:
                new = new + 0.1 * total
                total = total + now * w
            produced.append(new)
            rows.append([new, now * past[0]])
            if case.ending == "until" and step >= 2 and abs(now - 0.55) < 0.1:
                break
            if case.ending == "traced" and step == 6:
                break
        return rows, total, len(rows)

    _, _, executed = run(0)
    cut = max(executed - case.truncate, 0) if case.truncate > 0 else 0
    rows, total, executed = run(cut)
    filled = rows + [[0.0, 0.0]] * (LENGTH - executed)
    return np.array(filled), total if case.updates else 0.0, executed


def actual_rows(case: Case, x: Any, z: Any, w: Any, start: Any, count: Any) -> Any:
    """The same by jscan."""
    total = jscan.shared(0.0)
    total._stored = start  # possibly a value under differentiation
    rng = jscan.RandomStreams(11)
    calls = jnp.arange(LENGTH)

    def step(index, now, *rest):
        *past, w = rest
        new = jnp.tanh(sum(past[1:], past[0]) * w + now)
        if case.draws:
            new = new + 0.1 * rng.uniform(size=(), dtype="float64")
        updates = {}
        if case.updates:
            updates = {total: total.value + now * w}
            new = new + 0.1 * total.value
        stop = (abs(now - 0.55) < 0.1) & (index >= 2)
        end = (jscan.until(stop),) if case.ending == "until" else ()
        return ([new, now * past[0]], updates, *end)

    index = calls[::-1] if case.backwards else calls
    initial = z[-1] if case.taps == (-1,) else dict(initial=z, taps=list(case.taps))
    result = jscan.scan(
        step,
        [index, x],
        [initial, None],
        w,
        n_steps=count if case.ending == "traced" else None,
        truncate_gradient=case.truncate,
        go_backwards=case.backwards,
        checkpoint=case.checkpoint,
    )
    rows = jnp.stack(result.outputs, axis=1)
    mask = jnp.arange(len(rows), dtype=jnp.int32) < result.n_steps
    rows = jnp.where(mask[:, None], rows, jnp.zeros_like(rows))
    rows = jnp.concatenate([rows, jnp.zeros((LENGTH - len(rows), 2))])
    return rows, result.updates.get(total, jnp.zeros(())), result.n_steps


def parameters() -> Parameters:
    x = np.array([0.05, 0.15, 0.25, 0.35, 0.56, 0.75, 0.54, 0.85, 0.95])
    return [x, np.array([0.4, -0.3, 0.2]), np.array(0.7), np.array(0.25)]


WEIGHTS = np.cos(np.arange(2 * LENGTH)).reshape(LENGTH, 2)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_rows_and_derivatives(case):
    args, samples = parameters(), noise() if case.draws else np.zeros(LENGTH)
    rows, total, executed = expected_rows(case, args, args, samples)

    def cost(args, count):
        x, z, w, start = args
        actual, final, n_steps = actual_rows(case, x, z, w, start, count)
        return (actual * WEIGHTS).sum() + final, (actual, final, n_steps)

    both = jax.value_and_grad(cost, has_aux=True)
    pushed = lambda args, count: jax.jvp(lambda a: cost(a, count)[0], [args], [args])[1]
    call = lambda args, count: (both(args, count), pushed(args, count))
    values = [jnp.asarray(value) for value in args]
    count = jnp.asarray(7)
    if case.transform == "vmap":
        # The second lane gets other numbers, and stops elsewhere.
        lanes = [jnp.stack([v, 0.9 * v]) for v in values]
        found = jax.jit(jax.vmap(call))(lanes, jnp.stack([count, count - 3]))
        found = jax.tree.map(lambda leaf: leaf[0], found)
    elif case.transform == "jit" or case.ending == "traced":
        found = jax.jit(call)(values, count)
    else:
        found = call(values, 7)
    ((_, aux), gradient), slope = found
    np.testing.assert_allclose(aux[0], rows, 1e-12, 1e-12)
    np.testing.assert_allclose(aux[1], total, 1e-12)
    assert int(aux[2]) == executed

    def numpy_cost(kept):
        rows, total, _ = expected_rows(case, kept, args, samples)
        return (rows * WEIGHTS).sum() + total

    differences = [np.zeros_like(value) for value in args]
    for which, position in [
        (k, i) for k, v in enumerate(args) for i in np.ndindex(v.shape)
    ]:
        ends = []
        for sign in (1, -1):
            moved = [value.copy() for value in args]
            moved[which][position] += sign * 1e-6
            ends.append(numpy_cost(moved))
        differences[which][position] = (ends[0] - ends[1]) / 2e-6
    for mine, theirs in zip(gradient, differences, strict=True):
        np.testing.assert_allclose(mine, theirs, 1e-6, 1e-7)
    whole = sum((d * v).sum() for d, v in zip(differences, args, strict=True))
    np.testing.assert_allclose(slope, whole, 1e-6, 1e-7)


def test_the_cases_hold_every_pair():
    held = set().union(*map(pairs_of, CASES))
    for (first, values), (second, others) in itertools.combinations(CHOICES.items(), 2):
        for one, other in itertools.product(values, others):
            case = Case()._replace(**{first: one, second: other})
            if allowed(case):
                assert ((first, one), (second, other)) in held
    assert len(CASES) < 40


def test_a_traced_number_of_steps_with_updates_and_draws():
    """What `jax.jit` refuses, in a compiled function, with a gradient through it."""
    total, rng = jscan.shared(0.5, name="total"), jscan.RandomStreams(5)

    def slope_and_rows(x, count):
        def rows(x):
            result = jscan.scan(
                lambda a: (
                    a * a * rng.uniform(size=(), dtype="float64") * total.value,
                    {total: total.value + 1.0},
                ),
                x,
                n_steps=count,
                max_steps=6,
                truncate_gradient=2,
                checkpoint=2,
            )
            mask = result.mask
            return jnp.where(mask, result.outputs, jnp.zeros(6)).sum(), result.updates

        (_, updates), slope = jax.value_and_grad(rows, has_aux=True)(x)
        return slope, updates

    run = jscan.function(slope_and_rows)
    x = jnp.arange(1.0, 7.0)
    outside = jscan.RandomStreams(5)
    for count, start in ((4, 0.5), (3, 4.5)):
        sample = [
            float(outside.uniform(size=(), dtype="float64")) for _ in range(count)
        ]
        expected = np.zeros(6)
        for step in (count - 2, count - 1):
            expected[step] = 2 * x[step] * sample[step] * (start + step)
        np.testing.assert_allclose(run(x, count), expected)
    assert float(total.value) == 7.5
