"""Random calls of `scan` and its views, made of choices."""

from __future__ import annotations

import dataclasses
from typing import Any

from fuzz.choices import Choices
from fuzz.loops import DTYPES, SHAPES, TAPS, Kind, Loop, Noise, Output, Sequence, usable


def loop_of(choices: Choices, variables: int, depth: int = 0, free: Any = None) -> Loop:
    """A call that may read the first `variables` variables and update the `free`."""
    pick, rarely, many = choices.pick, choices.rarely, choices.many
    free = list(range(variables)) if free is None else free
    views = ("map", "reduce", "foldl", "foldr", "scan_checkpoints")
    view = pick(("scan",) * 8 + views)
    length = choices.between(0, 6) if rarely(8) else choices.between(1, 6)
    inside = depth > 0

    def sequence() -> Sequence:
        kind = kind_of(choices)
        taps: list[int] = []
        if rarely(3):
            taps = pick([[0], [-1, 0, 1], [-1], [2], [1, -2], [0, 0], [-3, -2]])
        reach = max([0, *taps]) - min([0, *taps])
        rows = length + reach * choices.below(2) + pick((0, 0, 1, 3))
        return Sequence(kind, rows, taps or None, inside and rarely(2))

    def output() -> Output:
        kind = kind_of(choices)
        if view == "map" or rarely(3):
            return Output(kind)
        taps = [-1] if view == "scan_checkpoints" or not rarely(2) else pick(TAPS)
        starts = ("array",) * 4 + ("narrow", "variable") + ("number",) * (taps == [-1])
        start = "array" if kind.is_tree else pick(starts)
        if start == "number":
            kind = dataclasses.replace(kind, shape=())
        mixes = inside and rarely(2) and start == "array"
        if view == "scan_checkpoints":
            return Output(kind, taps, start, mixes=mixes)
        return Output(kind, taps, start, pick((0, 0, 2)), rarely(), mixes)

    needs = 0 if view in ("scan", "scan_checkpoints") else 1
    sequences = tuple(many(sequence, needs, 2))
    outputs = tuple(many(output, 0 if free else 1, 3))
    room = min([usable(s) for s in sequences], default=length)
    n_steps, most, max_steps = None, 0, None
    if view in ("scan", "scan_checkpoints"):
        if not sequences or rarely(3):
            n_steps = most = choices.between(0, room)
        if view == "scan" and rarely(5):
            n_steps, most = "traced", choices.between(0, room + 1)
            if not sequences or rarely(2):
                max_steps = length
    constants = tuple(many(lambda: kind_of(choices), 0, 2))
    updates = tuple(v for v in free if rarely(2))
    if not outputs and not updates:
        updates = tuple(free[:1])
    rest = [v for v in free if v not in updates]
    readable = range(variables)
    loop = Loop(
        view=view,
        sequences=sequences,
        outputs=outputs,
        infos_left_out=all(not o.taps for o in outputs) and not rarely(3),
        n_steps=n_steps,
        most=most,
        max_steps=max_steps,
        constants=constants,
        listed=choices.between(0, len(constants)),
        reads=tuple(v for v in readable if rarely(3)),
        arguments=tuple(v for v in readable if rarely(3)),
        updates=updates,
        noises=tuple(many(lambda: noise_of(choices), 0, 2)) if rarely(4) else (),
        stop=pick(("count", "value", "always", "never"))
        if rarely() and view != "scan_checkpoints"
        else None,
        form=choices.below(24),
        options=options_of(choices, view, depth),
        hands_on=not rarely(),
        salt=choices.below(8),
    )
    if view == "map" and not outputs and not updates:
        loop = dataclasses.replace(loop, outputs=(Output(kind_of(choices)),))
    if depth < 2 and rarely(3 + 2 * depth):
        inner = loop_of(choices, variables, depth + 1, rest)
        loop = dataclasses.replace(loop, inner=inner)
    return made_valid(loop, depth)


def kind_of(choices: Choices) -> Kind:
    return Kind(choices.pick(DTYPES), choices.pick(SHAPES), choices.rarely(8))


NOISES = (
    ("uniform", (), "float32", {}),
    ("uniform", (2,), "float64", {}),
    ("normal", (2,), "float32", {}),
    ("normal", (), "float64", {}),
    ("bernoulli", (2,), None, {"p": 0.3}),
    ("binomial", (), None, {"n": 3, "p": 0.4}),
    ("random_integers", (2, 2), None, {"low": -2, "high": 5}),
    ("choice", (2,), None, {"a": 5}),
    ("poisson", (), None, {"lam": 2.0}),
    ("permutation", (), None, {"n": 3}),
    ("multinomial", (), None, {"n": 4, "pvals": (0.2, 0.5, 0.3)}),
)


def noise_of(choices: Choices) -> Noise:
    method, size, dtype, options = choices.pick(NOISES)
    return Noise(
        method,
        size,
        dtype,
        options,
        choices.pick(("outside", "inside", "listed")),
        method in ("uniform", "normal") and choices.rarely(2),
        choices.below(2),
    )


def options_of(choices: Choices, view: str, depth: int) -> dict[str, Any]:
    """Arguments that the view has, each rarely given."""
    pick, rarely = choices.pick, choices.rarely
    options: dict[str, Any] = {}
    if rarely(8):
        options["name"] = pick(("named", "a loop"))
    if view == "scan_checkpoints":
        options["save_every_N"] = choices.between(1, 4)
        if rarely(2):
            options["padding"] = pick((True, False))
        return options
    if rarely(4):
        options["mode"] = pick(("FAST_RUN", "FAST_COMPILE", "DEBUG"))
    if view in ("scan", "map", "reduce") and rarely(3):
        options["go_backwards"] = True
    if view in ("scan", "map") and rarely(4):
        options["truncate_gradient"] = pick((1, 2, 3, 9))
    if view != "scan":
        return options
    if rarely(4):
        options["checkpoint"] = pick((1, 2, 3, "sqrt", "recursive", 20))
    if rarely(5):
        options["unroll"] = pick((1, 2, 3, True, False))
    if rarely(8):
        options["strict"] = True
    if rarely(6):
        options["return_list"] = True
    if rarely(16):
        options["allow_gc"] = pick((True, False))
    if rarely(16):
        options["profile"] = pick((True, "label"))
    if rarely(16) and depth == 0:
        options["progress"] = pick(
            ({"disable": True}, {"disable": True, "miniters": 2})
        )
    return options


def made_valid(loop: Loop, depth: int) -> Loop:
    """Without what is refused, except where `expectations` says so."""
    options = dict(loop.options)
    if depth and loop.may_end_early and options.get("mode") == "DEBUG":
        del options["mode"]
    if loop.gives_last and loop.bound == 0:
        outputs = tuple(
            dataclasses.replace(o, taps=o.taps or [-1]) for o in loop.outputs
        )
        loop = dataclasses.replace(loop, outputs=outputs, infos_left_out=False)
    if options.get("strict"):
        loop = dataclasses.replace(
            loop,
            inner=None,
            listed=len(loop.constants),
            reads=(),
            arguments=tuple(sorted({*loop.arguments, *loop.updates})),
            noises=tuple(n for n in loop.noises if not n.scaled),
        )
    return dataclasses.replace(loop, options=options)
