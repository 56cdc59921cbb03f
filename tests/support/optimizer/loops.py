"""What the tests of the optimizer share: counting operations, comparing programs."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import jaxpr_as_fun

from jscan import optimize
from jscan._jax.marks import is_marked
from jscan._jax.scans import read_scan
from jscan._optimizer import make_options, rewrite
from jscan._optimizer.lowering import rewritten
from jscan._optimizer.options import choices_of
from support.comparing import assert_close

Function = Callable[..., Any]


def _inner_programs(equation: Any) -> list[Any]:
    if is_region(equation):  # as it reaches XLA
        options = choices_of(equation.params["name"])
        return [rewritten(equation.params["jaxpr"], options, "cpu").jaxpr]
    found = []
    for value in equation.params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if hasattr(item, "eqns"):
                found.append(getattr(item, "jaxpr", item))
    return found


def is_region(equation: Any) -> bool:
    """Whether the equation is a part that the optimizer rewrites."""
    return equation.primitive.name == "jit" and is_marked(equation.params["name"])


def operations(fun: Function, *args: Any) -> tuple[list[str], list[str]]:
    """Names of the primitives outside loops and inside them, calls opened."""
    outside: list[str] = []
    inside: list[str] = []

    def walk(jaxpr: Any, names: list[str]) -> None:
        for equation in jaxpr.eqns:
            name = equation.primitive.name
            if name != "jit":
                names.append(name)
            inner = inside if name == "scan" else names
            for program in _inner_programs(equation):
                walk(program, inner)

    walk(jax.make_jaxpr(fun)(*args).jaxpr, outside)
    return outside, inside


def loop_lengths(fun: Function, *args: Any) -> list[int]:
    """The number of steps of each loop, outer ones first."""
    lengths: list[int] = []

    def walk(jaxpr: Any) -> None:
        for equation in jaxpr.eqns:
            if equation.primitive.name == "scan":
                lengths.append(equation.params["length"])
            for program in _inner_programs(equation):
                walk(program)

    walk(jax.make_jaxpr(fun)(*args).jaxpr)
    return lengths


def stacked_shapes(fun: Function, *args: Any) -> list[tuple[int, ...]]:
    """Shapes of all results of the outermost loops."""
    shapes: list[tuple[int, ...]] = []

    def walk(jaxpr: Any) -> None:
        for equation in jaxpr.eqns:
            if equation.primitive.name == "scan":
                shapes.extend(np.shape(v.aval) for v in equation.outvars)
            elif is_region(equation):
                walk(*_inner_programs(equation))

    walk(jax.make_jaxpr(fun)(*args).jaxpr)
    return shapes


def row_shapes(fun: Function, *args: Any) -> list[tuple[int, ...]]:
    """Shapes of the stacks that the outermost loops read a row of at each step."""
    start = lambda loop: loop.num_constants + loop.num_carry
    return _input_shapes(lambda loop: slice(start(loop), None), fun, *args)


def carried_shapes(fun: Function, *args: Any) -> list[tuple[int, ...]]:
    """Shapes of what the outermost loops carry."""
    first = lambda loop: loop.num_constants
    which = lambda loop: slice(first(loop), first(loop) + loop.num_carry)
    return _input_shapes(which, fun, *args)


def _input_shapes(
    which: Callable[[Any], slice], fun: Function, *args: Any
) -> list[tuple[int, ...]]:
    shapes: list[tuple[int, ...]] = []

    def walk(jaxpr: Any) -> None:
        for equation in jaxpr.eqns:
            if equation.primitive.name == "scan":
                read = equation.invars[which(read_scan(equation))]
                shapes.extend(np.shape(v.aval) for v in read)
            elif is_region(equation):
                walk(*_inner_programs(equation))

    walk(jax.make_jaxpr(fun)(*args).jaxpr)
    return shapes


def row_parts(parts: Function, rows: jax.Array, *, reverse: bool = False) -> jax.Array:
    """A cell of four gates, which `parts(row, h)` gives."""

    def step(state: Any, row: Any) -> tuple[Any, Any]:
        h, c = state
        i, f, g, o = parts(row, h)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), h

    zeros = jnp.zeros((*rows.shape[1:-1], 2), rows.dtype)
    return jax.lax.scan(step, (zeros, zeros), rows, reverse=reverse)[1]


def check(fun: Function, *args: Any, tolerance: float = 2e-5, **options: Any) -> None:
    """`fun` and its gradient agree with and without the optimizer.

    The gradient is with respect to the first argument, of the sum of squares of all
    results, with the optimizer inside and outside of it; one `vmap` is taken around.
    """

    def loss(*operands: Any) -> Any:
        return sum((leaf**2).sum() for leaf in jax.tree.leaves(fun(*operands)))

    def loss_inside(*operands: Any) -> Any:
        results = optimize(fun, **options)(*operands)
        return sum((leaf**2).sum() for leaf in jax.tree.leaves(results))

    def plain(*operands: Any) -> Any:
        return fun(*operands), jax.grad(loss)(*operands)

    @jax.jit  # compiled together, to compile little
    def everything(operands: Any, stacked: Any) -> Any:
        after = optimize(plain, **options)(*operands)
        before = optimize(fun, **options)(*operands), jax.grad(loss_inside)(*operands)
        inside = jax.vmap(optimize(fun, **options))(*stacked)
        outside = optimize(jax.vmap(fun), **options)(*stacked)
        return (after, before), (inside, outside)

    twice = lambda tree: jax.tree.map(lambda x: np.stack([x, x]), tree)
    expected = jax.jit(plain)(*args)
    once, batched = everything(args, twice(args))
    assert_close(once, (expected, expected), tolerance)
    assert_close(batched, (twice(expected[0]),) * 2, tolerance)


def check_other_derivatives(loss: Function, at: float = 0.9) -> None:
    """Forward mode and second order of a number's function, inside and outside."""
    scale = jnp.asarray(at)
    plain = jax.hessian(loss)(scale)
    assert_close(jax.hessian(optimize(loss))(scale), plain, 1e-3)
    assert_close(jax.jit(optimize(jax.hessian(loss)))(scale), plain, 1e-3)
    slope = jax.jvp(loss, (scale,), (jnp.ones(()),))
    assert_close(jax.jvp(optimize(loss), (scale,), (jnp.ones(()),)), slope, 1e-4)


def lowered(fun: Function, *args: Any, **options: Any) -> Function:
    """`fun` as rewritten when no derivative can follow; a list of flat results."""
    closed = jax.make_jaxpr(fun)(*args)
    asked = make_options(**options)
    return jaxpr_as_fun(rewrite(closed, platform="cpu", options=asked))


def reasons(fun: Function, *args: Any, name: str, **options: Any) -> str:
    """All refusals of one pass, as one text."""
    from jscan import explain

    report = explain(fun, **options)(*args)
    return "\n".join(
        note.text
        for loop in report.loops
        for note in loop.notes
        if note.pass_name == name and not note.fired
    )
