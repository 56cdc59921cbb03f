"""hoist, preparation: shape a step so that sequence work stands alone.

Two common ways to write a cell hide it. ``concatenate([x, h]) @ W`` mixes a sequence
and the state in one product, which is the sum of two. ``split(x @ W + h @ U, 4)``
reads slices of a sum: hoisting ``x @ W`` whole would make XLA read four slices of one
wide row at each step, which is slower than the loop it came from, so the slices are
pushed through elementwise work down to the columns of ``W`` and ``U`` first.
"""

from dataclasses import replace
from typing import Any

from jax.extend.core import primitives

from jscan.optimize._cost import stack_bytes
from jscan.optimize._dependence import Dependence, Level
from jscan.optimize._jaxpr import Atom, is_variable, variable_like
from jscan.optimize._loop import Loop
from jscan.optimize._merge import drop_unused
from jscan.optimize._options import Context
from jscan.optimize._work import is_cut, is_elementwise

NAME = "hoist"


def run(loop: Loop, context: Context) -> Loop:
    """Split products of concatenations, then push slices towards the operands."""
    # XLA has no split: slices are the same, and every pass knows them.
    taken_apart = _splits_as_slices(_split_products(loop))
    products = _sequence_products(taken_apart)
    if products and _would_leave(products, taken_apart, context):
        return _push_slices(taken_apart)
    # Without that, one product of all is faster than one of each part.
    return _splits_as_slices(loop)


def _sequence_products(loop: Loop) -> list[Any]:
    dependence = Dependence(loop)
    return [
        e
        for e in loop.equations
        if e.primitive is primitives.dot_general_p
        and dependence.level_of(e) is Level.SEQUENCE
    ]


def _would_leave(products: list[Any], loop: Loop, context: Context) -> bool:
    """Whether products of sequences can be expected to be done for all steps."""
    new = stack_bytes([e.outvars[0] for e in products], loop.length)
    held = stack_bytes(loop.stacked(), loop.length)
    machine = context.machine
    return new <= context.budget and machine.pays_batched(
        products, loop.length, held=held, new=new
    )


def slice_of(
    atom: Any, starts: tuple[int, ...], limits: tuple[int, ...], like: Any
) -> Any:
    """An equation that slices an operand, at the source location of another."""
    shape = [limit - start for start, limit in zip(starts, limits, strict=True)]
    return like.replace(
        primitive=primitives.slice_p,
        invars=[atom],
        outvars=[variable_like(atom, shape)],
        params={
            "start_indices": tuple(starts),
            "limit_indices": tuple(limits),
            "strides": None,
        },
        effects=frozenset(),
    )


def _split_products(loop: Loop) -> Loop:
    """`concatenate(a, b) @ W` becomes `a @ W[:k] + b @ W[k:]`."""
    dependence = Dependence(loop)
    equations: list[Any] = []
    count = 0
    for equation in loop.equations:
        joined = _concatenation(equation, dependence)
        if joined is None:
            equations.append(equation)
        else:
            equations += _sum_of_products(equation, joined)
            count += 1
    if not count:
        return loop
    loop = replace(loop, equations=tuple(equations))
    return drop_unused(
        loop.fired(NAME, f"{count} product(s) of a concatenation taken apart")
    )


def _concatenation(equation: Any, dependence: Dependence) -> Any | None:
    """The concatenation of state and other parts that a product reads."""
    if equation.primitive is not primitives.dot_general_p:
        return None
    left, right = equation.invars
    (contracted, _), (batch, _) = equation.params["dimension_numbers"]
    joined = dependence.producers.get(left) if is_variable(left) else None
    if joined is None or joined.primitive is not primitives.concatenate_p:
        return None
    if batch or tuple(contracted) != (joined.params["dimension"],):
        return None
    levels = [dependence.level(part) for part in joined.invars]
    mixed = Level.STATE in levels and min(levels) < Level.STATE
    constant = is_variable(right) and dependence.level(right) is Level.CONSTANT
    return joined if mixed and constant else None


def _sum_of_products(equation: Any, joined: Any) -> list[Any]:
    right = equation.invars[1]
    (_, (axis,)), _ = equation.params["dimension_numbers"]
    made: list[Any] = []
    products: list[Any] = []
    offset = 0
    for part in joined.invars:
        width = part.aval.shape[joined.params["dimension"]]
        starts, limits = [0] * right.aval.ndim, list(right.aval.shape)
        starts[axis], limits[axis] = offset, offset + width
        offset += width
        rows = slice_of(right, tuple(starts), tuple(limits), equation)
        product = equation.replace(
            invars=[part, rows.outvars[0]],
            outvars=[variable_like(equation.outvars[0])],
        )
        made += [rows, product]
        products.append(product.outvars[0])
    total = products[0]
    for index, product in enumerate(products[1:], start=2):
        last = index == len(products)
        output = equation.outvars[0] if last else variable_like(equation.outvars[0])
        made.append(
            equation.replace(
                primitive=primitives.add_p,
                invars=[total, product],
                outvars=[output],
                params={},
            )
        )
        total = output
    return made


def _splits_as_slices(loop: Loop) -> Loop:
    if not any(e.primitive.name == "split" for e in loop.equations):
        return loop
    equations: list[Any] = []
    for equation in loop.equations:
        if equation.primitive.name != "split":
            equations.append(equation)
            continue
        (operand,), axis, offset = equation.invars, equation.params["axis"], 0
        sizes = equation.params["sizes"]
        for output, size in zip(equation.outvars, sizes, strict=True):
            starts, limits = [0] * operand.aval.ndim, list(operand.aval.shape)
            starts[axis], limits[axis] = offset, offset + size
            offset += size
            cut = slice_of(operand, tuple(starts), tuple(limits), equation)
            equations.append(cut.replace(outvars=[output]))
    return replace(loop, equations=tuple(equations))


def _push_slices(loop: Loop) -> Loop:
    pushed = 0
    while True:
        loop, count = _push_once(loop)
        if not count:
            break
        pushed += count
    if not pushed:
        return loop
    return drop_unused(
        loop.fired(NAME, "slices pushed through elementwise work to the weights")
    )


def _push_once(loop: Loop) -> tuple[Loop, int]:
    """One walk: each value read by slices alone is computed slice by slice."""
    dependence = Dependence(loop)
    outside = dependence.read_outside()
    equations: list[Any] = []
    gone: set[int] = set()
    count = 0
    for equation in loop.equations:
        if id(equation) in gone:
            continue
        cuts = _slices_of(equation, dependence)
        if not cuts or equation.outvars[0] in outside:
            equations.append(equation)
            continue
        if _cuts_elementwise(equation):
            slicer = _sliced_operands
        elif _cuts_columns(equation, cuts, dependence):
            slicer = _sliced_columns
        else:
            equations.append(equation)
            continue
        for cut in cuts:
            made, operands = slicer(equation, cut)
            equations += made
            equations.append(equation.replace(invars=operands, outvars=cut.outvars))
            gone.add(id(cut))
        count += 1
    return replace(loop, equations=tuple(equations)), count


def _slices_of(equation: Any, dependence: Dependence) -> list[Any]:
    """The readers of an equation's one result, if all of them slice it."""
    if len(equation.outvars) != 1:
        return []
    readers = dependence.users.get(equation.outvars[0], [])
    return readers if all(map(is_cut, readers)) else []


def _cuts_elementwise(equation: Any) -> bool:
    shape = equation.outvars[0].aval.shape
    return is_elementwise(equation) and all(
        atom.aval.shape == ()
        or (
            atom.aval.ndim == len(shape)
            and all(d in (1, n) for d, n in zip(atom.aval.shape, shape, strict=True))
        )
        for atom in equation.invars
    )


def _cuts_columns(equation: Any, cuts: list[Any], dependence: Dependence) -> bool:
    """Whether a product with constant weights may be cut into their columns."""
    if equation.primitive is not primitives.dot_general_p:
        return False
    right = equation.invars[1]
    _, (batch, _) = equation.params["dimension_numbers"]
    if batch or not is_variable(right) or right.aval.ndim != 2:
        return False
    if dependence.level(right) is not Level.CONSTANT:
        return False
    shape = equation.outvars[0].aval.shape
    whole_rows = all(
        not any(cut.params["start_indices"][:-1])
        and tuple(cut.params["limit_indices"][:-1]) == shape[:-1]
        for cut in cuts
    )
    # A product of the state is not taken apart: one wide product is faster.
    return whole_rows and dependence.level_of(equation) is Level.SEQUENCE


def _sliced_operands(equation: Any, cut: Any) -> tuple[list[Any], list[Atom]]:
    made: list[Any] = []
    operands: list[Atom] = []
    for atom in equation.invars:
        if atom.aval.shape == () or not is_variable(atom):
            operands.append(atom)
            continue
        starts, limits = [], []
        for size, start, limit in zip(
            atom.aval.shape,
            cut.params["start_indices"],
            cut.params["limit_indices"],
            strict=True,
        ):
            # An axis of size one is broadcast by some primitives: keep it whole.
            starts.append(0 if size == 1 else start)
            limits.append(1 if size == 1 else limit)
        new = slice_of(atom, tuple(starts), tuple(limits), cut)
        made.append(new)
        operands.append(new.outvars[0])
    return made, operands


def _sliced_columns(equation: Any, cut: Any) -> tuple[list[Any], list[Atom]]:
    left, right = equation.invars
    (_, (contracted,)), _ = equation.params["dimension_numbers"]
    starts, limits = [0, 0], list(right.aval.shape)
    starts[1 - contracted] = cut.params["start_indices"][-1]
    limits[1 - contracted] = cut.params["limit_indices"][-1]
    new = slice_of(right, tuple(starts), tuple(limits), cut)
    return [new], [left, new.outvars[0]]
