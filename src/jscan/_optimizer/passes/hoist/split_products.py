"""hoist, preparation: shape a step so that sequence work stands alone.

Two common ways to write a cell hide it. ``concatenate([x, h]) @ W`` mixes a sequence
and the state in one product, which is the sum of two. ``split(x @ W + h @ U, 4)``
reads slices of a sum: hoisting ``x @ W`` whole would make XLA read four slices of one
wide row at each step, which is slower than the loop it came from. So the slices are
pushed through elementwise work down to the columns of ``W`` first, unless the machine
reads the row as a whole (see `_whole_rows.py`).
"""

from dataclasses import replace
from typing import Any

from jscan._jax.jaxprs import is_variable, stack_bytes, variable_like
from jscan._jax.names import primitives
from jscan._jax.slices import slice_of
from jscan._optimizer.analysis.dependence import Dependence, Level
from jscan._optimizer.passes.hoist.push_slices import pushed
from jscan._optimizer.record.cleanup import drop_unused
from jscan._optimizer.record.context import Context
from jscan._optimizer.record.loop import Loop


def run(loop: Loop, context: Context) -> Loop:
    """Split products of concatenations, then push slices towards the operands."""
    # XLA has no split: slices are the same, and every pass knows them.
    taken_apart = _splits_as_slices(_split_products(loop))
    products = _sequence_products(taken_apart)
    if products and _would_leave(products, taken_apart, context):
        if context.machine.whole_rows:
            return taken_apart
        cut = pushed(taken_apart)
        text = "slices pushed through elementwise work to the weights"
        return cut if cut is taken_apart else cut.fired(text)
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
    return drop_unused(loop.fired(f"{count} product(s) of a concatenation taken apart"))


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
