"""Derivatives of a cost with respect to shared variables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jscan._base.errors import ScanTypeError, ScanValueError, Subject, signed, warn
from jscan._base.kinds import brief, shown
from jscan._base.types import PyTree, is_array, type_text
from jscan._base.verbs import came, is_of_the_call, verb
from jscan._frontend.result import ScanResult
from jscan._frontend.step import refuse_given_away
from jscan._state import frames
from jscan._state.array_likes import label_of, unwrapped
from jscan._state.updates import with_updates
from jscan._state.variables import SharedVariable

_SUBJECT = Subject("jscan.grad")
_FORM = (
    "write jscan.{0}(lambda: cost, [W, b]) for shared variables; for derivatives in "
    "arguments use jax.{0}"
)
_GRAD, _VALUE = _FORM.format("grad"), _FORM.format("value_and_grad")
_OF_JAX = ("argnums", "argnames")


@verb(_GRAD, dict.fromkeys(_OF_JAX, _GRAD))
def grad(cost: Callable[[], Any], wrt: PyTree, has_aux: bool = False) -> PyTree:
    """Gradient of a cost with respect to shared variables, at their values here.

    Args:
        cost: A function without arguments that reads shared variables and returns a
            real scalar (with `has_aux` the pair of it and anything else, such as the
            updates of a loop).
        wrt: A shared variable, or a list, dict or other tree of them. A variable the
            cost never reads gets zeros, and a warning: a part of it that was taken
            outside of the cost, such as ``theta[:4]``, is a constant there.
        has_aux: True: `cost` returns ``(scalar, aux)``.

    Returns:
        Gradients in the structure of `wrt`, each in the structure of its variable's
        value; with `has_aux` the pair of them and ``aux``.

    Raises:
        ScanTypeError: `wrt` holds something else than shared variables; one of them, or
            the cost, is not of real floating-point numbers.
        ScanValueError: A cost that is no scalar; no variable, or one twice.

    Works at top level, in a `function`, in a step and under JAX's transformations; it
    can be nested. Source: Theano 0.9, ``theano.grad``.

    Example:
        >>> import jscan
        >>> w = jscan.shared(3.0, name="w")
        >>> float(jscan.grad(lambda: w * w, w))
        6.0
        >>> @jscan.function
        ... def descend():
        ...     return {w: w - 0.5 * jscan.grad(lambda: w * w, w)}
        >>> descend()
        >>> float(w.value)
        0.0
    """
    result, gradients = value_and_grad(cost, wrt, has_aux)
    return (gradients, result[1]) if has_aux else gradients


@verb(_VALUE, dict.fromkeys(_OF_JAX, _VALUE))
def value_and_grad(
    cost: Callable[[], Any], wrt: PyTree, has_aux: bool = False
) -> tuple[Any, PyTree]:
    """The cost and its gradient with respect to shared variables.

    Args:
        cost: As in `grad`.
        wrt: As in `grad`.
        has_aux: As in `grad`.

    Returns:
        The pair of the cost (with `has_aux`: of the pair that `cost` returned) and the
        gradients in the structure of `wrt`.

    Raises:
        ScanError: As `grad` does.

    Works where `grad` works. Source: JAX, ``jax.value_and_grad``.

    Example:
        >>> import jscan
        >>> w = jscan.shared(3.0, name="w")
        >>> value, slope = jscan.value_and_grad(lambda: w * w, [w])
        >>> float(value), [float(part) for part in slope]
        (9.0, [6.0])
    """
    variables, tree = jax.tree.flatten(wrt)
    with signed(_SUBJECT):
        _check_variables(variables)
        refuse_given_away(variables, frames.current())

    def bound(values: list[PyTree]) -> Any:
        binding = dict(zip(variables, values, strict=True))
        with frames.Frame(binding, frames.Scope.COST, staged=False) as frame:
            result = _evaluated(cost)
            unread[:] = [v for v in variables if v not in frame.reads]
            with signed(_SUBJECT):
                scalar, aux = _split(result) if has_aux else (result, None)
                return _as_scalar(scalar), with_updates(aux)

    unread: list[SharedVariable] = []
    values = [variable.value for variable in variables]
    (value, aux), gradients = jax.value_and_grad(bound, has_aux=True)(values)
    if unread:
        warn(
            f"jscan.grad: the cost never reads {', '.join(map(repr, unread))}, so that "
            "the gradient is zero. What was computed from a variable outside of the "
            f"cost, as in w = {label_of(unread[0])}[:4], is a constant there. Fix: "
            "compute it inside of the cost, or leave the variable out of wrt."
        )
    return (value, aux) if has_aux else value, jax.tree.unflatten(tree, gradients)


def _evaluated(cost: Callable[[], Any]) -> Any:
    try:
        return cost()
    except TypeError as error:
        if callable(cost) and not is_of_the_call(error):
            raise
        raise ScanTypeError(
            "cost",
            needed="a function without arguments",
            came=came(str(error)) if callable(cost) else shown(cost),
            fix=_GRAD,
            owner=_SUBJECT,
        ) from None


def _check_variables(variables: list[Any]) -> None:
    for variable in variables:
        if not isinstance(variable, SharedVariable):
            raise ScanTypeError(
                "wrt",
                needed="shared variables",
                came=shown(variable),
                fix="use jax.grad for derivatives in arguments",
                owner=_SUBJECT,
            )
        for leaf in jax.tree.leaves(variable.value):
            if not jnp.issubdtype(leaf.dtype, jnp.floating):
                raise ScanTypeError(
                    f"wrt, {variable!r}",
                    needed="a variable of real floating-point numbers",
                    came=type_text(leaf),
                    fix="start the variable from floats, as in shared(0.0)",
                    owner=_SUBJECT,
                )
    twice = [v for index, v in enumerate(variables) if v in variables[:index]]
    if not variables or twice:
        raise ScanValueError(
            "wrt",
            needed="at least one shared variable, each once",
            came=f"{twice[0]!r} twice" if twice else "none",
            fix="name every variable once",
            owner=_SUBJECT,
        )


def _split(result: Any) -> tuple[Any, Any]:
    if isinstance(result, tuple | list) and len(result) == 2:
        return result[0], result[1]
    raise ScanTypeError(
        "has_aux=True",
        needed="a cost that returns (scalar, aux)",
        came=f"one value, {type_text(result)}" if is_array(result) else brief(result),
        fix="return two values",
        owner=_SUBJECT,
    )


def _as_scalar(cost: Any) -> jax.Array:
    """The cost as JAX differentiates it."""
    cost = unwrapped(cost)
    leaves = jax.tree.leaves(cost)
    shape = jnp.shape(cost) if len(leaves) == 1 and leaves[0] is cost else None
    if shape != ():
        raise ScanValueError(
            "cost",
            needed="a scalar",
            came=type_text(cost) if shape else type(cost).__name__,
            fix="take its outputs, as in result.outputs.sum()"
            if isinstance(cost, ScanResult)
            else "reduce it with .sum() or .mean()",
            owner=_SUBJECT,
        )
    value = jnp.asarray(cost)
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise ScanTypeError(
            "cost",
            needed="a real floating-point number",
            came=type_text(value),
            fix="compute it from floats",
            owner=_SUBJECT,
        )
    return value
