"""The only module that knows how JAX stores a program.

Everything that differs between JAX versions about reading a loop is here, with
the small tools every pass uses: which equations are needed, which variables are
free, and how to run a list of equations once or batched over time.

Loops are only *read* here. They are written with ``jax.lax.scan`` (see
``_emit.py``), which keeps the writer independent of the JAX version.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import numpy as np
from jax.core import ShapedArray, eval_jaxpr
from jax.extend import core
from jax.extend.core import primitives

from jscan.optimize._marks import is_plain

Var = core.Var
Literal = core.Literal
Jaxpr = core.Jaxpr
ClosedJaxpr = core.ClosedJaxpr  # pyright: ignore[reportPrivateImportUsage]
Equation = core.JaxprEqn
Atom: TypeAlias = Any  # Var | Literal; both classes are opaque to type checkers
Environment: TypeAlias = Mapping[Any, Any]

JAX_VERSION = tuple(int(part) for part in jax.__version__.split(".")[:2])

_SCAN_PARAMETERS = {
    *("jaxpr", "length", "reverse", "unroll"),
    *("num_consts", "num_carry"),  # JAX 0.10
    *("ft_in", "ft_out"),  # JAX 0.12
}


class NotUnderstoodError(NotImplementedError):
    """A program holds something the optimizer does not know; it stays as it is."""


@dataclass(frozen=True)
class ScanParameters:
    """A scan equation, read."""

    num_constants: int
    num_carry: int
    body: Any
    body_constants: list[Any]
    length: int
    reverse: bool
    unroll: int


def read_scan(equation: Any) -> ScanParameters:
    """Read the parameters of a scan equation of any supported JAX version."""
    parameters = equation.params
    unknown = set(parameters) - _SCAN_PARAMETERS
    if unknown:
        raise NotUnderstoodError(f"scan has unknown parameters {sorted(unknown)}")
    if "num_consts" in parameters:
        num_constants, num_carry = parameters["num_consts"], parameters["num_carry"]
    else:
        constants, carry, _ = parameters["ft_in"].unpack()
        num_constants, num_carry = len(constants), len(carry)
    body, body_constants = open_jaxpr(parameters["jaxpr"])
    return ScanParameters(
        num_constants=num_constants,
        num_carry=num_carry,
        body=body,
        body_constants=body_constants,
        length=int(parameters["length"]),
        reverse=bool(parameters["reverse"]),
        unroll=int(parameters["unroll"]),
    )


def is_scan(equation: Any) -> bool:
    """Whether the equation is a loop of a known number of steps."""
    return equation.primitive is primitives.scan_p


def is_variable(atom: Atom) -> bool:
    """Whether an operand is a variable (else it is a literal)."""
    return not isinstance(atom, Literal)


def is_jaxpr(value: Any) -> bool:
    """Whether an equation's parameter is a program."""
    return isinstance(value, Jaxpr | ClosedJaxpr)


def open_jaxpr(jaxpr: Any) -> tuple[Any, list[Any]]:
    """Return a program without constants and its constants."""
    # From JAX 0.12 on the two classes are one, and it always holds constants.
    if ClosedJaxpr is Jaxpr or isinstance(jaxpr, ClosedJaxpr):
        return jaxpr.jaxpr, list(jaxpr.consts)
    return jaxpr, []


def avals_of(atoms: Iterable[Atom]) -> list[Any]:
    """Types of operands; JAX's tracing functions take them as arguments."""
    return [atom.aval for atom in atoms]


def trace(function: Callable[..., Any], avals: Sequence[Any]) -> Any:
    """A closed program of `function`, on the mesh its arguments lie on.

    A program is rewritten while it is lowered, where JAX has left the mesh (and the
    names of its manual axes) that it was traced under.
    """
    mesh = mesh_of(avals)
    if mesh is None:
        return jax.make_jaxpr(function)(*avals)
    kinds = zip(mesh.axis_names, mesh.axis_sizes, mesh.axis_types, strict=True)
    manual = jax.sharding.AxisType.Manual
    names = [(name, size) for name, size, kind in kinds if kind == manual]
    with jax.sharding.use_abstract_mesh(mesh):
        return jax.make_jaxpr(function, axis_env=names)(*avals)


def holds_wide(jaxpr: Any) -> bool:
    """Whether an open program computes with numbers of 64 bits."""
    inner = (e for equation in jaxpr.eqns for e in every_equation(equation))
    made = (v for equation in inner for v in equation.outvars)
    return any(getattr(v.aval, "dtype", None) in _WIDE for v in (*jaxpr.invars, *made))


_WIDE = frozenset(map(np.dtype, (np.int64, np.uint64, np.float64, np.complex128)))


def mesh_of(avals: Iterable[Any]) -> Any:
    """The mesh that values of these types lie on, or `None`."""
    for aval in avals:
        mesh = getattr(getattr(aval, "sharding", None), "mesh", None)
        if mesh is not None and not mesh.empty:
            return mesh
    return None


def variable_like(atom: Atom, shape: Sequence[int] | None = None) -> Any:
    """A new variable of the operand's type, of the same or another shape."""
    aval = atom.aval
    if shape is None:
        return Var(aval)
    return Var(ShapedArray(tuple(shape), aval.dtype))


def number_of_bytes(atom: Atom) -> int:
    """Bytes one value of the operand takes."""
    aval = atom.aval
    if not hasattr(aval, "shape"):
        return 8
    return int(np.prod(aval.shape, dtype=np.int64)) * aval.dtype.itemsize


def sub_programs(equation: Any) -> Iterator[Any]:
    """The programs an equation holds: bodies, branches, called functions."""
    if is_plain(equation):
        return
    for value in equation.params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if is_jaxpr(item):
                yield item


def fills_with_number(equation: Any) -> bool:
    """Whether an equation makes an array of one number that the program holds."""
    return equation.primitive is primitives.broadcast_in_dim_p and not is_variable(
        equation.invars[0]
    )


def fills_with_zero(equation: Any) -> bool:
    """Whether the equation makes an array of zeros, or a zero of another type."""
    converts = equation.primitive is primitives.convert_element_type_p
    return (converts or fills_with_number(equation)) and is_zero_literal(
        equation.invars[0]
    )


def is_zero_literal(atom: Atom) -> bool:
    """Whether an operand is the number zero."""
    if is_variable(atom) or atom.aval.dtype == jax.dtypes.float0:
        return False
    return bool(atom.val == 0)


def every_equation(equation: Any) -> Iterator[Any]:
    """The equation and all equations of the programs inside it."""
    yield equation
    for inner in sub_programs(equation):
        for nested in open_jaxpr(inner)[0].eqns:
            yield from every_equation(nested)


def holds(equation: Any, names: frozenset[str]) -> bool:
    """Whether the equation, or a program inside it, uses one of the primitives."""
    return any(nested.primitive.name in names for nested in every_equation(equation))


def free_variables(equations: Iterable[Any]) -> list[Any]:
    """Variables the equations read and do not define, in order of first use."""
    defined: set[Any] = set()
    free: dict[Any, None] = {}
    for equation in equations:
        for atom in equation.invars:
            if is_variable(atom) and atom not in defined:
                free[atom] = None
        defined.update(equation.outvars)
    return list(free)


def needed(equations: Sequence[Any], roots: Iterable[Atom]) -> list[Any]:
    """The equations that the roots depend on, and those with effects, in order."""
    live = {atom for atom in roots if is_variable(atom)}
    kept = []
    for equation in reversed(equations):
        if equation.effects or any(v in live for v in equation.outvars):
            kept.append(equation)
            live.update(atom for atom in equation.invars if is_variable(atom))
    return kept[::-1]


def without_dead_code(closed_jaxpr: Any) -> Any:
    """The program without the equations its results do not need."""
    opened, _ = open_jaxpr(closed_jaxpr)
    return with_body(closed_jaxpr, needed(opened.eqns, opened.outvars), opened.outvars)


def with_body(
    closed_jaxpr: Any, equations: Sequence[Any], outputs: Sequence[Atom]
) -> Any:
    """A closed program with other equations and results, and the same inputs."""
    changes = {"eqns": list(equations), "outvars": list(outputs)}
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
    effects = frozenset().union(*(equation.effects for equation in eqns))
    return _EMPTY.replace(
        constvars=(),
        invars=list(inputs),
        outvars=list(outputs),
        eqns=list(eqns),
        effects=effects,
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
    output = Var(equation.outvars[0].aval)
    jaxpr = program(
        inputs, [output], [equation.replace(invars=inputs, outvars=[output])]
    )
    return eval_jaxpr(jaxpr, [], *operands)[0]


def splice(
    function: Callable[..., Any],
    operands: Sequence[Atom],
    equation: Any,
    outputs: Sequence[Any] | None = None,
) -> list[Any]:
    """Equations that compute `function(*operands)` into an equation's outputs.

    It lets a pass write a replacement for one equation as ordinary JAX code. With
    `outputs` they go there; the equation still gives the source location.
    """
    results = list(equation.outvars if outputs is None else outputs)
    traced = trace(function, avals_of(operands))
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
    no_effects: frozenset[Any] = frozenset()
    return core.new_jaxpr_eqn(inputs, [output], primitive, {}, no_effects, source)


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
