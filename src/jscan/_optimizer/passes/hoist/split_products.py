"""hoist, preparation: shape a step so that sequence work stands alone.

Two common ways to write a cell hide it. ``concatenate([x, h]) @ W`` mixes a sequence
and the state in one product, which is the sum of two. ``split(x @ W + h @ U, 4)``
reads slices of a sum: hoisting ``x @ W`` whole would make XLA read four slices of one
wide row at each step, which is slower than the loop it came from. So the slices are
pushed through elementwise work down to the columns of ``W`` first, unless the machine
reads the row as a whole (see `whole_rows.py`).
"""

from typing import Any

from jscan._base.kinds import counted
from jscan._jax.equations import splice
from jscan._jax.jaxprs import is_variable, stack_bytes, variable_like
from jscan._jax.names import primitives
from jscan._jax.slices import parts_of
from jscan._optimizer.analysis.dependence import Dependence, Level
from jscan._optimizer.analysis.sum_trees import add_up
from jscan._optimizer.passes.hoist.push_slices import pushed
from jscan._optimizer.record.cleanup import drop_unused
from jscan._optimizer.record.context import Context
from jscan._optimizer.record.loop import Loop


def run(loop: Loop, context: Context) -> Loop:
    """Split products of concatenations, then push slices towards the operands."""
    # XLA has no split: slices are the same, and every rule knows them.
    split = _split_products(loop)
    taken_apart = _splits_as_slices(split)
    cut = taken_apart if context.machine.whole_rows else pushed(taken_apart)
    # The call stays that did all of such a product, and more rows are read by slices.
    rows = len(_products_of_sequences(cut)) - len(_products_of_sequences(taken_apart))
    rows += split is not loop
    if _has_leaving_products(taken_apart, context, rows):
        text = "slices pushed through elementwise work to the weights"
        return cut if cut is taken_apart else cut.fired(text)
    # Without that, one product of all is faster than one of each part.
    return _splits_as_slices(loop)


def _products_of_sequences(loop: Loop) -> list[Any]:
    dependence = Dependence(loop)
    return [
        e
        for e in loop.equations
        if e.primitive is primitives.dot_general_p
        and dependence.level_of(e) is Level.SEQUENCE
    ]


def _has_leaving_products(loop: Loop, context: Context, rows: int) -> bool:
    """Whether products of sequences can be expected to be done for all steps.

    So many of their rows are read at each step as a call would take as long.
    """
    products = _products_of_sequences(loop)
    new = stack_bytes([e.outvars[0] for e in products], loop.length)
    held = stack_bytes(loop.stacked(), loop.length)
    machine = context.machine
    lost = -rows * max(0.0, machine.vector_call)
    stay = machine.keeps_in_loop(
        products, loop.length, lost, step=loop.equations, held=held, new=new
    )
    return bool(products) and new <= context.budget and stay is None


def _split_products(loop: Loop) -> Loop:
    """`concatenate(a, b) @ W` becomes `a @ W[:k] + b @ W[k:]`."""
    dependence = Dependence(loop)
    new: dict[int, list[Any]] = {}
    for equation in loop.equations:
        joined = _concatenation(equation, dependence)
        if joined is not None:
            new[id(equation)] = _sum_of_products(equation, joined)
    if not new:
        return loop
    text = f"{counted(len(new), 'product')} of a concatenation taken apart"
    return drop_unused(loop.exchanged(new).fired(text))


def _concatenation(equation: Any, dependence: Dependence) -> Any | None:
    """The concatenation of state and other parts that a product reads."""
    if equation.primitive is not primitives.dot_general_p:
        return None
    left, right = equation.invars
    (contracted, _), (batch, _) = equation.params["dimension_numbers"]
    joined = dependence.producer(left)
    if joined is None or joined.primitive is not primitives.concatenate_p:
        return None
    if batch or tuple(contracted) != (joined.params["dimension"],):
        return None
    levels = [dependence.level(part) for part in joined.invars]
    mixed = Level.STATE in levels and min(levels) < Level.STATE
    constant = is_variable(right) and not dependence.changes(right)
    return joined if mixed and constant else None


def _sum_of_products(equation: Any, joined: Any) -> list[Any]:
    (_, (axis,)), _ = equation.params["dimension_numbers"]
    sizes = [part.aval.shape[joined.params["dimension"]] for part in joined.invars]
    rows = parts_of(equation.invars[1], axis, sizes, equation)
    products = [
        equation.replace(
            invars=[part, *cut.outvars], outvars=[variable_like(*equation.outvars)]
        )
        for part, cut in zip(joined.invars, rows, strict=True)
    ]
    terms = [product.outvars[0] for product in products]
    return [*rows, *products, *splice(add_up, terms, equation)]


def _splits_as_slices(loop: Loop) -> Loop:
    return loop.exchanged(
        {id(e): _slices(e) for e in loop.equations if e.primitive.name == "split"}
    )


def _slices(split: Any) -> list[Any]:
    (operand,), axis, sizes = split.invars, split.params["axis"], split.params["sizes"]
    cuts = zip(parts_of(operand, axis, sizes, split), split.outvars, strict=True)
    return [cut.replace(outvars=[output]) for cut, output in cuts]
