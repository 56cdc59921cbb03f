"""`check_scan`: one call of a loop against its NumPy definition, in every transform."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from support.comparing import assert_close

Tree = Any
Program = Callable[..., Tree]


class Tolerance(NamedTuple):
    """How closely numbers computed in one precision must agree."""

    value: float
    derivative: float  # against central differences of a float64 loop
    step: float  # of the differences of a gradient, taken in this precision


SINGLE = Tolerance(value=2e-5, derivative=2e-4, step=1e-2)
DOUBLE = Tolerance(value=1e-10, derivative=1e-6, step=1e-5)
DIFFERENCE_STEP = 1e-5
FULL_GRADIENT = 40  # numbers; of more, only projections of the gradient are checked


def check_scan(
    call: Program,
    reference: Program,
    *args: Tree,
    batch: bool = True,
    derivatives: bool = True,
    second: bool = True,
) -> None:
    """Compare a jscan program with a NumPy one that means the same.

    Both take `args`, trees of arrays, and return a tree of arrays. Checked are the
    values (eagerly, under `jit`, under `vmap` over a batch of three), then with
    respect to all floating and complex arguments together the gradient (of many
    numbers: its projections), forward mode along a direction, and the Hessian.

    Args:
        call: Program under test.
        reference: Same program on NumPy arrays.
        *args: Arguments of both.
        batch: Whether to check `vmap`.
        derivatives: Whether to check derivatives.
        second: Whether to check the Hessian, too.
    """
    args = jax.tree.map(np.asarray, args)
    tolerance = tolerance_of(args)
    expected = reference(*args)
    assert_close(call(*as_jax(args)), expected, tolerance.value, least=1.0)
    if batch:
        check_vmap(call, reference, args, tolerance)
    if derivatives:
        check_derivatives(call, reference, args, tolerance, second=second)
    else:
        assert_close(jax.jit(call)(*as_jax(args)), expected, tolerance.value, least=1.0)


def check_vmap(
    call: Program, reference: Program, args: Tree, tolerance: Tolerance
) -> None:
    """Three lanes with different numbers give what three calls give."""
    lanes = [jax.tree.map(lambda x: scaled(x, 1 - 0.2 * n), args) for n in range(3)]
    stacked = jax.tree.map(lambda *values: jnp.asarray(np.stack(values)), *lanes)
    actual = jax.jit(jax.vmap(call))(*stacked)
    for position, lane in enumerate(lanes):
        here = jax.tree.map(lambda x: x[position], actual)
        assert_close(here, reference(*lane), tolerance.value, least=1.0)


def check_derivatives(
    call: Program,
    reference: Program,
    args: Tree,
    tolerance: Tolerance,
    *,
    second: bool = True,
) -> None:
    """Values, gradient, forward mode and Hessian of a scalar made of all outputs."""
    flat = Flat(args)
    start = flat.start
    direction = np.cos(1.7 * np.arange(start.size) + 0.3)
    # NumPy takes the differences in double precision, whatever the arguments are.
    wide = Flat(jax.tree.map(double, args))

    def numpy_cost(point: np.ndarray) -> float:
        return weighted_sum(np, reference(*wide.rebuild(np, point)))

    def cost(point: jax.Array) -> jax.Array:
        return weighted_sum(jnp, call(*flat.rebuild(jnp, point)))

    @jax.jit  # compiled together, to compile little
    def everything(point: jax.Array) -> tuple[Tree, jax.Array, jax.Array]:
        slope = jax.jvp(cost, (point,), (jnp.asarray(direction),))[1]
        return call(*flat.rebuild(jnp, point)), jax.grad(cost)(point), slope

    outputs, gradient, slope = everything(jnp.asarray(start))
    assert_close(outputs, reference(*args), tolerance.value, least=1.0)
    directions = [direction, *np.eye(start.size)]
    if start.size > FULL_GRADIENT:
        directions = [direction, np.sin(direction * 9), np.cos(direction * 7)]
    expected = np.asarray([slope_along(numpy_cost, start, d) for d in directions])
    margin = tolerance.derivative * (1.0 + np.abs(expected).max(initial=0.0))
    projected = np.asarray([along @ np.asarray(gradient) for along in directions])
    np.testing.assert_allclose(projected, expected, 0, margin, err_msg="gradient")
    np.testing.assert_allclose(slope, expected[0], 0, margin, err_msg="forward mode")
    if second:
        check_hessian(cost, lambda p: everything(p)[1], start, direction, tolerance)


def check_hessian(
    cost: Callable[[jax.Array], jax.Array],
    gradient: Callable[[jax.Array], jax.Array],
    start: np.ndarray,
    direction: np.ndarray,
    tolerance: Tolerance,
) -> None:
    """Forward over reverse agrees with differences of the (proven) gradient."""
    hessian = np.asarray(jax.jit(jax.hessian(cost))(jnp.asarray(start)))
    shift = tolerance.step * direction
    above, below = (
        gradient(jnp.asarray(start + shift)),
        gradient(jnp.asarray(start - shift)),
    )
    expected = (np.asarray(above) - np.asarray(below)) / (2 * tolerance.step)
    margin = 50 * tolerance.derivative * (1.0 + np.abs(expected).max(initial=0.0))
    np.testing.assert_allclose(
        hessian @ direction, expected, 0, margin, err_msg="Hessian"
    )
    np.testing.assert_allclose(hessian, hessian.T, 0, margin, err_msg="symmetry")


class Flat:
    """All floating and complex numbers of a tree as one float64 vector."""

    def __init__(self, tree: Tree) -> None:
        leaves, self.structure = jax.tree.flatten(tree)
        self.leaves = [np.asarray(leaf) for leaf in leaves]
        parts = [as_reals(leaf) for leaf in self.leaves if is_inexact(leaf)]
        self.start = np.concatenate([np.zeros(0), *parts])

    def rebuild(self, xp: Any, point: Any) -> Tree:
        """The tree with the numbers of `point` in place of its own."""
        leaves, used = [], 0
        for leaf in self.leaves:
            if not is_inexact(leaf):
                leaves.append(xp.asarray(leaf))
                continue
            taken = point[used : used + leaf.size]
            used += leaf.size
            if np.iscomplexobj(leaf):
                imaginary = point[used : used + leaf.size].astype("complex128")
                taken = taken.astype("complex128") + 1j * imaginary
                used += leaf.size
            leaves.append(taken.reshape(leaf.shape).astype(leaf.dtype))
        return jax.tree.unflatten(self.structure, leaves)


def weighted_sum(xp: Any, outputs: Tree) -> Any:
    """A scalar in which every number of every output has a weight of its own."""
    total = xp.zeros((), "float64")
    for position, leaf in enumerate(jax.tree.leaves(outputs)):
        if not is_inexact(leaf):
            continue
        weights = np.cos(np.arange(leaf.size) + position).reshape(leaf.shape)
        total = total + (xp.real(leaf).astype("float64") * weights).sum()
        if xp.iscomplexobj(leaf):
            total = total + (xp.imag(leaf).astype("float64") * weights[::-1]).sum()
    return total


def slope_along(
    cost: Callable[[np.ndarray], float], at: np.ndarray, direction: np.ndarray
) -> float:
    """Central difference quotient."""
    shift = DIFFERENCE_STEP * direction
    return (cost(at + shift) - cost(at - shift)) / (2 * DIFFERENCE_STEP)


def tolerance_of(tree: Tree) -> Tolerance:
    """That of the least precise floating type."""
    kinds = {leaf.dtype.name for leaf in jax.tree.leaves(tree)}
    return SINGLE if kinds & {"float32", "complex64"} else DOUBLE


def as_jax(tree: Tree) -> Tree:
    return jax.tree.map(jnp.asarray, tree)


def as_reals(leaf: np.ndarray) -> np.ndarray:
    parts = [np.real(leaf), np.imag(leaf)] if np.iscomplexobj(leaf) else [leaf]
    return np.concatenate([part.ravel().astype("float64") for part in parts])


def double(leaf: np.ndarray) -> np.ndarray:
    if not is_inexact(leaf):
        return leaf
    return leaf.astype("complex128" if np.iscomplexobj(leaf) else "float64")


def scaled(leaf: np.ndarray, factor: float) -> np.ndarray:
    return (leaf * factor).astype(leaf.dtype) if is_inexact(leaf) else leaf


def is_inexact(leaf: Any) -> bool:
    return bool(jnp.issubdtype(leaf.dtype, jnp.inexact))
