"""What depends on what in a loop: the analysis all rules share.

Every operand of a step is at one level: it depends on constants only, also on the
sequences, or also on the state (the carries, an effect, a draw without a key). Work at
the first level can leave the loop, at the second it can be batched over time before
the loop, at the third it must stay unless only outputs need it.
"""

from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum
from typing import Any

from jscan._jax.equations import free_variables, needed, unique_variables
from jscan._jax.jaxprs import Atom, every_equation, is_variable, sub_programs
from jscan._optimizer.analysis.compilers import is_miscompiled
from jscan._optimizer.costs.fusions import Step
from jscan._optimizer.record.loop import Loop


class Level(IntEnum):
    """What an operand of a step depends on; the higher includes the lower."""

    CONSTANT = 0
    SEQUENCE = 1
    STATE = 2


# Batched, a cond runs both branches and a while runs until its slowest row stops.
_BRANCHING = frozenset({"cond", "while"})
# Batched draws of JAX's non-default generators are not the draws of the loop.
_UNBATCHED_RANDOM = frozenset({"rng_bit_generator", "rng_uniform", "random_gamma"})
# Of a callback or foreign code: for one step, or called in a loop of its own, which a
# batch of steps would write anew without end where it stands in a loop of a loop.
_ONE_BY_ONE = (None, "sequential", "sequential_unrolled")
# Draws that have no key: each step draws anew, whatever it reads.
_HIDDEN_STATE = frozenset({"rng_uniform"})
# Programs inside these run as often whatever the values are, so batching is sound.
_TRANSPARENT = frozenset(
    {
        *("jit", "closed_call", "scan", "remat2", "custom_jvp_call", "custom_vjp_call"),
        *("reduce", "cumsum", "reduce_precision", "sort", "scatter", "scatter-add"),
        *("scatter-mul", "scatter-min", "scatter-max", "reduce_window"),
        "custom_linear_solve",
    }
)


class Dependence:
    """Levels, producers and users of one loop's variables."""

    producers: dict[Any, Any]
    users: dict[Any, list[Any]]
    _levels: dict[Any, Level]

    def __init__(self, loop: Loop) -> None:
        """Analyse the loop, unless a copy of it that does the same was analysed."""
        self.loop = loop
        parts = (loop.equations, loop.after)
        parts += (loop.constants, loop.sequences, loop.carries)
        key = tuple(map(id, parts))
        if key not in loop.memo:  # which keeps the parts, so that no other has their id
            loop.memo[key] = parts, self._links()
        self.producers, self.users, self._levels = loop.memo[key][1]

    def _links(self) -> tuple[dict[Any, Any], dict[Any, list[Any]], dict[Any, Level]]:
        """One walk over the equations: who makes, who reads, which level."""
        loop, producers, users = self.loop, {}, {}
        levels: dict[Any, Level] = dict.fromkeys(loop.constants, Level.CONSTANT)
        levels.update(dict.fromkeys(loop.sequences, Level.SEQUENCE))
        levels.update({c.variable: Level.STATE for c in loop.carries})
        for equation in (*loop.equations, *loop.after):
            level = _level_of(equation, levels)
            for variable in equation.outvars:
                producers[variable] = equation
                levels[variable] = level
            for variable in unique_variables(equation.invars):
                users.setdefault(variable, []).append(equation)
        return producers, users, levels

    def level(self, atom: Atom) -> Level:
        """The level of an operand."""
        return self._levels[atom] if is_variable(atom) else Level.CONSTANT

    def level_of(self, equation: Any) -> Level:
        """The level of what an equation computes."""
        return _level_of(equation, self._levels)

    def changes(self, atom: Atom) -> bool:
        """Whether an operand may differ from step to step."""
        return self.level(atom) > Level.CONSTANT

    def producer(self, atom: Atom) -> Any | None:
        """The equation of the step that makes an operand, if one does."""
        return self.producers.get(atom) if is_variable(atom) else None

    def core(self) -> list[Any]:
        """The equations the carries need, and those with effects."""
        return needed(self.loop.equations, [c.update for c in self.loop.carries])

    def read_outside(self) -> set[Any]:
        """Variables read by anything but the equations of a step."""
        atoms = [carry.update for carry in self.loop.carries]
        return {*unique_variables(atoms), *self.loop.stacked()}

    def step(self, stays: Sequence[Any] | None = None) -> Step:
        """What a step is made of; or what is left if these of its equations stay.

        It hands out a row of what those that leave read of it then.
        """
        loop, rows = self.loop, self.loop.stacked()
        carries = [(c.variable, c.update) for c in loop.carries]
        if stays is None:
            return Step(loop.equations, rows, carries, set(loop.constants))
        ids = set(map(id, stays))
        gone = [e for e in loop.equations if id(e) not in ids]
        left = {v for e in gone for v in e.outvars}
        carries = [(s, u) for s, u in carries if not is_variable(u) or u not in left]
        there = {v for e in stays for v in e.outvars} | {state for state, _ in carries}
        read = dict.fromkeys((*rows, *free_variables(gone)))
        return Step(stays, [v for v in read if v in there], carries, {*loop.constants})

    def read_elsewhere(self) -> set[Any]:
        """The same, with all that the results and the work behind the loop read."""
        loop = self.loop
        behind = (*loop.wanted_rows(), *free_variables(loop.after))
        return {*self.read_outside(), *behind}

    def upstream(self, roots: Iterable[Any], among: Sequence[Any]) -> list[Any]:
        """The roots and the equations they need, taken from `among`, in order."""
        made = lambda e: filter(None, map(self.producer, e.invars))
        return self._closure(roots, among, made)

    def downstream(self, roots: Iterable[Any], among: Sequence[Any]) -> list[Any]:
        """The roots and the equations that need them, from `among`, in order."""
        read = lambda e: [user for v in e.outvars for user in self.users.get(v, [])]
        return self._closure(roots, among, read)

    def _closure(
        self, roots: Iterable[Any], among: Sequence[Any], step: Any
    ) -> list[Any]:
        place = self._places(among)
        reached: dict[int, Any] = {}
        pending = list(roots)
        while pending:
            equation = pending.pop()
            if id(equation) in reached or id(equation) not in place:
                continue
            reached[id(equation)] = equation
            pending += step(equation)
        return sorted(reached.values(), key=lambda e: place[id(e)])

    def _places(self, among: Sequence[Any]) -> dict[int, int]:
        """Where equations stand, by `id`; of the step's own this is found out once."""
        if among is not self.loop.equations:
            return {id(e): n for n, e in enumerate(among)}
        key = id(among), "places"
        if key not in self.loop.memo:
            places = {id(e): n for n, e in enumerate(among)}
            self.loop.memo[key] = among, places
        return self.loop.memo[key][1]


def _level_of(equation: Any, levels: Mapping[Any, Level]) -> Level:
    level = max(
        (levels[a] for a in equation.invars if is_variable(a)), default=Level.CONSTANT
    )
    if equation.effects:
        return Level.STATE
    inside = every_equation(equation, plain=True) if level is Level.CONSTANT else ()
    draws = any(inner.primitive.name in _HIDDEN_STATE for inner in inside)
    return Level.STATE if draws else level


def batchable(equation: Any, length: int) -> bool:
    """Whether one batched equation gives exactly what `length` separate ones give."""
    return not equation.effects and all(
        _batchable_alone(inner, length)
        for inner in every_equation(equation, plain=True)
    )


def _batchable_alone(equation: Any, length: int) -> bool:
    name = equation.primitive.name
    return not (
        name in _BRANCHING
        or name in _UNBATCHED_RANDOM
        or is_collective(equation)
        or is_miscompiled(equation, length)
        or _unusual_keys(equation)
        or equation.params.get("vmap_method", "") in _ONE_BY_ONE
    ) and (name in _TRANSPARENT or not any(sub_programs(equation)))


def reorderable(equation: Any) -> bool:
    """Whether the equation may run earlier or later: no effects, no communication."""
    return not equation.effects and not any(
        inner.effects or is_collective(inner)
        for inner in every_equation(equation, plain=True)
    )


def is_collective(equation: Any) -> bool:
    """Communication between devices: its number and order must not change."""
    axes = equation.params.get("axes", ())
    named = isinstance(axes, tuple) and any(isinstance(axis, str) for axis in axes)
    return named or "axis_name" in equation.params


def _unusual_keys(equation: Any) -> bool:
    """Random keys of another kind than threefry, whose batched draws differ."""
    atoms = (*equation.invars, *equation.outvars)
    dtypes = {str(getattr(atom.aval, "dtype", "")) for atom in atoms}
    return any(dtype.startswith("key<") for dtype in dtypes - {"key<fry>"})
