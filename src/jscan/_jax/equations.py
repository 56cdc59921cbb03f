"""Lists of equations: choose, order, copy, run and make them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
from jax.core import eval_jaxpr
from jax.extend import core
from jax.extend.core import primitives

from jscan._jax.jaxprs import (
    Atom,
    ClosedJaxpr,
    Environment,
    Jaxpr,
    Literal,
    NotUnderstoodError,
    Var,
    avals_of,
    is_variable,
    open_jaxpr,
    trace,
    variable_like,
)


def free_variables(equations: Iterable[Any]) -> list[Any]:
    """Variables the equations read and do not define, in order of first use."""
    defined: set[Any] = set()
    free: dict[Any, None] = {}
    for equation in equations:
        for atom in equation.invars:  # `is_variable`, written out: this runs a lot
            if not isinstance(atom, Literal) and atom not in defined:
                free[atom] = None
        defined.update(equation.outvars)
    return list(free)


def needed(equations: Sequence[Any], roots: Iterable[Atom]) -> list[Any]:
    """The equations that the roots depend on, and those with effects, in order."""
    live = {atom for atom in roots if is_variable(atom)}
    kept = []
    for equation in reversed(equations):
        if equation.effects or not live.isdisjoint(equation.outvars):
            kept.append(equation)
            live.update([a for a in equation.invars if not isinstance(a, Literal)])
    return kept[::-1]


def reading(equation: Any, names: Mapping[Any, Atom]) -> Any:
    """The equation, reading other operands for some variables; itself if it did not."""
    if not any(not isinstance(a, Literal) and a in names for a in equation.invars):
        return equation
    new = [names.get(a, a) if is_variable(a) else a for a in equation.invars]
    return equation.replace(invars=new)


def exchanged(equations: Iterable[Any], new: Mapping[int, Sequence[Any]]) -> list[Any]:
    """The equations, with others in place of some, which are given by their `id`."""
    return [e for old in equations for e in new.get(id(old), (old,))]


def without_dead_code(closed_jaxpr: Any) -> Any:
    """The program without the equations its results do not need."""
    opened, _ = open_jaxpr(closed_jaxpr)
    return with_body(closed_jaxpr, needed(opened.eqns, opened.outvars), opened.outvars)


def with_body(
    closed_jaxpr: Any,
    equations: Sequence[Any],
    outputs: Sequence[Atom],
    inputs: Sequence[Any] | None = None,
) -> Any:
    """A closed program with other equations, results and, where given, inputs."""
    changes = {"eqns": list(equations), "outvars": list(outputs)}
    if inputs is not None:
        changes["invars"] = list(inputs)
    if ClosedJaxpr is Jaxpr:
        return closed_jaxpr.replace(**changes)
    return closed_jaxpr.replace(jaxpr=closed_jaxpr.jaxpr.replace(**changes))


def in_order(equations: Sequence[Any]) -> list[Any]:
    """The equations so that each stands behind those whose results it reads."""
    producers = {v: e for e in equations for v in e.outvars}
    placed: dict[int, Any] = {}
    pending = list(reversed(equations))
    while pending:
        equation = pending[-1]
        first = [
            producers[v]
            for v in equation.invars
            if is_variable(v) and v in producers and id(producers[v]) not in placed
        ]
        if first:
            pending += first
        else:
            placed.setdefault(id(equation), pending.pop())
    return list(placed.values())


def unique_variables(atoms: Iterable[Atom]) -> list[Any]:
    """The variables among the atoms, each once, in order."""
    return list(dict.fromkeys(atom for atom in atoms if is_variable(atom)))


_EMPTY = open_jaxpr(jax.make_jaxpr(lambda: ())())[0]


def program(inputs: Sequence[Any], outputs: Sequence[Atom], eqns: Sequence[Any]) -> Any:
    """An open program computing `outputs` from `inputs`."""
    return _EMPTY.replace(
        invars=list(inputs),
        outvars=list(outputs),
        eqns=list(eqns),
        effects=frozenset().union(*(equation.effects for equation in eqns)),
    )


def evaluate(
    equations: Sequence[Any], environment: Environment, outputs: Sequence[Atom]
) -> list[Any]:
    """Values of `outputs`; what the equations do not define is in `environment`.

    Source locations and named scopes of the equations are kept.
    """
    equations = needed(equations, outputs)
    wanted = unique_variables(outputs)
    inputs = free_variables(equations)
    inputs += [v for v in wanted if v in environment and v not in set(inputs)]
    jaxpr = program(inputs, wanted, equations)
    values = eval_jaxpr(jaxpr, [], *[environment[v] for v in inputs])
    found = dict(zip(wanted, values, strict=True))
    return [found[atom] if is_variable(atom) else atom.val for atom in outputs]


def apply(equation: Any, *operands: Any) -> Any:
    """The single result of one equation on other operands (not variables)."""
    inputs = [Var(jax.typeof(operand)) for operand in operands]
    outputs = [variable_like(equation.outvars[0])]
    jaxpr = program(inputs, outputs, [equation.replace(invars=inputs, outvars=outputs)])
    return eval_jaxpr(jaxpr, [], *operands)[0]


def splice(
    function: Callable[..., Any],
    operands: Sequence[Atom],
    equation: Any,
    outputs: Sequence[Any] | None = None,
) -> list[Any]:
    """Equations that compute `function(*operands)` into an equation's outputs.

    It lets a rule write a replacement for one equation as ordinary JAX code. With
    `outputs` they go there; the equation still gives the source location.
    """
    traced = trace(function, avals_of(operands))
    return spliced(traced, operands, equation, outputs)


def spliced(
    traced: Any,
    operands: Sequence[Atom],
    equation: Any,
    outputs: Sequence[Any] | None = None,
) -> list[Any]:
    """The same, of a closed program that may stand in many places."""
    results = list(equation.outvars if outputs is None else outputs)
    jaxpr, constants = open_jaxpr(traced)
    if constants or len(jaxpr.outvars) != len(results):
        raise NotUnderstoodError("a replacement captured constants")
    names = dict(zip(jaxpr.invars, operands, strict=True))
    made = {v for inner in jaxpr.eqns for v in inner.outvars}
    targets: dict[Any, Any] = {}
    passed = []  # results that are operands, numbers, or each other
    for atom, result in zip(jaxpr.outvars, results, strict=True):
        if is_variable(atom) and atom in made and atom not in targets:
            targets[atom] = result
        else:
            passed.append((atom, result))
    copies = renamed(jaxpr.eqns, names, targets)
    for atom, result in passed:
        operand = names[atom] if is_variable(atom) else atom
        source = equation.source_info
        copies.append(new_equation(primitives.copy_p, [operand], result, source))
    return [
        inner.replace(source_info=equation.source_info, ctx=equation.ctx)
        for inner in copies
    ]


def renamed(
    equations: Iterable[Any], names: dict[Any, Atom], targets: Environment
) -> list[Any]:
    """Copies of the equations on fresh variables.

    `names` maps outside variables to operands and grows by every variable defined
    here; a variable in `targets` keeps the name given there.
    """
    copies = []
    for equation in equations:
        outputs = [targets.get(v) or Var(v.aval) for v in equation.outvars]
        inputs = [names.get(a, a) if is_variable(a) else a for a in equation.invars]
        names.update(zip(equation.outvars, outputs, strict=True))
        copies.append(equation.replace(invars=inputs, outvars=outputs))
    return copies


def new_equation(primitive: Any, inputs: list[Any], output: Any, source: Any) -> Any:
    """An equation of a primitive without parameters."""
    return core.new_jaxpr_eqn(inputs, [output], primitive, {}, frozenset(), source)


def with_type_of(value: Any, atom: Atom) -> Any:
    """The value with the operand's type, including whether it is a weak one."""
    weak = bool(getattr(atom.aval, "weak_type", False))
    have = jax.typeof(value)
    if have.shape != atom.aval.shape:
        raise NotUnderstoodError(f"got shape {have.shape}, expected {atom.aval.shape}")
    if have.dtype == atom.aval.dtype and getattr(have, "weak_type", False) == weak:
        return value
    return primitives.convert_element_type_p.bind(
        value, new_dtype=atom.aval.dtype, weak_type=weak, sharding=None
    )
